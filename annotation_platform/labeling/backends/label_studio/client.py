"""Label Studio as the place where people label: one project per round, one task per place."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp, UncertainError
from annotation_platform.labeling.backends.label_studio.image_sources import (
    ImagePlace,
)
from annotation_platform.labeling.backends.label_studio.interface import (
    labeling_config,
    labeling_instructions,
    review_config,
    tasks_tab,
)
from annotation_platform.labeling.backends.label_studio.people import (
    check_removable,
    delete_account,
    members,
)
from annotation_platform.labeling.backends.label_studio.tasks import (
    ProjectTasks,
)
from annotation_platform.labeling.backends.protocol import (
    LabelingBackend,
    Place,
    Progress,
    Submission,
    TaskCopy,
)
from annotation_platform.labeling.rate_limiter import Timing
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.keys import is_shown

if TYPE_CHECKING:
    pass
from annotation_platform.labeling.backends.label_studio.messages import submission_of, task_of

_EVERYBODY = "Everybody"

_CREATIONS = 3


@dataclass(frozen=True)
class _Made:
    id: int


@dataclass(frozen=True)
class _Project:
    id: int
    title: str
    task_number: int


@dataclass(frozen=True)
class _User:
    id: int
    email: str


@dataclass(frozen=True)
class _Counts:
    task_number: int
    total_annotations_number: int
    skipped_annotations_number: int


@dataclass(frozen=True)
class _Changed:
    updated_at: str


@dataclass(frozen=True)
class _Newest:
    tasks: list[_Changed]
    total: int
    total_annotations: int


@dataclass(frozen=True)
class _Tab:
    id: int
    data: dict[str, Any]


_PROJECTS = TypeAdapter(list[_Project])

_MADE = TypeAdapter(_Made)

_SETTINGS = TypeAdapter(dict[str, Any])

_USERS = TypeAdapter(list[_User])

_COUNTS = TypeAdapter(_Counts)

_NEWEST = TypeAdapter(_Newest)

_TABS = TypeAdapter(list[_Tab])


class LabelStudioClient(LabelingBackend):
    """A Label Studio server, reached with a legacy token or a personal access token.

    Nothing is enforced by Label Studio 1.23: anybody who may log in can answer, edit and delete
    anything. So what is read back is checked, and what was published is looked up again.

    Args:
        url: Address of the server.
        token: Token of its administrator.
        images: Where the server gets the images that it shows.
        shown: Where it gets those of rounds in which something is kept from people; without it
            such a round is refused.
        people: Who can be assigned places; by default every member but the administrator.
        timing: How long it waits, and how fast it asks.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        images: ImagePlace,
        shown: ImagePlace | None = None,
        people: Sequence[str] = (),
        timing: Timing | None = None,
    ) -> None:
        self.timing = timing = timing or Timing()
        self._http = LabelStudioHttp(
            url,
            token,
            timeout_seconds=timing.timeout_seconds,
            retry_seconds=timing.retry_seconds,
            requests_per_second=timing.requests_per_second,
        )
        self._images = images
        self._shown = shown
        self._people = sorted(people)

    @property
    def name(self) -> str:
        """The back end's name, as tables record it."""
        return "label-studio"

    def annotators(self) -> list[str]:
        """Return the e-mail addresses of those whom places can be assigned to, sorted.

        The administrator is not among them, but what the administrator answers counts.
        """
        return self._people or members(self._http)

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        copies: Sequence[TaskCopy],
        *,
        closed: Collection[Place] = (),
    ) -> Mapping[Place, str]:
        """Make exactly one task for each copy and return Label Studio's id by (task_id, place).

        The project is called ``round_id``. Doing it again, whole or after half of it, adds
        what is missing and nothing else. Tasks that people deleted are made again, those of
        ``closed`` places excepted. Where two publishers made the same task, the one that nobody
        touched is deleted.

        Args:
            round_id: the round.
            ontology: what people choose from.
            copies: every place of the round.
            closed: places that nobody is to be asked for any more: answered in the ledger, or
                lost and not to be sent again. Their tasks are left as they are; one that is
                gone has the id ``""``.

        Raises:
            LabelingError: Label Studio cannot be reached or refused.
        """
        given = {(copy.task_id, copy.place): copy for copy in copies}
        if len(given) < len(copies):
            raise ValueError(f"{round_id}: two copies are the same place of the same task")
        if any(copy.purpose == "review" for copy in copies):
            config = review_config(ontology)
        else:
            config = labeling_config(ontology, notes=any(copy.note for copy in copies))
        images = self._place_of(round_id, copies)
        project = self._find_or_create(round_id, ontology, config)
        images.grant(self._http, project)
        self._make_tabs(project, sorted({copy.assignee for copy in copies if copy.assignee}))
        wanted = {
            place: task_of(copy, round_id, images.address(copy.image_key))
            for place, copy in given.items()
            if place not in closed
        }
        ids = self._tasks(project).ensure(wanted)
        return {place: str(ids.get(place, "")) for place in given}

    def held_places(self, round_id: str) -> Collection[Place]:
        """Return the places whose tasks Label Studio holds of a round now.

        A place that was published and is not among them was deleted there.

        Raises:
            LabelingError: The list was not read completely.
        """
        project = self._find(round_id)
        return set() if project is None else self._tasks(project).places()

    def collect(self, round_id: str) -> list[Submission]:
        """Return every annotation that people submitted in this round, skips included.

        Sorted by task and annotation. The author is the e-mail address of whoever submitted
        it, also after that person's removal; ``user-<id>`` where no address is left, and
        ``unknown`` where the account was deleted. Tasks that were not made by
        ``publish`` are none of ours and are left out.

        Raises:
            LabelingError: The list was not read completely; what was read is not returned.
        """
        project = self._find(round_id)
        if project is None:
            return []
        emails = {user.id: user.email for user in self._http.read(_USERS, "/api/users/")}
        read = self._tasks(project).annotated()
        return [
            submission_of(task, said, read.predictions.get(task.id, []), emails)
            for task in read.tasks
            if task.place is not None
            for said in sorted(task.annotations, key=lambda said: said.id)
        ]

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and answers (skips included) the round holds; two quick requests.

        An edited answer does not change it: compare ``change_token`` for that.
        """
        project = self._find(round_id)
        if project is None:
            return Progress(0, 0)
        counts = self._http.read(
            _COUNTS,
            f"/api/projects/{project}/",
            include="id,task_number,total_annotations_number,skipped_annotations_number",
        )
        # Label Studio counts skips apart.
        responses = counts.total_annotations_number + counts.skipped_annotations_number
        return Progress(counts.task_number, responses)

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an answer comes, is edited or deleted; two requests.

        Empty for a round that was never published. Other changes to a task change it too.
        """
        project = self._find(round_id)
        if project is None:
            return ""
        newest = self._http.read(
            _NEWEST,
            "/api/tasks/",
            project=project,
            page=1,
            page_size=1,
            include="id,updated_at",
            query=json.dumps({"ordering": ["-tasks:updated_at"]}),
        )
        changed_at = newest.tasks[0].updated_at if newest.tasks else ""
        return f"{newest.total} tasks, {newest.total_annotations} answers, {changed_at}"

    def delete(self, images: Collection[str]) -> int:
        """Take away the tasks of images in every project, and return how many there were.

        Their proposals, drafts and answers go with them.
        """
        return sum(self._tasks(project).forget(images) for project in self._projects())

    def check_person(self, name: str) -> None:
        """Raise a LabelingError if it is the administrator whose token is used."""
        check_removable(self._http, name)

    def delete_person(self, name: str) -> int:
        """Delete somebody's account, their tabs, and their name on tasks; their answers stay.

        Label Studio forgets whose they were: the ledger must have them before.
        """
        places = 0
        for project in self._projects():
            places += self._tasks(project).forget_person(name)
            path = "/api/dm/views/"
            for tab in self._http.read(_TABS, path, project=project):
                if str(tab.data.get("title", "")).lower() == name.lower():
                    self._http.delete(f"{path}{tab.id}/")
                    places += 1
        return places + delete_account(self._http, name)

    def round_url(self, round_id: str) -> str:
        """Return the address where people answer this round; empty before it is published."""
        project = self._find(round_id)
        return "" if project is None else f"{self._http.url}/projects/{project}/data"

    def _place_of(self, round_id: str, copies: Sequence[TaskCopy]) -> ImagePlace:
        if not any(is_shown(copy.image_key) for copy in copies):
            return self._images
        if self._shown is None:
            raise LabelingError(
                f"{round_id} has images with masks, and Label Studio at {self._http.url} was not"
                " told where they are. Set ANNOTATION_SHOWN."
            )
        return self._shown

    def _projects(self) -> list[int]:
        path = "/api/projects/"
        listed = self._http.pages(path, include="id,title,task_number")
        return [project.id for project in self._http.shaped(_PROJECTS, listed, path)]

    def _tasks(self, project: int) -> ProjectTasks:
        return ProjectTasks(self._http, project, settle_seconds=self.timing.settle_seconds)

    def _find(self, round_id: str) -> int | None:
        path = "/api/projects/"
        listed = self._http.pages(path, title=round_id, include="id,title,task_number")
        # Label Studio's filter finds titles that contain the text, so equality is checked here.
        same = [
            project
            for project in self._http.shaped(_PROJECTS, listed, path)
            if project.title == round_id
        ]
        # Two publishers at the same moment may both make the project: all go on with the one that
        # has tasks, or with the first.
        same.sort(key=lambda project: (project.task_number == 0, project.id))
        return same[0].id if same else None

    def _find_or_create(self, round_id: str, ontology: Ontology, config: str) -> int:
        shown = {
            "label_config": config,
            "expert_instruction": labeling_instructions(ontology),
        }
        project = self._find(round_id)
        if project is not None:
            now = self._http.read(_SETTINGS, f"/api/projects/{project}/")
            if any(now.get(key) != value for key, value in shown.items()):
                self._http.patch(f"/api/projects/{project}/", shown)
            return project
        settings = {
            "title": round_id,
            **shown,
            "show_instruction": bool(ontology.guidelines),
            "maximum_annotations": 1,
            "enable_empty_annotation": True,
            "show_skip_button": True,
            # A skip leaves the place open, so somebody else is asked.
            "skip_queue": "REQUEUE_FOR_OTHERS",
        }
        for _ in range(_CREATIONS):
            made = self._create(settings)
            project = self._find(round_id)
            if project is not None:
                break
        else:
            raise LabelingError(
                f"Label Studio at {self._http.url} did not make the project {round_id}. Try again."
            )
        if made not in {None, project}:
            # Another publisher was first. Ours is empty and only told apart: while Label Studio
            # deletes a project it runs without its own signals, and two deletions at a time leave
            # it without them until it is restarted, so that it counts no answer any more.
            unused = {"title": f"{round_id[:39]} (not used)"}
            self._http.patch(f"/api/projects/{made}/", unused)
        return project

    def _create(self, settings: Mapping[str, Any]) -> int | None:
        """Make a project and return its number; None if the server does not say whether it did."""
        path = "/api/projects/"
        try:
            return self._http.shaped(_MADE, self._http.post(path, settings), path).id
        except UncertainError:
            return None

    def _make_tabs(self, project: int, assignees: Sequence[str]) -> None:
        """Give each person a tab of their own places; the first tab shows everybody's."""
        if not assignees:
            return
        path = "/api/dm/views/"
        there = {tab.data.get("title") for tab in self._http.read(_TABS, path, project=project)}
        for title in (_EVERYBODY, *assignees):
            if title in there:
                continue
            tab = tasks_tab(title, assignee="" if title == _EVERYBODY else title)
            # Sent twice it makes two tabs that show the same.
            self._http.post(path, {"project": project, "data": tab}, repeatable=True)
