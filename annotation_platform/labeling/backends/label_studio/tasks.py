"""The tasks of one project in Label Studio: read completely, and made so that each is there once.

Label Studio knows no key of ours, so nothing stops it from holding a task twice: an import whose
answer was lost may be done, or still under way. What counts is therefore only what it shows
afterwards.
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
from annotation_platform.labeling.backends.protocol import Place

_TASKS_A_REQUEST = 500
_TASKS_A_PAGE = 500
_READINGS = 3
_IMPORTS = 3
# Counting more often than this takes longer than reading all tasks.
_COUNTS = 20


@dataclass(frozen=True)
class Annotation:
    """What somebody submitted, as Label Studio shows it; ``result`` may be anything."""

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
    """What a task was shown with; ``result`` may be anything."""

    id: int
    task: int
    model_version: str | None
    result: Any


@dataclass(frozen=True)
class Task:
    """A task as Label Studio shows it; ``data`` may be anything, somebody else may have made it."""

    id: int
    data: Any = None
    annotations: list[Annotation] = field(default_factory=list)
    total_annotations: int = 0
    cancelled_annotations: int = 0

    @property
    def place(self) -> Place | None:
        """The place that the task is; None for a task that ``ProjectTasks`` did not make."""
        if not isinstance(self.data, dict):
            return None
        said = (self.data.get("task_id"), self.data.get("place"), self.data.get("image_id"))
        match said:
            case (str(task_id), int(place), str()) if not isinstance(place, bool):
                return task_id, place
        return None


@dataclass(frozen=True)
class Annotated:
    """All tasks of a project with what people submitted, and what they were shown, by task."""

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
    """What a project holds: the task of each place, others of the same place, and how many."""

    ids: dict[Place, int]
    data: dict[Place, dict[str, Any]]
    surplus: list[int]
    tasks: int


_TASK_PAGE = TypeAdapter(_TaskPage)
_NUMBERS = TypeAdapter(_Numbers)
_IMPORTED = TypeAdapter(_Imported)
_PREDICTIONS = TypeAdapter(list[Prediction])

_WHAT_IS_HELD = "id,data,total_annotations,cancelled_annotations"
_WHAT_WAS_SAID = ",".join(
    ["id", "data", *(f"annotations.{name}" for name in Annotation.__dataclass_fields__)]
)
# While Label Studio deletes a project it counts no answers, so it is asked for annotators too.
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
        settle_seconds: how long an import that broke off may still be under way on the server.
    """

    def __init__(self, http: LabelStudioHttp, project: int, *, settle_seconds: float) -> None:
        self._http = http
        self._project = project
        self._settle_seconds = settle_seconds

    def annotated(self) -> Annotated:
        """Return every task with everything that was submitted for it.

        Raises:
            LabelingError: The list was not read completely; what was read is not returned.
        """
        # Expanded, annotations are written three times as fast as by ``fields=all`` alone.
        tasks = self._read(fields="all", expand="annotations", include=_WHAT_WAS_SAID)
        shown: defaultdict[int, list[Prediction]] = defaultdict(list)
        if any(task.annotations for task in tasks):
            for prediction in self._predictions():
                shown[prediction.task].append(prediction)
        return Annotated(tasks, shown)

    def places(self) -> set[Place]:
        """Return the places whose tasks the project holds."""
        return set(self._held().ids)

    def forget(self, images: Collection[str]) -> int:
        """Take away every task that shows one of these images; return how many there were."""
        doomed = [
            task.id
            for task in self._read(include="id,data")
            if isinstance(task.data, dict) and task.data.get("image_id") in images
        ]
        for start in range(0, len(doomed), _TASKS_A_REQUEST):
            self._delete(doomed[start : start + _TASKS_A_REQUEST])
        return len(doomed)

    def forget_person(self, name: str) -> int:
        """Assign the tasks of somebody to nobody; return how many there were."""
        theirs = [
            task
            for task in self._read(include="id,data")
            if isinstance(task.data, dict)
            and str(task.data.get("assignee", "")).lower() == name.lower()
        ]
        for task in theirs:
            self._http.patch(f"/api/tasks/{task.id}/", {"data": {**task.data, "assignee": ""}})
        return len(theirs)

    def _delete(self, tasks: Sequence[int], **which: Any) -> None:
        self._http.post(
            "/api/dm/actions",
            {"selectedItems": {"all": False, "included": list(tasks)}, **which},
            repeatable=True,
            id="delete_tasks",
            project=self._project,
        )

    def ensure(self, wanted: Mapping[Place, Mapping[str, Any]]) -> dict[Place, int]:
        """Import what is missing until every wanted place is there; return the task of each place.

        Where a place is there more than once, the first task that was answered stays, or the
        first at all; of the others, those that nobody touched are deleted. An answered one stays
        too: nobody's work is thrown away, and the ledger counts one answer to a place. A task that
        shows another image than wanted, as before something was masked, shows the wanted one.

        Args:
            wanted: each place, and its task as Label Studio imports it.

        Raises:
            LabelingError: Label Studio cannot be reached or refused, or loses what it was sent.
        """
        held = self._held_once()
        self._show_anew(wanted, held)
        trouble: LabelingError | None = None
        for _ in range(_IMPORTS):
            missing = [place for place in wanted if place not in held.ids]
            if not missing:
                return held.ids
            try:
                made = self._import([wanted[place] for place in missing], before=held.tasks)
            except UncertainError as error:
                trouble = error
            else:
                # In this order: then there were these and no others when they were counted, and
                # whoever makes more of them finds these to be the first.
                alone = self._number() == held.tasks + len(missing)
                if alone and len(made) == len(missing) and self._are_there(made):
                    return held.ids | dict(zip(missing, made, strict=True))
            held = self._held_once()
        missing = [place for place in wanted if place not in held.ids]
        if not missing:
            return held.ids
        raise trouble or LabelingError(
            f"Label Studio at {self._http.url} does not show {len(missing)} of {len(wanted)} "
            f"tasks that it was sent; the first is place {missing[0][1]} of {missing[0][0]}. "
            "Publish again; if it stays so, its log says why."
        )

    def _show_anew(self, wanted: Mapping[Place, Mapping[str, Any]], held: _Held) -> None:
        for place, task in wanted.items():
            shown, image = held.data.get(place), task["data"]["image"]
            if shown is not None and shown.get("image", image) != image:
                changed = {"data": {**shown, "image": image}}
                self._http.patch(f"/api/tasks/{held.ids[place]}/", changed)

    def _import(self, tasks: Sequence[Mapping[str, Any]], *, before: int) -> list[int]:
        """Import tasks in order and return their ids, as far as the server tells them."""
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

    def _are_there(self, made: Sequence[int]) -> bool:
        """Return whether all tasks are there, by counting; False also where that cannot tell."""
        # Between ids without a gap there is no room for a task of somebody else's.
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
        """Wait until the project holds as many tasks, or for as long as an import may take.

        Sent again while the first one is still under way, the same tasks would be there twice.
        """
        ends_at = time.monotonic() + self._settle_seconds
        pause = 0.05
        while self._number() < number and time.monotonic() < ends_at:
            time.sleep(min(pause, self._settle_seconds))
            pause = min(2 * pause, 1.0)

    def _held_once(self) -> _Held:
        """Return what the project holds, after what nobody touched of the surplus is gone."""
        held = self._held()
        if not held.surplus:
            return held
        # The server looks itself whether a task is untouched: somebody may just have begun.
        self._delete(held.surplus, filters={"conjunction": "and", "items": _UNTOUCHED})
        return self._held()

    def _held(self) -> _Held:
        found: defaultdict[Place, list[Task]] = defaultdict(list)
        tasks = self._read(include=_WHAT_IS_HELD)
        for task in tasks:
            if task.place is not None:
                found[task.place].append(task)
        ids, data, surplus = {}, {}, []
        for place, same in found.items():
            first = min(same, key=lambda task: (_annotations(task) == 0, task.id))
            ids[place], data[place] = first.id, first.data
            surplus += [task.id for task in same if task is not first and _annotations(task) == 0]
        return _Held(ids, data, surplus, len(tasks))

    def _read(self, **query: str) -> list[Task]:
        """Return every task by id: all that were there from the first page to the last."""
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
            f"Read {len(tasks)} tasks of project {self._project} in Label Studio, which holds "
            f"{number}: it changes all the time. Try again."
        )

    def _page(self, *, after: int, **query: str) -> _TaskPage:
        """Return the next tasks behind an id, and how many there are behind it altogether.

        Numbered pages shift when a task is deleted: one that stays would be on no page.
        """
        behind = {
            "filter": "filter:tasks:id",
            "operator": "greater",
            "type": "Number",
            "value": after,
        }
        page = self._listed(behind, page_size=_TASKS_A_PAGE, **query)
        ids = [after, *(task.id for task in page.tasks)]
        rising = all(one < other for one, other in pairwise(ids))
        if not rising or (page.total and not page.tasks):
            raise LabelingError(
                f"Label Studio at {self._http.url} lists the tasks of project {self._project} "
                f"out of order behind {after}. Is it Label Studio 1.23?"
            )
        return page

    def _listed(self, which: Mapping[str, Any], *, page_size: int, **query: str) -> _TaskPage:
        """Return the first tasks by id of those that a filter of Label Studio's lets through."""
        asked = {
            "ordering": ["tasks:id"],
            "filters": {"conjunction": "and", "items": [which]},
        }
        return self._http.read(
            _TASK_PAGE,
            "/api/tasks/",
            project=self._project,
            page=1,
            page_size=page_size,
            resolve_uri="false",
            query=json.dumps(asked),
            **query,
        )

    def _predictions(self) -> list[Prediction]:
        for _ in range(_READINGS):
            found = self._http.read(_PREDICTIONS, "/api/predictions/", project=self._project)
            number = self._numbers().total_predictions_number
            if len(found) == number:
                return sorted(found, key=lambda prediction: prediction.id)
        raise LabelingError(
            f"Read {len(found)} proposals of project {self._project} in Label Studio, which holds "
            f"{number}: it changes all the time. Try again."
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
