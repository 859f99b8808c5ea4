"""Label Studio as the place where people label: one project per round, one task per place."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.client import LabelingClient, Submission, TaskCopy
from annotation_platform.labeling.interface import (
    labeling_config,
    labeling_instructions,
    tasks_tab,
)
from annotation_platform.labeling.label_studio_http import LabelStudioHttp, UncertainError
from annotation_platform.labeling.people import email_in, members
from annotation_platform.labeling.pictures import PicturePlace
from annotation_platform.labeling.results import boxes_to_result
from annotation_platform.schema.ontology import Ontology

_TASKS_A_REQUEST = 500
_TASKS_A_PAGE = 250
_IMPORT_ATTEMPTS = 3
_EVERYBODY = "Everybody"

Place = tuple[str, int]
"""A task and one of its places: what Label Studio must hold exactly once."""


class LabelStudioClient(LabelingClient):
    """A Label Studio server, reached with a legacy token or a personal access token.

    Nothing is enforced by Label Studio 1.23: anybody who may log in can answer, edit and delete
    anything. So what is read back is checked, and what was published is looked up again.

    Args:
        url: Address of the server.
        token: Token of its administrator.
        pictures: Where the server gets the pictures that it shows.
        people: Who can be assigned places; by default every member but the administrator.
        timeout_seconds: For connecting, and for each wait for bytes.
        retry_seconds: The first wait before a failed request is repeated.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        pictures: PicturePlace,
        people: Sequence[str] = (),
        timeout_seconds: float = 30.0,
        retry_seconds: float = 0.5,
    ) -> None:
        self._http = LabelStudioHttp(
            url, token, timeout_seconds=timeout_seconds, retry_seconds=retry_seconds
        )
        self._pictures = pictures
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

    def publish_round(
        self, round_id: str, ontology: Ontology, copies: Sequence[TaskCopy]
    ) -> Mapping[Place, str]:
        """Make exactly one task for each copy and return Label Studio's id by (task_id, place).

        The project is called ``round_id``. Doing it again, whole or after half of it, adds
        what is missing and nothing else; tasks that people deleted are made again.

        Raises:
            LabelingError: Label Studio cannot be reached or refused, or holds a place twice.
        """
        wanted = {(copy.task_id, copy.place): copy for copy in copies}
        if len(wanted) < len(copies):
            raise ValueError(f"{round_id}: two copies are the same place of the same task")
        project = self._find_or_create(round_id, ontology)
        self._pictures.grant(self._http, project)
        ids = self._import_missing(project, round_id, wanted)
        self._make_tabs(project, sorted({copy.assignee for copy in copies if copy.assignee}))
        return ids

    def submissions(self, round_id: str) -> list[Submission]:
        """Return every annotation that people submitted in this round, skips included.

        Sorted by task and annotation. The author is the e-mail address of whoever submitted
        it, also after that person's removal; ``user-<id>`` where no address is left, and
        ``unknown`` where the account was deleted. Tasks that were not made by
        ``publish_round`` are none of ours and are left out.

        Raises:
            LabelingError: The list was not read completely; what was read is not returned.
        """
        project = self._find(round_id)
        if project is None:
            return []
        emails = {user["id"]: user["email"] for user in self._http.get("/api/users/")}
        found = []
        for task in self._tasks(project, fields="all"):
            if _place_of(task) is not None:
                found += [_submission(task, said, emails) for said in task["annotations"]]
        return found

    def answer_count(self, round_id: str) -> int:
        """Return how many answers (skips included) the round holds; one or two quick requests.

        An edited answer does not change it: compare ``answer_stamp`` for that.
        """
        project = self._find(round_id)
        if project is None:
            return 0
        counts = self._http.get(
            f"/api/projects/{project}/",
            include="id,total_annotations_number,skipped_annotations_number",
        )
        # Label Studio counts skips apart.
        return int(counts["total_annotations_number"] + counts["skipped_annotations_number"])

    def answer_stamp(self, round_id: str) -> str:
        """Return a text that changes when an answer comes, is edited or deleted; two requests.

        Empty for a round that was never published. Other changes to a task change it too.
        """
        project = self._find(round_id)
        if project is None:
            return ""
        newest = self._http.get(
            "/api/tasks/",
            project=project,
            page=1,
            page_size=1,
            include="id,updated_at",
            query=json.dumps({"ordering": ["-tasks:updated_at"]}),
        )
        changed_at = newest["tasks"][0]["updated_at"] if newest["tasks"] else ""
        return f"{newest['total']} tasks, {newest['total_annotations']} answers, {changed_at}"

    def round_url(self, round_id: str) -> str:
        """Return the address where people answer this round; empty before it is published."""
        project = self._find(round_id)
        return "" if project is None else f"{self._http.url}/projects/{project}/data"

    def _find(self, round_id: str) -> int | None:
        # Label Studio's filter finds titles that contain the text, so equality is checked here.
        ids = [
            int(project["id"])
            for project in self._http.pages("/api/projects/", title=round_id, include="id,title")
            if project["title"] == round_id
        ]
        # Two publishers at the same moment may both make the project: all go on with the first.
        return min(ids, default=None)

    def _find_or_create(self, round_id: str, ontology: Ontology) -> int:
        shown = {
            "label_config": labeling_config(ontology),
            "expert_instruction": labeling_instructions(ontology),
        }
        project = self._find(round_id)
        if project is not None:
            now = self._http.get(f"/api/projects/{project}/")
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
        try:
            made = int(self._http.post("/api/projects/", settings)["id"])
        except UncertainError:
            made = None
        project = self._find(round_id)
        if project is None:
            raise LabelingError(
                f"Label Studio at {self._http.url} did not make the project {round_id}. Try again."
            )
        if made is not None and made != project:
            # Another publisher was first; ours is a moment old and empty.
            self._http.delete(f"/api/projects/{made}/")
        return project

    def _import_missing(
        self, project: int, round_id: str, wanted: Mapping[Place, TaskCopy]
    ) -> dict[Place, str]:
        """Import what Label Studio does not hold, and return the ids once it holds each once."""
        held = self._held(project)
        for attempt in range(1, _IMPORT_ATTEMPTS + 1):
            missing = [copy for place, copy in wanted.items() if place not in held]
            if not missing:
                break
            try:
                for start in range(0, len(missing), _TASKS_A_REQUEST):
                    batch = missing[start : start + _TASKS_A_REQUEST]
                    self._http.post(
                        f"/api/projects/{project}/import",
                        [
                            _task(copy, round_id, self._pictures.address(copy.image_key))
                            for copy in batch
                        ],
                    )
            except UncertainError:
                if attempt == _IMPORT_ATTEMPTS:
                    raise
            # Whether an answer came or not, only what the server now shows counts.
            held = self._held(project)
        wrong = {place: held.get(place, []) for place in wanted if len(held.get(place, [])) != 1}
        if wrong:
            place, ids = next(iter(wrong.items()))
            raise LabelingError(
                f"{round_id}: {len(wrong)} of {len(wanted)} places are not exactly one task in "
                f"Label Studio; place {place[1]} of task {place[0]} is {len(ids)} (ids {ids}). "
                "Publish again if some are missing; delete the surplus ones in "
                f"{self._http.url}/projects/{project}/data."
            )
        return {place: str(held[place][0]) for place in wanted}

    def _held(self, project: int) -> dict[Place, list[int]]:
        held = defaultdict(list)
        for task in self._tasks(project, include="id,data"):
            place = _place_of(task)
            if place is not None:
                held[place].append(int(task["id"]))
        return dict(held)

    def _tasks(self, project: int, **query: str) -> Iterator[dict[str, Any]]:
        """Yield every task of a project by id; a LabelingError if the pages are not all of them."""
        seen: set[int] = set()
        page = 1
        while True:
            answer = self._http.get(
                "/api/tasks/",
                project=project,
                page=page,
                page_size=_TASKS_A_PAGE,
                query=json.dumps({"ordering": ["tasks:id"]}),
                **query,
            )
            fresh = [task for task in answer["tasks"] if task["id"] not in seen]
            seen.update(task["id"] for task in fresh)
            yield from fresh
            if not answer["tasks"] or page * _TASKS_A_PAGE >= answer["total"]:
                break
            page += 1
        number = self._http.get(f"/api/projects/{project}/", include="id,task_number")
        if len(seen) != number["task_number"]:
            raise LabelingError(
                f"Read {len(seen)} tasks of project {project} in Label Studio, which holds "
                f"{number['task_number']}: it changed meanwhile. Try again."
            )

    def _make_tabs(self, project: int, assignees: Sequence[str]) -> None:
        """Give each person a tab of their own places; the first tab shows everybody's."""
        if not assignees:
            return
        titles = {
            view["data"].get("title") for view in self._http.get("/api/dm/views/", project=project)
        }
        for title in (_EVERYBODY, *assignees):
            if title in titles:
                continue
            tab = tasks_tab(title, assignee="" if title == _EVERYBODY else title)
            self._http.post("/api/dm/views/", {"project": project, "data": tab}, repeatable=True)


