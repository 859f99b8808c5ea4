"""Label Studio's JSON export as it is read, task by task; ``label_studio.py`` says what is lost."""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
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
from annotation_platform.labeling.backends.label_studio.interface import UNSURE_NAME
from annotation_platform.labeling.backends.label_studio.region_codecs import CODECS, shapes_of_kind
from annotation_platform.labeling.backends.label_studio.results import read_result
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import AREAS, POINTS, UNSURE, UPRIGHT_BOXES, Label
from annotation_platform.schema.tables.shared import SPLITS

_RECTANGLE = "rectanglelabels"
_NO_LABELS = frozenset(
    {"datetime", "number", "pairwise", "rating", "relation", "taxonomy", "textarea"}
)
_NOT_REGIONS = {False: _NO_LABELS, True: _NO_LABELS | {"choices"}}
"""What is passed over, and what besides where only boxes are read."""

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
    """The image of a task and the labels of its annotation, each with its instance.

    The size is 0 where neither a region nor the task says it.
    """

    task: str
    file_name: str
    split: str
    width: int
    height: int
    labels: list[tuple[Label, str]]
    notes: list[str]


_Reader = Callable[..., tuple[list[tuple[Label, str]], list[str]]]


class _TaskError(ValueError):
    """A task cannot be used, for the reason given."""


def read_label_studio(path: Path, *, only_boxes: bool = False) -> LabelStudioReading:
    """Return the dataset of a JSON export (the full one, not JSON-MIN), judged task by task.

    An annotation without regions says that there is nothing in the image; a skipped one says
    nothing, and a task with none that counts is not in the dataset; neither is one whose annotator
    could not tell. Of several the one updated last counts. Two tasks on the same image are left
    out both. A box may reach a pixel outside and is cut there; what else is changed or refused is
    what ``read_result`` of ``labeling/backends/label_studio`` changes or refuses. A rectangle that
    is turned is a rotated box, and one that is not is a box, whatever others of its class are.

    ``file_name`` is what the task calls the image: the path in its address, without server,
    bucket and the prefix of uploads. Where nothing is in an image and the task does not say its
    size, as ours do, it is 0 × 0. Classes are those of all regions that are read, numbered from 0
    in alphabetical order.

    Args:
        path: The export.
        only_boxes: Only rectangles are read, turned ones as the box around them: choices are
            passed over, and any other region takes its image with it.

    Raises:
        FormatError: the file is no such export, or no task of it has a usable label.
    """
    tasks = _tasks(path)
    kinds = (
        [_RECTANGLE] if only_boxes else list(dict.fromkeys(codec.kind for codec in CODECS.values()))
    )
    classes = _class_names(tasks, kinds)
    wanted = "rectangle" if only_boxes else "region or choice"
    if not classes:
        raise FormatError(
            str(path), 0, f"no {wanted} with a class in it", "Export a labelled project as JSON."
        )
    if only_boxes:
        read: _Reader = partial(_boxes, ontology=Ontology.from_names(classes))
    else:
        read = partial(_all_shapes, ontologies=_ontologies(classes))
    labelled: dict[str, list[_Labelled]] = {}
    problems: list[str] = []
    several = 0
    for position, task in enumerate(tasks, start=1):
        name = _task_name(task, position)
        try:
            annotations = _annotations(task)
            if not annotations:
                continue
            found = _read(name, task, annotations[-1], read, passed_over=_NOT_REGIONS[only_boxes])
        except _TaskError as error:
            problems.append(f"{path}: {name} is left out: {error}")
            continue
        several += len(annotations) > 1
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


