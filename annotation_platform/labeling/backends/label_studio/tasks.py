"""The tasks of one project in Label Studio: read completely, and each created exactly once.

Label Studio has no unique key for our tasks, so it can hold one twice: an import whose response was
lost may be finished, or still running. So only the tasks that it lists afterwards count.
"""

import json
import time
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from pydantic import AwareDatetime, TypeAdapter

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp, UncertainError
from annotation_platform.labeling.backends.protocol import AssignmentKey

_TASKS_A_REQUEST = 500
_TASKS_A_PAGE = 500
_READINGS = 3
_IMPORTS = 3
# More counting requests than this take longer than reading all tasks.
_COUNTS = 20


@dataclass(frozen=True)
class StoredAnnotation:
    """A submitted annotation as Label Studio returns it; ``result`` may be anything."""

    id: int
    completed_by: int | None
    created_username: str
    created_at: AwareDatetime
    updated_at: AwareDatetime
    lead_time: float | None
    was_cancelled: bool
    result: Any
    parent_prediction: int | None


@dataclass(frozen=True)
class Prediction:
    """A prediction of a task; ``result`` may be anything."""

    id: int
    task: int
    model_version: str | None
    result: Any


@dataclass(frozen=True)
class Task:
    """A task as Label Studio returns it; ``data`` may be anything, as anyone may create tasks."""

    id: int
    data: Any = None
    annotations: list[StoredAnnotation] = field(default_factory=list)
    total_annotations: int = 0
    cancelled_annotations: int = 0

    @property
    def assignment(self) -> AssignmentKey | None:
        """The assignment of the task; None for a task that ``ProjectTasks`` did not create."""
        if not isinstance(self.data, dict):
            return None
        key = (self.data.get("task_id"), self.data.get("place"), self.data.get("image_id"))
        match key:
            case (str(task_id), int(assignment), str()) if not isinstance(assignment, bool):
                return task_id, assignment
        return None


@dataclass(frozen=True)
class Annotated:
    """All tasks of a project with their annotations, and the predictions by task."""

    tasks: list[Task]
    predictions: Mapping[int, list[Prediction]]


@dataclass(frozen=True)
class _TaskPage:
    tasks: list[Task]
    total: int


@dataclass(frozen=True)
class _Numbers:
    task_number: int
    total_predictions_number: int


@dataclass(frozen=True)
class _Imported:
    task_ids: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Held:
    """The tasks of a project.

    ``ids`` and ``data`` describe the first task of each assignment, ``unused`` holds the ids of
    further untouched ones, and ``tasks`` counts all.
    """

    ids: dict[AssignmentKey, int]
    data: dict[AssignmentKey, dict[str, Any]]
    unused: list[int]
    tasks: int


_TASK_PAGE = TypeAdapter(_TaskPage)
_NUMBERS = TypeAdapter(_Numbers)
_IMPORTED = TypeAdapter(_Imported)
_PREDICTIONS = TypeAdapter(list[Prediction])

