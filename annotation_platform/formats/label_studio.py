"""Label Studio's JSON export: tasks with their annotations, rectangles in percent. Read only.

Predictions and drafts are nobody's answer and are not read; neither is who answered. Answers
about the whole picture (choices, texts, ratings) and relations are no boxes and are passed over;
any other region that is no usable rectangle takes the whole picture with it, because without it
the rest would say another thing.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    image_ids,
    make_dataset,
    make_ontology,
    read_json,
)
from annotation_platform.labeling.results import read_result
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label

_RECTANGLE = "rectanglelabels"
_NOT_REGIONS = frozenset(
    {"choices", "datetime", "number", "pairwise", "rating", "relation", "taxonomy", "textarea"}
)
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_LONGEST_SIDE = 10**6
_LONGEST_CLASS = 100
_SHOWN = 3
"""So many problems of one task are told."""


@dataclass(frozen=True)
class LabelStudioReading:
    """What was read, and one sentence per task that was left out or changed, and why."""

    dataset: Dataset
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Labelled:
    """The picture of a task and what its annotation says; the size is 0 without a rectangle."""

    task: str
    file_name: str
    width: int
    height: int
    boxes: list[Label]
    notes: list[str]


class _TaskError(ValueError):
    """A task cannot be used, for the reason given."""


def read_label_studio(path: Path) -> LabelStudioReading:
    """Return the dataset of a JSON export (the full one, not JSON-MIN), judged task by task.

    An annotation without regions says that there is nothing in the picture; a skipped one says
    nothing, and a task with none that counts is not in the dataset. Of several the one updated
    last counts. Two tasks on the same picture are left out both. Boxes may reach a pixel outside
    and are cut there; a turned one becomes the box around it. ``image_rotation``, several classes
    or none, and a box without area are refused.

    ``file_name`` is what the task calls the picture: the path in its address, without server,
    bucket and the prefix of uploads. Where nothing is in a picture the export does not say its
    size: it is 0 × 0. Classes are those of the boxes, numbered from 0 in alphabetical order.

    Raises:
        FormatError: the file is no such export, or no task of it has a usable box.
    """
    tasks = _tasks(path)
    classes = _class_names(tasks)
    if not classes:
        raise FormatError(
            str(path), 0, "no rectangle with a class in it", "Export a project with boxes as JSON."
        )
    ontology = Ontology.from_names(classes)
    labelled: dict[str, list[_Labelled]] = {}
    problems: list[str] = []
    several = 0
    for position, task in enumerate(tasks, start=1):
        name = _task_name(task, position)
        try:
            answers = _answers(task)
            if not answers:
                continue
            found = _read(name, task, answers[-1], ontology)
        except _TaskError as error:
            problems.append(f"{path}: {name} is left out: {error}")
            continue
        several += len(answers) > 1
        problems += [f"{path}: {name}: {note}" for note in found.notes]
        labelled.setdefault(found.file_name, []).append(found)
    if several:
        problems.append(f"{path}: of several annotations on a task, the last counts ({several} ×)")
    for file_name, twins in labelled.items():
        if len(twins) > 1:
            names = " and ".join(twin.task for twin in twins[:_SHOWN])
            problems.append(f"{path}: {names} are left out: all are on {file_name!r}")
    sound = [found for found, *others in labelled.values() if not others]
    return LabelStudioReading(_dataset(sound, problems, path), tuple(problems))


def picture_path(address: str) -> str:
    """Return the path of a picture in an address of Label Studio's, relative; empty if none.

    That is the key in a bucket, ``d`` of a local file, the path on a server, or the name of an
    upload without the eight digits that Label Studio puts before it.
    """
    if address.startswith("data:"):
        return ""
    if "://" in address and not address.startswith(("http://", "https://")):
        return address.partition("://")[2].partition("/")[2]
    if "://" not in address and not address.startswith("/data/"):
        return address.lstrip("/")
    try:
        parts = urlsplit(address)
    except ValueError:
        return ""
    local = parse_qs(parts.query).get("d") if "local-files" in parts.path else None
    path = (local[0] if local else unquote(parts.path)).lstrip("/")
    if path.startswith("data/upload/"):
        return _UPLOADED.sub("", path.rpartition("/")[2], count=1)
    return path


def _tasks(path: Path) -> list[dict[str, Any]]:
    data = read_json(path)
    is_list = isinstance(data, list) and all(isinstance(task, dict) for task in data)
    if not is_list or not data or not all("annotations" in task for task in data):
        raise FormatError(
            str(path),
            0,
            "not a JSON export of Label Studio: no list of tasks with annotations",
            "Export the project as JSON, not as JSON-MIN or CSV.",
        )
    return list(data)


def _class_names(tasks: Iterable[dict[str, Any]]) -> list[str]:
    """Return every class that a rectangle could have, in alphabetical order."""
    names = {
        name
        for task in tasks
        for annotation in _dicts(task["annotations"])
        for region in _dicts(annotation.get("result"))
        for name in _list(_dict(region.get("value")).get(_RECTANGLE))
        if isinstance(name, str) and 0 < len(name) <= _LONGEST_CLASS
    }
    return sorted(names)


def _dicts(value: Any) -> Iterator[dict[str, Any]]:
    return (each for each in _list(value) if isinstance(each, dict))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _task_name(task: dict[str, Any], position: int) -> str:
    key = task.get("id")
    return f"task {key!r:.40}" if isinstance(key, int | str) else f"task number {position}"


def _answers(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the annotations that count, by when they took their form."""
    annotations = task["annotations"]
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise _TaskError("its annotations are no list of objects")
    return sorted((one for one in annotations if not one.get("was_cancelled")), key=_updated)