def image_path(address: str) -> str:
    """Return the path of an image in an address of Label Studio's, relative; empty if none.

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


def _class_names(tasks: Iterable[dict[str, Any]], kinds: Sequence[str]) -> list[str]:
    """Return every class that a region of these types could have, in alphabetical order."""
    names = {
        name
        for task in tasks
        for annotation in _dicts(task["annotations"])
        for region in _dicts(annotation.get("result"))
        for kind in kinds
        for name in _list(_dict(region.get("value")).get(kind))
        if region.get("from_name") != UNSURE_NAME
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


def _annotations(task: dict[str, Any]) -> list[dict[str, Any]]:
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


def _ontologies(classes: list[str]) -> dict[str, Ontology]:
    """Return for each shape an ontology in which all classes are of it."""
    return {
        shape: Ontology(
            classes=tuple(
                LabelClass(id=number, name=name, shape=shape) for number, name in enumerate(classes)
            ),
            choose="many",
        )
        for shape in CODECS
    }


def _read(
    name: str,
    task: dict[str, Any],
    annotation: dict[str, Any],
    read: _Reader,
    *,
    passed_over: frozenset[str],
) -> _Labelled:
    result = annotation.get("result")
    if not isinstance(result, list):
        raise _TaskError("its annotation has no list of regions")
    file_name = _file_name(task)
    split = _dict(task.get("data")).get("split")
    split = split if split in SPLITS else ""
    regions = [each for each in result if _dict(each).get("type") not in passed_over]
    once = _without_twins(regions)
    width, height = _size(once, _dict(task.get("data")))
    if not once:
        return _Labelled(name, file_name, split, width, height, [], [])
    labels, notes = read(once, width=width, height=height)
    if len(once) < len(regions):
        notes.append(f"{len(regions) - len(once)} regions said twice are counted once")
    return _Labelled(name, file_name, split, width, height, labels, notes)


def _boxes(
    regions: list[Any], *, width: int, height: int, ontology: Ontology
) -> tuple[list[tuple[Label, str]], list[str]]:
    """Return the boxes of regions, and notes; see ``read_label_studio``."""
    labels, notes = _parsed(regions, width, height, ontology)
    return [(label, "") for label in labels], notes


def _parsed(
    regions: list[Any], width: int, height: int, ontology: Ontology
) -> tuple[list[Label], list[str]]:
    # A pixel of the longer side; on the shorter one it is a little less.
    outside = 100 / max(width, height, 1)
    parsed = read_result(
        regions, width=width, height=height, ontology=ontology, outside_percent=outside
    )
    if parsed.refused:
        raise _TaskError("; ".join(parsed.problems[:_SHOWN]))
    if UNSURE in parsed.labels:
        raise _TaskError("whoever answered could not tell")
    return parsed.labels, list(parsed.problems)


def _all_shapes(
    regions: list[Any], *, width: int, height: int, ontologies: dict[str, Ontology]
) -> tuple[list[tuple[Label, str]], list[str]]:
    """Return the labels of regions, each with its instance, and notes."""
    named = [
        each if isinstance(_dict(each).get("id"), str) else {**_dict(each), "id": f"number {n}"}
        for n, each in enumerate(regions, start=1)
    ]
    points = [each for each in named if each.get("type") in _kinds(POINTS)]
    outlines = {each["id"] for each in named if each.get("type") in _kinds(AREAS)}
    parents = {each.get("parentID") for each in points} & outlines
    found: list[tuple[Label, str]] = []
    notes: list[str] = []
    for shape, group in _groups(named):
        labels, more = _parsed(group, width, height, ontologies[shape])
        notes += more
        key = str(group[0].get("parentID" if shape in POINTS else "id"))
        found += [(label, key if key in parents else "") for label in labels]
    return found, notes


def _groups(regions: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each region with its shape, but polygons together with those that are under them."""
    polygons = {each["id"]: each for each in regions if _joins(each)}
    under: dict[str, list[dict[str, Any]]] = {}
    for key, each in polygons.items():
        root, met = key, {key}
        while (above := polygons[root].get("parentID")) in polygons and above not in met:
            met.add(above)
            root = above
        under.setdefault(root, []).append(each)
    for each in regions:
        if not _joins(each):
            yield _shape(each), [each]
        elif each["id"] in under:
            # The one that the others are under comes first.
            yield _shape(each), sorted(under.pop(each["id"]), key=lambda one: one is not each)


def _kinds(shapes: Collection[str]) -> set[str]:
    return {codec.kind for codec in CODECS.values() if codec.shape in shapes}


def _shape(region: dict[str, Any]) -> str:
    """Return the shape of a region; one of an unknown type is read, and refused, as a box."""
    kind, value = region.get("type"), _dict(region.get("value"))
    shapes = shapes_of_kind(kind) if isinstance(kind, str) else ()
    return next((shape for shape in shapes if CODECS[shape].fits(value)), UPRIGHT_BOXES[0])


def _joins(region: dict[str, Any]) -> bool:
    return region.get("type") in {codec.kind for codec in CODECS.values() if codec.joins}


def _file_name(task: dict[str, Any]) -> str:
    data = _dict(task.get("data"))
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    named = [value for value in texts.values() if _is_image(image_path(value))]
    if "image" not in texts and len(named) != 1:
        raise _TaskError("its data do not say which image it is on, in a field `image`")
    path = image_path(texts.get("image", named[0] if named else ""))
    if not path or path.endswith("/") or ".." in PurePosixPath(path).parts:
        raise _TaskError(f"{texts.get('image', path)!r:.80} is no file name")
    return path


def _is_image(path: str) -> bool:
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


def _size(regions: list[Any], data: dict[str, Any]) -> tuple[int, int]:
    """Return the size of the image that the regions were drawn on: all on the same.

    Choices may say none; where no region does, the task's data may, and 0 × 0 is unknown.
    """
    drawn = [
        region
        for region in regions
        if _dict(region).get("type") != "choices" or _dict(region).get("original_width") is not None
    ]
    if not drawn:
        sides = [data.get("width"), data.get("height")]
        known = [side for side in sides if isinstance(side, int) and 1 <= side <= _LONGEST_SIDE]
        return (known[0], known[1]) if len(known) == 2 else (0, 0)
    sizes = [
        (_dict(region).get("original_width"), _dict(region).get("original_height"))
        for region in drawn
    ]
    first = sizes[0]
    if any(size != first for size in sizes):
        raise _TaskError("its regions were drawn on images of different sizes")
    whole = [side for side in first if isinstance(side, int) and 1 <= side <= _LONGEST_SIDE]
    if len(whole) != 2:
        raise _TaskError(f"its image is said to be {first[0]!r:.20} × {first[1]!r:.20} pixels")
    return whole[0], whole[1]


def _dataset(sound: list[_Labelled], problems: list[str], path: Path) -> Dataset:
    names = sorted({label.class_name or "" for found in sound for label, _ in found.labels})
    if not names:
        said = f", e.g. {problems[0].removeprefix(f'{path}: ')}" if problems else ""
        raise FormatError(
            str(path), 0, f"no task with a usable label{said}", "Correct the tasks or leave it out."
        )
    ids = image_ids([found.file_name for found in sound], where=path)
    pairs = list(zip(ids, sound, strict=True))
    facts = ["file_name", "split", "width", "height"]
    images: list[dict[str, object]] = [
        {"image_id": image_id, **{key: getattr(found, key) for key in facts}}
        for image_id, found in pairs
    ]
    said_of = ["class_name", *BOX_COLUMNS, "shape", "geometry"]
    labels: list[dict[str, object]] = [
        {
            "image_id": image_id,
            "instance": instance,
            **{key: getattr(label, key) for key in said_of},
        }
        for image_id, found in pairs
        for label, instance in found.labels
    ]
    return make_dataset(images, labels, make_ontology(dict(enumerate(names)), where=path))
