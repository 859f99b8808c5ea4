"""Reading of Label Studio's JSON export, task by task; ``writing.py`` lists what is lost."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    Reading,
    image_ids,
    make_dataset,
    make_ontology,
    read_json,
)
from annotation_platform.formats.label_studio.annotation_regions import (
    MOST_SHOWN,
    RegionReader,
    TaskError,
    dict_or_empty,
    dicts_in,
    image_size_of,
    list_or_empty,
    ontologies_of,
    read_all_shapes,
    read_boxes,
    without_twins,
)
from annotation_platform.formats.label_studio.control_names import UNSURE_NAME
from annotation_platform.formats.label_studio.region_codecs import CODECS
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables.shared import SPLITS

_RECTANGLE = "rectanglelabels"
_NO_LABELS = frozenset(
    {"datetime", "number", "pairwise", "rating", "relation", "taxonomy", "textarea"}
)
_NOT_REGIONS = {False: _NO_LABELS, True: _NO_LABELS | {"choices"}}
"""Region types that are ignored, by whether only boxes are read."""

_UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")
_LONGEST_CLASS = 100


@dataclass(frozen=True)
class _Labelled:
    """The image of a task and the labels of its annotation, each with its instance.

    Width and height are 0 where neither a region nor the task has them.
    """

    task: str
    file_name: str
    split: str
    width: int
    height: int
    labels: list[tuple[Label, str]]
    notes: list[str]


def read_label_studio(path: Path, *, only_boxes: bool = False) -> Reading:
    """Return the dataset of a JSON export (JSON, not JSON-MIN); a bad task is left out.

    An annotation without regions means that the image has no objects. A skipped annotation does
    not count. A task without an annotation that counts, or whose annotator was unsure, is not in
    the dataset. Of several annotations the one updated last counts. Tasks on the same image are all
    left out. A box may reach one pixel outside the image and is clipped; apart from that,
    ``results.read_result`` defines what is changed and refused. A rectangle with a rotation is a
    rotated box and one without is a box, regardless of the other rectangles of its class.

    ``file_name`` is the path in the image's address, without server, bucket and the prefix of
    uploads. Where an image has no regions and the task lacks its size (tasks of this platform have
    it), the size is 0 × 0. Classes are those of all regions that are read, numbered from 0 in
    alphabetical order.

    Args:
        path: The export.
        only_boxes: Only rectangles are read, rotated ones as their enclosing box. Choices are
            ignored, and any other region excludes its image.

    Raises:
        FormatError: the file is not such an export, or no task has a usable label.
    """
    tasks = _tasks(path)
    kinds = (
        [_RECTANGLE] if only_boxes else list(dict.fromkeys(codec.kind for codec in CODECS.values()))
    )
    classes = _class_names(tasks, kinds)
    noun = "rectangle" if only_boxes else "region or choice"
    if not classes:
        raise FormatError(
            str(path), 0, f"no {noun} with a class in it", "Export a labelled project as JSON."
        )
    if only_boxes:
        read: RegionReader = partial(read_boxes, ontology=Ontology.from_names(classes))
    else:
        read = partial(read_all_shapes, ontologies=ontologies_of(classes))
    labelled: dict[str, list[_Labelled]] = {}
    problems: list[str] = []
    several = 0
    for position, task in enumerate(tasks, start=1):
        name = _task_name(task, position)
        try:
            annotations = _annotations(task)
            if not annotations:
                continue
            found = _read(name, task, annotations[-1], read, ignored=_NOT_REGIONS[only_boxes])
        except TaskError as error:
            problems.append(f"{path}: {name} is left out: {error}")
            continue
        several += len(annotations) > 1
        problems += [f"{path}: {name}: {note}" for note in found.notes]
        labelled.setdefault(found.file_name, []).append(found)
    if several:
        problems.append(f"{path}: of several annotations on a task, the last counts ({several} ×)")
    problems += _repeated_images(labelled, path)
    usable = [found for found, *others in labelled.values() if not others]
    return Reading(_dataset(usable, problems, path), tuple(problems))


def _repeated_images(labelled: dict[str, list[_Labelled]], path: Path) -> list[str]:
    """Return one sentence for each image that has several tasks."""
    problems = []
    for file_name, tasks in labelled.items():
        if len(tasks) > 1:
            names = " and ".join(each.task for each in tasks[:MOST_SHOWN])
            problems.append(f"{path}: {names} are left out: all are on {file_name!r}")
    return problems


def image_path(address: str) -> str:
    """Return the relative path of an image in a Label Studio address; empty if it has none.

    The path is the key in a bucket, the parameter ``d`` of a local file, the path on a server, or
    the name of an upload without the eight digits that Label Studio prefixes.
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