_HELD_FIELDS = "id,data,total_annotations,cancelled_annotations"
_ANNOTATED_FIELDS = ",".join(
    ["id", "data", *(f"annotations.{name}" for name in StoredAnnotation.__dataclass_fields__)]
)
# While Label Studio deletes a project it counts no annotations, so annotators are checked too.
_UNTOUCHED = [
    {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
    for column, operator, kind, value in (
        ("total_annotations", "equal", "Number", 0),
        ("cancelled_annotations", "equal", "Number", 0),
        ("annotators", "empty", "List", True),
        ("draft_exists", "equal", "Boolean", False),
    )
]


class ProjectTasks:
    """The tasks of one project.

    Args:
        http: the server.
        project: its number for the project.
        settle_seconds: how long an interrupted import may still run on the server.
    """

    def __init__(self, http: LabelStudioHttp, project: int, *, settle_seconds: float) -> None:
        self._http = http
        self._project = project
        self._settle_seconds = settle_seconds

    def annotated(self) -> Annotated:
        """Return every task with its annotations and predictions.

        Raises:
            LabelingError: the list could not be read completely; nothing is returned.
        """
        # With ``expand``, annotations are three times as fast as with ``fields=all`` alone.
        tasks = self._read(fields="all", expand="annotations", include=_ANNOTATED_FIELDS)
        shown: defaultdict[int, list[Prediction]] = defaultdict(list)
        if any(task.annotations for task in tasks):
            for prediction in self._predictions():
                shown[prediction.task].append(prediction)
        return Annotated(tasks, shown)

    def assignments(self) -> set[AssignmentKey]:
        """Return the assignments whose tasks the project holds."""
        return set(self._held().ids)

    def delete_images(self, images: Collection[str]) -> int:
        """Delete every task that shows one of these images; return how many there were."""
        deleted = [
            task.id
            for task in self._read(include="id,data")
            if isinstance(task.data, dict) and task.data.get("image_id") in images
        ]
        for start in range(0, len(deleted), _TASKS_A_REQUEST):
            self._delete(deleted[start : start + _TASKS_A_REQUEST])
        return len(deleted)

    def remove_assignee(self, name: str) -> int:
        """Remove a person as assignee from all tasks; return how many there were."""
        assigned = [
            task
            for task in self._read(include="id,data")
            if isinstance(task.data, dict)
            and str(task.data.get("assignee", "")).lower() == name.lower()
        ]
        for task in assigned:
            self._http.patch(f"/api/tasks/{task.id}/", {"data": {**task.data, "assignee": ""}})
        return len(assigned)

    def _delete(self, tasks: Sequence[int], **selection: Any) -> None:
        self._http.post(
            "/api/dm/actions",
            {"selectedItems": {"all": False, "included": list(tasks)}, **selection},
            repeatable=True,
            id="delete_tasks",
            project=self._project,
        )

    def ensure(self, wanted: Mapping[AssignmentKey, Mapping[str, Any]]) -> dict[AssignmentKey, int]:
        """Import missing tasks until every assignment has one; return the task of each assignment.

        Where an assignment has several tasks, the first annotated one is kept, or the first of all.
        Untouched others are deleted. Annotated others are kept, so no work is lost; the ledger
        counts one annotation per assignment. A task that shows another image than
        wanted, such as one from before masking, is changed.

        Args:
            wanted: each assignment, and its task as Label Studio imports it.

        Raises:
            LabelingError: Label Studio cannot be reached, refuses a request, or loses tasks.
        """
        held = self._held_once()
        self._correct_images(wanted, held)
        failure: LabelingError | None = None
        for _ in range(_IMPORTS):
            missing = [assignment for assignment in wanted if assignment not in held.ids]
            if not missing:
                return held.ids
            try:
                made = self._import(
                    [wanted[assignment] for assignment in missing], before=held.tasks
                )
            except UncertainError as error:
                failure = error
            else:
                # Counted in this order, the project held these tasks and no others then, and a
                # later publisher finds them to be the first.
                is_alone = self._number() == held.tasks + len(missing)
                if is_alone and len(made) == len(missing) and self._exist(made):
                    return held.ids | dict(zip(missing, made, strict=True))
            held = self._held_once()
        missing = [assignment for assignment in wanted if assignment not in held.ids]
        if not missing:
            return held.ids
        raise failure or LabelingError(
            f"Label Studio at {self._http.url} does not show {len(missing)} of {len(wanted)} "
            f"tasks that it was sent; the first is assignment {missing[0][1]} of {missing[0][0]}. "
            "Publish again; if the problem remains, read its log."
        )

    def _correct_images(
        self, wanted: Mapping[AssignmentKey, Mapping[str, Any]], held: _Held
    ) -> None:
        for assignment, task in wanted.items():
            current, image = held.data.get(assignment), task["data"]["image"]
            if current is not None and current.get("image", image) != image:
                changed = {"data": {**current, "image": image}}
                self._http.patch(f"/api/tasks/{held.ids[assignment]}/", changed)

    def _import(self, tasks: Sequence[Mapping[str, Any]], *, before: int) -> list[int]:
        """Import tasks in order and return the ids that the server reports."""
        made: list[int] = []
        path = f"/api/projects/{self._project}/import"
        for start in range(0, len(tasks), _TASKS_A_REQUEST):
            batch = tasks[start : start + _TASKS_A_REQUEST]
            try:
                response = self._http.post(path, batch, return_task_ids="true")
            except UncertainError:
                self._settle(before + start + len(batch))
                raise
            made += self._http.shaped(_IMPORTED, response, path).task_ids
        return made

    def _exist(self, made: Sequence[int]) -> bool:
        """Return whether all tasks exist, by counting; False also where counting cannot tell."""
        # Ids without a gap leave no room for a task created by another publisher.
        runs: list[list[int]] = []
        for task in sorted(made):
            if runs and task == runs[-1][-1] + 1:
                runs[-1].append(task)
            else:
                runs.append([task])
        return len(runs) <= _COUNTS and all(
            self._count(run[0], run[-1]) == len(run) for run in runs
        )

    def _count(self, first: int, last: int) -> int:
        """Return how many tasks have ids from the first to the last."""
        between = {
            "filter": "filter:tasks:id",
            "operator": "in",
            "type": "Number",
            "value": {"min": first, "max": last},
        }
        return self._listed(between, page_size=1, include="id").total

    def _settle(self, number: int) -> None:
        """Wait until the project holds ``number`` tasks, at most for the duration of an import.

        Sending the tasks again while the first import is running would create them twice.
        """
        ends_at = time.monotonic() + self._settle_seconds
        pause = 0.05
        while self._number() < number and time.monotonic() < ends_at:
            time.sleep(min(pause, self._settle_seconds))
            pause = min(2 * pause, 1.0)

    def _held_once(self) -> _Held:
        """Return the tasks of the project after deleting untouched duplicates."""
        held = self._held()
        if not held.unused:
            return held
        # The server applies the filter itself: an annotator may have begun a task meanwhile.
        self._delete(held.unused, filters={"conjunction": "and", "items": _UNTOUCHED})
        return self._held()

    def _held(self) -> _Held:
        found: defaultdict[AssignmentKey, list[Task]] = defaultdict(list)
        tasks = self._read(include=_HELD_FIELDS)
        for task in tasks:
            if task.assignment is not None:
                found[task.assignment].append(task)
        ids, data, unused = {}, {}, []
        for assignment, same in found.items():
            first = min(same, key=lambda task: (_annotations(task) == 0, task.id))
            ids[assignment], data[assignment] = first.id, first.data
            unused += [task.id for task in same if task is not first and _annotations(task) == 0]
        return _Held(ids, data, unused, len(tasks))

    def _read(self, **query: str) -> list[Task]:
        """Return every task by id: all that existed from the first page to the last."""
        for _ in range(_READINGS):
            tasks: list[Task] = []
            more = True
            while more:
                page = self._page(after=tasks[-1].id if tasks else 0, **query)
                tasks += page.tasks
                more = page.total > len(page.tasks)
            number = self._number()
            if len(tasks) == number:
                return tasks
        raise LabelingError(
            f"Read {len(tasks)} tasks of project {self._project} in Label Studio, which "
            f"holds {number}: it keeps changing. Try again."
        )

    def _page(self, *, after: int, **query: str) -> _TaskPage:
        """Return the next tasks after an id, and how many there are after it in total.

        Numbered pages shift when a task is deleted, and would then skip another task.
        """
        after_id = {
            "filter": "filter:tasks:id",
            "operator": "greater",
            "type": "Number",
            "value": after,
        }
        page = self._listed(after_id, page_size=_TASKS_A_PAGE, **query)
        ids = [after, *(task.id for task in page.tasks)]
        rising = all(one < other for one, other in pairwise(ids))
        if not rising or (page.total and not page.tasks):
            raise LabelingError(
                f"Label Studio at {self._http.url} lists the tasks of project {self._project} "
                f"out of order after {after}. Is it Label Studio 1.23?"
            )
        return page

    def _listed(self, item: Mapping[str, Any], *, page_size: int, **query: str) -> _TaskPage:
        """Return the first tasks by id that pass a filter of Label Studio."""
        query_json = {
            "ordering": ["tasks:id"],
            "filters": {"conjunction": "and", "items": [item]},
        }
        return self._http.read(
            _TASK_PAGE,
            "/api/tasks/",
            project=self._project,
            page=1,
            page_size=page_size,
            resolve_uri="false",
            query=json.dumps(query_json),
            **query,
        )

    def _predictions(self) -> list[Prediction]:
        for _ in range(_READINGS):
            found = self._http.read(_PREDICTIONS, "/api/predictions/", project=self._project)
            number = self._numbers().total_predictions_number
            if len(found) == number:
                return sorted(found, key=lambda prediction: prediction.id)
        raise LabelingError(
            f"Read {len(found)} predictions of project {self._project} in Label Studio, which "
            f"holds {number}: it keeps changing. Try again."
        )

    def _number(self) -> int:
        return self._numbers().task_number

    def _numbers(self) -> _Numbers:
        return self._http.read(
            _NUMBERS,
            f"/api/projects/{self._project}/",
            include="id,task_number,total_predictions_number",
        )


def _annotations(task: Task) -> int:
    return task.total_annotations + task.cancelled_annotations
