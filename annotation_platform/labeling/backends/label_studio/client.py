"""Label Studio as a labelling back end: one project per round, one task per assignment."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.http import (
    NUMBERED,
    LabelStudioHttp,
    UncertainError,
)
from annotation_platform.labeling.backends.label_studio.image_sources import (
    ImageSource,
)
from annotation_platform.labeling.backends.label_studio.interface import (
    labeling_config,
    labeling_instructions,
    review_config,
    tasks_tab,
)
from annotation_platform.labeling.backends.label_studio.messages import submission_of, task_of
from annotation_platform.labeling.backends.label_studio.people import (
    USERS,
    check_removable,
    delete_account,
    members,
)
from annotation_platform.labeling.backends.label_studio.tasks import (
    ProjectTasks,
)
from annotation_platform.labeling.backends.protocol import (
    AssignmentKey,
    LabelingBackend,
    Progress,
    Replica,
    Submission,
)
from annotation_platform.labeling.rate_limiter import Timing
from annotation_platform.schema.keys import is_shown
from annotation_platform.schema.ontology import Ontology

_EVERYBODY = "Everybody"

_CREATIONS = 3


@dataclass(frozen=True)
class _Project:
    id: int
    title: str
    task_number: int


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

_SETTINGS = TypeAdapter(dict[str, Any])

_COUNTS = TypeAdapter(_Counts)

_NEWEST = TypeAdapter(_Newest)

_TABS = TypeAdapter(list[_Tab])


class LabelStudioClient(LabelingBackend):
    """A Label Studio server, reached with a legacy token or a personal access token.

    Label Studio 1.23 enforces nothing: any member can annotate, edit and delete anything. So the
    client checks what it reads and finds what it published before.

    Args:
        url: address of the server.
        token: token of its administrator.
        images: where the server gets the images that it shows.
        shown: where the server gets masked images; without it, such rounds are refused.
        timing: timeouts, waits and the request rate.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        images: ImageSource,
        shown: ImageSource | None = None,
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

    @property
    def name(self) -> str:
        """The back end's name, as tables record it."""
        return "label-studio"

    def annotators(self) -> list[str]:
        """Return the e-mail addresses of all members but the administrator, sorted.

        The administrator's annotations count too.
        """
        return members(self._http)

    def publish(
        self,
        round_id: str,
        ontology: Ontology,
        replicas: Sequence[Replica],
        *,
        closed: Collection[AssignmentKey] = (),
    ) -> Mapping[AssignmentKey, str]:
        """Create exactly one task for each replica and return Label Studio's id by assignment.

        The project has the title ``round_id``. Publishing again, after a complete or an interrupted
        call, adds only what is missing. Tasks that people deleted are created again, except those
        of ``closed`` assignments. Where two publishers created the same task, the untouched one is
        deleted.

        Args:
            round_id: the round.
            ontology: the classes to choose from.
            replicas: every replica of the round.
            closed: assignments that need no further annotation: annotated in the ledger, or
                lost and not to be resent. Their tasks stay as they are; a deleted one has the id
                ``""``.

        Raises:
            LabelingError: Label Studio cannot be reached, or refuses a request.
        """
        by_key = {replica.key: replica for replica in replicas}
        if len(by_key) < len(replicas):
            raise ValueError(f"{round_id}: two replicas have the same assignment")
        if any(replica.purpose == "review" for replica in replicas):
            config = review_config(ontology)
        else:
            config = labeling_config(ontology, notes=any(replica.note for replica in replicas))
        images = self._source_of(round_id, replicas)
        project = self._find_or_create(round_id, ontology, config)
        images.grant(self._http, project)
        self._make_tabs(
            project, sorted({replica.assignee for replica in replicas if replica.assignee})
        )
        wanted = {
            assignment: task_of(replica, round_id, images.address(replica.image_key))
            for assignment, replica in by_key.items()
            if assignment not in closed
        }
        ids = self._tasks(project).ensure(wanted)
        return {assignment: str(ids.get(assignment, "")) for assignment in by_key}

    def held_assignments(self, round_id: str) -> Collection[AssignmentKey]:
        """Return the assignments whose tasks Label Studio holds of a round now.

        The task of a published assignment that is not among them was deleted.

        Raises:
            LabelingError: the list could not be read completely.
        """
        project = self._find(round_id)
        return set() if project is None else self._tasks(project).assignments()

    def collect(self, round_id: str) -> list[Submission]:
        """Return every annotation submitted in this round, skips included, by task and annotation.

        The author is the submitter's e-mail address, also after the person's removal;
        ``user-<id>`` if no address is left, and ``unknown`` if the account was deleted. Tasks that
        ``publish`` did not create are left out.

        Raises:
            LabelingError: the list could not be read completely; nothing is returned.
        """
        project = self._find(round_id)
        if project is None:
            return []
        emails = {user.id: user.email for user in self._http.read(USERS, "/api/users/")}
        tasks = self._tasks(project).annotated()
        return [
            submission_of(task, annotation, tasks.predictions.get(task.id, []), emails)
            for task in tasks.tasks
            if task.assignment is not None
            for annotation in sorted(task.annotations, key=lambda each: each.id)
        ]

    def progress(self, round_id: str) -> Progress:
        """Return how many tasks and annotations (skips included) the round holds; two requests.

        An edit does not change the numbers: compare ``change_token`` for that.
        """
        project = self._find(round_id)
        if project is None:
            return Progress(0, 0)
        counts = self._http.read(
            _COUNTS,
            f"/api/projects/{project}/",
            include="id,task_number,total_annotations_number,skipped_annotations_number",
        )
        # Label Studio counts skips separately.
        responses = counts.total_annotations_number + counts.skipped_annotations_number
        return Progress(counts.task_number, responses)

    def change_token(self, round_id: str) -> str:
        """Return a text that changes when an annotation is made, edited or deleted; two requests.

        Empty for an unpublished round. Other changes to a task change it too.
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
        """Delete the tasks of images in every project and return how many there were.

        Label Studio deletes their predictions, drafts and annotations too.
        """
        return sum(self._tasks(project).delete_images(images) for project in self._projects())

    def check_person(self, name: str) -> None:
        """Raise a LabelingError if it is the administrator whose token is used."""
        check_removable(self._http, name)

    def delete_person(self, name: str) -> int:
        """Delete a person's account, tabs, and name on tasks; their annotations stay.

        Label Studio then loses the author of the annotations: the ledger must hold them before.
        """
        assignments = 0
        for project in self._projects():
            assignments += self._tasks(project).remove_assignee(name)
            path = "/api/dm/views/"
            for tab in self._http.read(_TABS, path, project=project):
                if str(tab.data.get("title", "")).lower() == name.lower():
                    self._http.delete(f"{path}{tab.id}/")
                    assignments += 1
        return assignments + delete_account(self._http, name)

    def round_url(self, round_id: str) -> str:
        """Return the address where people annotate this round; empty before it is published."""
        project = self._find(round_id)
        return "" if project is None else f"{self._http.url}/projects/{project}/data"

    def _source_of(self, round_id: str, replicas: Sequence[Replica]) -> ImageSource:
        if not any(is_shown(replica.image_key) for replica in replicas):
            return self._images
        if self._shown is None:
            raise LabelingError(
                f"{round_id} has masked images, but no place is set from which Label Studio at"
                f" {self._http.url} gets them. Set ANNOTATION_SHOWN."
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
        # Label Studio's filter also returns titles that merely contain the text.
        same = [
            project
            for project in self._http.shaped(_PROJECTS, listed, path)
            if project.title == round_id
        ]
        # Two concurrent publishers may both create the project: both then use the one that has
        # tasks, or the first one.
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
            # A skip leaves the assignment open, so Label Studio offers the task to other people.
            "skip_queue": "REQUEUE_FOR_OTHERS",
        }
        for _ in range(_CREATIONS):
            made = self._create(settings)
            project = self._find(round_id)
            if project is not None:
                break
        else:
            raise LabelingError(
                f"Label Studio at {self._http.url} did not create project {round_id}. Try again."
            )
        if made not in {None, project}:
            # Another publisher was first. The empty project is renamed, not deleted: while Label
            # Studio deletes a project its signals are off, and two deletions at a time leave them
            # off until a restart, so that it counts no annotation any more.
            unused = {"title": f"{round_id[:39]} (not used)"}
            self._http.patch(f"/api/projects/{made}/", unused)
        return project

    def _create(self, settings: Mapping[str, Any]) -> int | None:
        """Create a project and return its number; None if the server does not confirm it."""
        path = "/api/projects/"
        try:
            return self._http.shaped(NUMBERED, self._http.post(path, settings), path).id
        except UncertainError:
            return None

    def _make_tabs(self, project: int, assignees: Sequence[str]) -> None:
        """Create a tab for each person's assignments; the first tab shows all tasks."""
        if not assignees:
            return
        path = "/api/dm/views/"
        titles = {tab.data.get("title") for tab in self._http.read(_TABS, path, project=project)}
        for title in (_EVERYBODY, *assignees):
            if title in titles:
                continue
            tab = tasks_tab(title, assignee="" if title == _EVERYBODY else title)
            # Sent twice, it makes two identical tabs.
            self._http.post(path, {"project": project, "data": tab}, repeatable=True)