def _updated(annotation: dict[str, Any]) -> tuple[datetime, int]:
    key = annotation.get("id")
    number = key if isinstance(key, int) else 0
    try:
        text = annotation.get("updated_at") or annotation.get("created_at")
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return datetime.min.replace(tzinfo=UTC), number
    return time if time.tzinfo else time.replace(tzinfo=UTC), number


def _read(
    name: str, task: dict[str, Any], annotation: dict[str, Any], ontology: Ontology
) -> _Labelled:
    result = annotation.get("result")
    if not isinstance(result, list):
        raise _TaskError("its annotation has no list of regions")
    file_name = _file_name(task)
    regions = [each for each in result if _dict(each).get("type") not in _NOT_REGIONS]
    once = _without_twins(regions)
    if not once:
        return _Labelled(name, file_name, 0, 0, [], [])
    width, height = _size(once)
    # A pixel of the longer side; on the shorter one it is a little less.
    parsed = read_result(
        once,
        width=width,
        height=height,
        ontology=ontology,
        outside_percent=100 / max(width, height),
    )
    if parsed.refused:
        raise _TaskError("; ".join(parsed.problems[:_SHOWN]))
    notes = list(parsed.problems)
    if len(once) < len(regions):
        notes.append(f"{len(regions) - len(once)} regions said twice are counted once")
    return _Labelled(name, file_name, width, height, parsed.labels, notes)


def _file_name(task: dict[str, Any]) -> str:
    data = _dict(task.get("data"))
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [value for value in texts.values() if _is_picture(picture_path(value))]
    if "image" not in texts and len(named) != 1:
        raise _TaskError("its data do not say which picture it is on, in a field `image`")
    path = picture_path(texts.get("image", named[0] if named else ""))
    if not path or path.endswith("/") or ".." in PurePosixPath(path).parts:
        raise _TaskError(f"{texts.get('image', path)!r:.80} is no file name")
    return path


def _is_picture(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _without_twins(regions: list[Any]) -> list[Any]:
    """Return the regions, equal ones once; those without an id are all kept."""
    kept: dict[object, Any] = {}
    for position, region in enumerate(regions):
        has_id = isinstance(_dict(region).get("id"), str)
        try:
            twin = json.dumps(region, sort_keys=True) if has_id else position
        except RecursionError as error:
            raise _TaskError("a region is nested too deep") from error
        kept.setdefault(twin, region)
    return list(kept.values())


def _size(regions: list[Any]) -> tuple[int, int]:
    """Return the size of the picture that the regions were drawn on: all on the same."""
    sizes = [
        (_dict(region).get("original_width"), _dict(region).get("original_height"))
        for region in regions
    ]
    first = sizes[0]
    if any(size != first for size in sizes):
        raise _TaskError("its regions were drawn on pictures of different sizes")
    whole = [side for side in first if isinstance(side, int) and 1 <= side <= _LONGEST_SIDE]
    if len(whole) != 2:
        raise _TaskError(f"its picture is said to be {first[0]!r:.20} × {first[1]!r:.20} pixels")
    return whole[0], whole[1]


def _dataset(sound: list[_Labelled], problems: list[str], path: Path) -> Dataset:
    names = sorted({box.class_name or "" for found in sound for box in found.boxes})
    if not names:
        said = f", e.g. {problems[0].removeprefix(f'{path}: ')}" if problems else ""
        raise FormatError(
            str(path), 0, f"no task with a usable box{said}", "Correct the tasks or leave it out."
        )
    ids = image_ids([found.file_name for found in sound], where=path)
    pairs = list(zip(ids, sound, strict=True))
    images: list[dict[str, object]] = [
        {
            "image_id": image_id,
            "file_name": found.file_name,
            "split": "",
            "width": found.width,
            "height": found.height,
        }
        for image_id, found in pairs
    ]
    labels = [
        {"image_id": image_id, **{key: getattr(box, key) for key in ["class_name", *BOX_COLUMNS]}}
        for image_id, found in pairs
        for box in found.boxes
    ]
    return make_dataset(images, labels, make_ontology(dict(enumerate(names)), where=path))