def _task(copy: TaskCopy, round_id: str, picture: str) -> dict[str, Any]:
    """Return a copy as Label Studio imports it: what identifies it, its picture, its proposals."""
    task: dict[str, Any] = {
        "data": {
            "image": picture,
            "image_id": copy.image_id,
            "task_id": copy.task_id,
            "round": round_id,
            "place": copy.place,
            "assignee": copy.assignee,
        }
    }
    if copy.proposals:
        task["predictions"] = [
            {
                "model_version": copy.weights_sha256,
                "score": min(proposal.score for proposal in copy.proposals),
                "result": boxes_to_result(copy.proposals, copy.width, copy.height),
            }
        ]
    return task


def _place_of(task: Mapping[str, Any]) -> Place | None:
    """Return the place a task is, None for a task that somebody else imported."""
    data = task["data"]
    if not isinstance(data.get("task_id"), str) or not isinstance(data.get("place"), int):
        return None
    return data["task_id"], data["place"]


def _submission(
    task: Mapping[str, Any], said: Mapping[str, Any], emails: Mapping[int, str]
) -> Submission:
    data = task["data"]
    predictions = {prediction["id"]: prediction for prediction in task["predictions"]}
    # An answer sent over the API does not name the prediction; then it is the task's only one.
    only: dict[str, Any] = next(iter(predictions.values()), {})
    began_from = predictions.get(said["parent_prediction"], only)
    return Submission(
        backend="label-studio",
        backend_task=str(task["id"]),
        annotation=str(said["id"]),
        task_id=data["task_id"],
        image_id=data["image_id"],
        place=data["place"],
        author=_author(said, emails),
        created_at=datetime.fromisoformat(said["created_at"]),
        updated_at=datetime.fromisoformat(said["updated_at"]),
        lead_time_seconds=float(said["lead_time"] or 0.0),
        skipped=bool(said["was_cancelled"]),
        result=said["result"] or [],
        weights_sha256=began_from.get("model_version") or "",
        proposed=began_from.get("result") or [],
    )


def _author(said: Mapping[str, Any], emails: Mapping[int, str]) -> str:
    user = said["completed_by"]
    user = user["id"] if isinstance(user, dict) else user
    if user is None:
        return "unknown"
    # A removed member's address reads "Deleted", but the annotation still names it.
    return email_in(emails.get(user, "")) or email_in(said["created_username"]) or f"user-{user}"
