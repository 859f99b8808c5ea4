"""Annotations made in PyBossa: its exports of tasks and of task runs, JSON or CSV."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.ingestion.archives import is_archive, read_archive
from annotation_platform.labeling.backends.pybossa.codec import NAME, inner, is_skipped, is_unsure
from annotation_platform.labeling.backends.pybossa.rows import Row, read_rows
from annotation_platform.labeling.backends.vendor.annotations import (
    AnnotationProblem,
    Returned,
    ReturnedAnnotation,
    read_time,
    read_whole,
)
from annotation_platform.schema.annotations import Payload

_MAXIMUM_BYTES = 500_000_000
_INFO_ONLY = "_info_only.csv"


@dataclass(frozen=True)
class _Task:
    """A task of PyBossa, by the package entry in its ``info``."""

    package: str
    task_id: str
    assignments: tuple[int, ...]
    image: str
    image_sha256: str
    width: int
    height: int


class _RowError(ValueError):
    """A row is not an annotation, for the given reason."""


def read_pybossa(tasks: Path, task_runs: Path) -> Returned:
    """Return the annotations of task runs of tasks from ``vendor export --format pybossa``.

    Both files are PyBossa's exports, JSON or CSV, or the zip that PyBossa wraps them in; all forms
    of the same data give the same annotations. An annotation is a list of regions as Label Studio
    exports them, by itself or under ``result`` or ``answer``; ``{"choice": name}``,
    ``{"label": name}`` or just the name for a class of the whole image; ``{"skipped": true}``; or
    ``{"unsure": true}``. It may be packed as JSON text.

    The annotator is ``user-<id>``, ``external-<id>`` or ``ip-<address>``, as PyBossa records it.
    The time spent runs from fetching the task to the annotation. Tasks of other projects are a
    problem only if they were annotated.

    Raises:
        DataError: a file cannot be read, or is not such an export.
    """
    task_rows, problems = _rows(tasks)
    known: dict[int, _Task | str] = {}
    for row in task_rows:
        number = _whole(row.values.get("id"))
        if number is None:
            problems.append(
                AnnotationProblem(
                    row.where, f"its id is {row.values.get('id')!r:.40}, not a number"
                )
            )
        else:
            known[number] = _task(row.values.get("info"))
    run_rows, run_problems = _rows(task_runs)
    problems += run_problems
    annotations = []
    for row in run_rows:
        try:
            annotations.append(_annotation(row, known))
        except ValueError as error:
            problems.append(AnnotationProblem(row.where, str(error)))
    packages = frozenset(task.package for task in known.values() if isinstance(task, _Task))
    return Returned(annotations, problems, 0, {}, packages)


def _rows(path: Path) -> tuple[list[Row], list[AnnotationProblem]]:
    if not is_archive(path):
        remedy = "Export fewer tasks at once."
        data = read_whole(path, maximum_bytes=_MAXIMUM_BYTES, remedy=remedy)
        return read_rows(data, path.name)
    # The zip of a CSV export holds the annotations a second time, without annotators.
    inside = [each for each in read_archive(path) if not each.name.endswith(_INFO_ONLY)]
    if len(inside) != 1:
        raise DataError(f"{path}: {len(inside)} files in it. Pass the one that holds the export.")
    return read_rows(inside[0].data, f"{path.name}/{inside[0].name}")


def _task(info: Any) -> _Task | str:
    """Return the task of a package entry, or why it is not a task of a package."""
    if not isinstance(info, dict) or not isinstance(info.get("package"), str):
        return "it was not exported from here"
    texts = [info.get(name) for name in ("task_id", "image", "image_sha256")]
    sides = [_whole(info.get(name)) for name in ("width", "height")]
    stored = info.get("places", info.get("place"))
    numbers = [_whole(each) for each in (stored if isinstance(stored, list) else [stored])]
    if not all(isinstance(each, str) and each for each in texts) or None in (*sides, *numbers):
        return "its task_id, places, image, image_sha256, width or height is missing"
    task_id, image, image_sha256 = map(str, texts)
    width, height = (side or 0 for side in sides)
    assignments = tuple(number or 0 for number in numbers)
    return _Task(info["package"], task_id, assignments, image, image_sha256, width, height)


def _annotation(row: Row, tasks: Mapping[int, _Task | str]) -> ReturnedAnnotation:
    values = row.values
    run, number = _whole(values.get("id")), _whole(values.get("task_id"))
    if run is None or number is None:
        raise _RowError("its id or its task_id is not a number")
    task = tasks.get(number, "it is not among the tasks")
    if isinstance(task, str):
        raise _RowError(f"it is of task {number}: {task}")
    began, ended = _time(values, "created"), _time(values, "finish_time")
    spent = (ended - began).total_seconds() if began and ended else 0.0
    info = values.get("info")
    _check_content(info)
    return ReturnedAnnotation(
        where=row.where,
        key=f"{task.package} run {run}",
        package=task.package,
        task_id=task.task_id,
        assignments=task.assignments,
        annotator=_person(values),
        image=task.image,
        image_sha256=task.image_sha256,
        width=task.width,
        height=task.height,
        finished_at=ended,
        # A server clock that was set back gives a negative time.
        lead_time_seconds=max(spent, 0.0),
        skipped=is_skipped(info),
        payload=Payload(NAME, info),
    )


def _time(values: Mapping[str, Any], key: str) -> Any:
    text = values.get(key)
    if text is None:
        return None
    if not isinstance(text, str):
        raise _RowError(f"{key} is {text!r:.40}, not a time")
    return read_time(text)


def _person(values: Mapping[str, Any]) -> str:
    """Return the annotator; empty if the row names none."""
    if values.get("external_uid") is not None:
        return f"external-{values['external_uid']}"
    user = _whole(values.get("user_id"))
    if user is not None:
        return f"user-{user}"
    return f"ip-{values['user_ip']}" if values.get("user_ip") else ""


def _check_content(info: Any) -> None:
    """Raise a _RowError if a task run holds no annotation."""
    if is_skipped(info) or is_unsure(info):
        return
    content = inner(info)
    if not (
        isinstance(content, list)
        or (isinstance(content, str) and content and content[0] not in "[{")
    ):
        raise _RowError("its info is not an annotation: expected a list of regions or a choice")


def _whole(value: Any) -> int | None:
    """Return a whole number from any form of a table; None for anything else."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return int(number) if number == number // 1 else None