def _class_names(tasks: Iterable[dict[str, Any]], kinds: Sequence[str]) -> list[str]:
    """Return the classes of all regions of these types, in alphabetical order."""
    names = {
        name
        for task in tasks
        for annotation in dicts_in(task["annotations"])
        for region in dicts_in(annotation.get("result"))
        for kind in kinds
        for name in list_or_empty(dict_or_empty(region.get("value")).get(kind))
        if region.get("from_name") != UNSURE_NAME
        if isinstance(name, str) and 0 < len(name) <= _LONGEST_CLASS
    }
    return sorted(names)


def _task_name(task: dict[str, Any], position: int) -> str:
    key = task.get("id")
    return f"task {key!r:.40}" if isinstance(key, int | str) else f"task number {position}"


def _annotations(task: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the annotations that count, sorted by the time of their last update."""
    annotations = task["annotations"]
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise TaskError("its annotations are not a list of objects")
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
    name: str,
    task: dict[str, Any],
    annotation: dict[str, Any],
    read: RegionReader,
    *,
    ignored: frozenset[str],
) -> _Labelled:
    result = annotation.get("result")
    if not isinstance(result, list):
        raise TaskError("its annotation has no list of regions")
    file_name = _file_name(task)
    split = dict_or_empty(task.get("data")).get("split")
    split = split if split in SPLITS else ""
    regions = [each for each in result if dict_or_empty(each).get("type") not in ignored]
    once = without_twins(regions)
    width, height = image_size_of(once, dict_or_empty(task.get("data")))
    if not once:
        return _Labelled(name, file_name, split, width, height, [], [])
    labels, notes = read(once, width=width, height=height)
    if len(once) < len(regions):
        notes.append(f"{len(regions) - len(once)} repeated regions are counted once")
    return _Labelled(name, file_name, split, width, height, labels, notes)


def _file_name(task: dict[str, Any]) -> str:
    data = dict_or_empty(task.get("data"))
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [value for value in texts.values() if _is_image(image_path(value))]
    if "image" not in texts and len(named) != 1:
        raise TaskError("its data lack the image's address, in a field `image`")
    path = image_path(texts.get("image", named[0] if named else ""))
    if not path or path.endswith("/") or ".." in PurePosixPath(path).parts:
        raise TaskError(f"{texts.get('image', path)!r:.80} is not a file name")
    return path


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def _dataset(usable: list[_Labelled], problems: list[str], path: Path) -> Dataset:
    names = sorted({label.class_name or "" for found in usable for label, _ in found.labels})
    if not names:
        example = f", e.g. {problems[0].removeprefix(f'{path}: ')}" if problems else ""
        raise FormatError(
            str(path),
            0,
            f"no task with a usable label{example}",
            "Correct the tasks or leave out the file.",
        )
    ids = image_ids([found.file_name for found in usable], where=path)
    pairs = list(zip(ids, usable, strict=True))
    image_fields = ["file_name", "split", "width", "height"]
    images: list[dict[str, object]] = [
        {"image_id": image_id, **{key: getattr(found, key) for key in image_fields}}
        for image_id, found in pairs
    ]
    label_fields = ["class_name", *BOX_COLUMNS, "shape", "geometry"]
    labels: list[dict[str, object]] = [
        {
            "image_id": image_id,
            "instance": instance,
            **{key: getattr(label, key) for key in label_fields},
        }
        for image_id, found in pairs
        for label, instance in found.labels
    ]
    return make_dataset(images, labels, make_ontology(dict(enumerate(names)), where=path))
