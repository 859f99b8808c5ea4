"""Answers that people gave in Pybossa: its exports of tasks and of task runs, JSON or CSV."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.ingestion.archives import is_archive, read_archive
from annotation_platform.labeling.annotations import Payload
from annotation_platform.labeling.backends.pybossa.codec import NAME, inner, is_skipped, is_unsure
from annotation_platform.labeling.backends.pybossa.rows import Row, read_rows
from annotation_platform.labeling.backends.vendor.annotations import (
    GivenAnnotation,
    Problem,
    Returned,
    read_time,
)
from annotation_platform.storage.regular import open_regular

_MAXIMUM_BYTES = 500_000_000
_INFO_ONLY = "_info_only.csv"


@dataclass(frozen=True)
class _Task:
    """What a task of Pybossa's asks, by what was exported into its ``info``."""

    package: str
    task_id: str
    places: tuple[int, ...]
    image: str
    image_sha256: str
    width: int
    height: int


class _RowError(ValueError):
    """A row is no answer, for the reason given."""


def read_pybossa(tasks: Path, task_runs: Path) -> Returned:
    """Return the answers of task runs to tasks that ``vendor export --format pybossa`` made.

    Both files are Pybossa's exports, JSON or CSV, or the zip in which Pybossa hands them out; the
    same data give the same answers in any of them. An answer is a list of regions as Label Studio
    says them, by itself or under ``result`` or ``answer``; ``{"choice": name}``,
    ``{"label": name}`` or just the name for a class said of the whole image;
    ``{"skipped": true}``; or ``{"unsure": true}``. It may be packed as JSON text.

    Who answered is ``user-<id>``, ``external-<id>`` or ``ip-<address>``, as Pybossa says it. The
    time spent is that from handing out the task to the answer. Tasks of other projects are a
    problem only if somebody answered them.

    Raises:
        DataError: a file cannot be read, or is no such export.
    """
    task_rows, problems = _rows(tasks)
    asked: dict[int, _Task | str] = {}
    for row in task_rows:
        number = _whole(row.said.get("id"))
        if number is None:
            problems.append(Problem(row.where, f"its id is {row.said.get('id')!r:.40}, no number"))
        else:
            asked[number] = _task(row.said.get("info"))
    run_rows, run_problems = _rows(task_runs)
    problems += run_problems
    annotations = []
    for row in run_rows:
        try:
            annotations.append(_annotation(row, asked))
        except ValueError as error:
            problems.append(Problem(row.where, str(error)))
    packages = frozenset(task.package for task in asked.values() if isinstance(task, _Task))
    return Returned(annotations, problems, 0, {}, packages)


def _rows(path: Path) -> tuple[list[Row], list[Problem]]:
    if not is_archive(path):
        try:
            with open_regular(path) as (stream, _):
                data = stream.read(_MAXIMUM_BYTES + 1)
        except (DataError, OSError) as error:
            raise DataError(f"{path}: {error}. Nothing was taken.") from error
        if len(data) > _MAXIMUM_BYTES:
            raise DataError(
                f"{path}: more than {_MAXIMUM_BYTES} bytes. Export fewer tasks at once."
            )
        return read_rows(data, path.name)
    # The zip of a CSV export holds the answers once more, without saying whose they are.
    inside = [each for each in read_archive(path) if not each.name.endswith(_INFO_ONLY)]
    if len(inside) != 1:
        raise DataError(f"{path}: {len(inside)} files in it. Pass the one that holds the export.")
    return read_rows(inside[0].data, f"{path.name}/{inside[0].name}")


def _task(info: Any) -> _Task | str:
    """Return what a task asks, or why it is none of ours."""
    if not isinstance(info, dict) or not isinstance(info.get("package"), str):
        return "it was not exported from here"
    texts = [info.get(name) for name in ("task_id", "image", "image_sha256")]
    sides = [_whole(info.get(name)) for name in ("width", "height")]
    given = info.get("places", info.get("place"))
    places = [_whole(each) for each in (given if isinstance(given, list) else [given])]
    if not all(isinstance(each, str) and each for each in texts) or None in (*sides, *places):
        return "its task_id, places, image, image_sha256, width or height got lost"
    task_id, image, image_sha256 = map(str, texts)
    width, height = (side or 0 for side in sides)
    seats = tuple(place or 0 for place in places)
    return _Task(info["package"], task_id, seats, image, image_sha256, width, height)


def _annotation(row: Row, asked: Mapping[int, _Task | str]) -> GivenAnnotation:
    said = row.said
    run, number = _whole(said.get("id")), _whole(said.get("task_id"))
    if run is None or number is None:
        raise _RowError("its id or its task_id is no number")
    task = asked.get(number, "it is not among the tasks")
    if isinstance(task, str):
        raise _RowError(f"it answers task {number}: {task}")
    began, ended = _time(said, "created"), _time(said, "finish_time")
    spent = (ended - began).total_seconds() if began and ended else 0.0
    info = said.get("info")
    _check_content(info)
    return GivenAnnotation(
        where=row.where,
        key=f"{task.package} run {run}",
        package=task.package,
        task_id=task.task_id,
        places=task.places,
        annotator=_person(said),
        image=task.image,
        image_sha256=task.image_sha256,
        width=task.width,
        height=task.height,
        finished_at=ended,
        # A server's clock that was set back is nobody's work.
        lead_time_seconds=max(spent, 0.0),
        skipped=is_skipped(info),
        payload=Payload(NAME, info),
    )


def _time(said: Mapping[str, Any], key: str) -> Any:
    text = said.get(key)
    if text is None:
        return None
    if not isinstance(text, str):
        raise _RowError(f"{key} is {text!r:.40}, no time")
    return read_time(text)


def _person(said: Mapping[str, Any]) -> str:
    """Return who answered; empty if nothing says it."""
    if said.get("external_uid") is not None:
        return f"external-{said['external_uid']}"
    user = _whole(said.get("user_id"))
    if user is not None:
        return f"user-{user}"
    return f"ip-{said['user_ip']}" if said.get("user_ip") else ""


def _check_content(info: Any) -> None:
    """Raise a _RowError if a task run holds no answer."""
    if is_skipped(info) or is_unsure(info):
        return
    said = inner(info)
    if not (isinstance(said, list) or (isinstance(said, str) and said and said[0] not in "[{")):
        raise _RowError("its info is no answer: expected a list of regions or a choice")


def _whole(value: Any) -> int | None:
    """Return a whole number, however a table wrote it; None for anything else."""
    try:
        number = float(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float):
        return None
    return int(number) if number == number // 1 else None
