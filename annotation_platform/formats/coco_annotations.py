"""Labels of one COCO annotation: its box or outline, and its keypoints."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from annotation_platform.formats.files import finite_numbers
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.shapes.raster import (
    checked,
    counts_from_text,
    extent,
    text_from_counts,
)

_MOST_MASKED = 2**32
_ROTATED_BOX = "rotated_box"
"""A key of this platform for a geometry that COCO lacks."""

POSITION_KEYS = frozenset(
    {"bbox", _ROTATED_BOX, "segmentation", "keypoints", "caption", "segments_info"}
)
"""Keys that locate an annotation in its image; an annotation without one is a choice."""

_HIDDEN = 1


@dataclass(frozen=True)
class Category:
    """A class name, and the names of its objects' keypoints."""

    name: str
    points: tuple[str, ...]


DatasetRow = dict[str, object]
"""A row of a dataset's images or labels, as ``files.make_dataset`` takes it."""


class EntryError(ValueError):
    """An annotation has an unusable value; the message names it and the expected form."""


def labels_of_annotation(
    entry: dict[str, Any], category: Category, image: DatasetRow, number: int
) -> Iterator[DatasetRow]:
    """Yield the rows of one annotation: its box or outline, then its labelled keypoints.

    Args:
        entry: The annotation as COCO has it.
        category: Its category.
        image: The row of its image, with ``width`` and ``height`` in pixels.
        number: Position of the annotation in its file, which names an instance without an id.

    Raises:
        EntryError: a value of the annotation cannot be used.
    """
    points = list(_points(entry, category))
    attributes = _attributes(entry)
    name = entry.get("instance", "")
    if not isinstance(name, str | int):
        raise EntryError(f"instance {name!r:.80}, expected a string")
    segmentation = entry.get("segmentation")
    is_bare = not segmentation and not entry.get(_ROTATED_BOX)
    box = finite_numbers(entry["bbox"]) if _is_four(entry.get("bbox")) else None
    if is_bare and box and len(points) == 1 and box[2:] == [0, 0]:
        label, hidden = points[0]
        if label.class_name == category.name:
            yield _row(label, str(name), {**attributes, **hidden})
            return
    instance = str(name) or (f"{entry.get('id', number)}" if points else "")
    if entry.get("iscrowd"):
        attributes["crowd"] = 1
    yield _row(_outline(entry, category.name, image), instance, attributes)
    for label, hidden in points:
        yield _row(label, instance, hidden)


def _row(label: Label, instance: str, attributes: dict[str, Any]) -> DatasetRow:
    try:
        text = json.dumps(attributes, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise EntryError(f"attributes that cannot be written as JSON ({error})") from error
    row: DatasetRow = {key: getattr(label, key) for key in ["class_name", *BOX_COLUMNS]}
    row |= {"shape": label.shape, "geometry": label.geometry, "instance": instance}
    return row | {"attributes": text if attributes else ""}


def _attributes(entry: dict[str, Any]) -> dict[str, Any]:
    attributes = entry.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise EntryError(f"attributes {attributes!r:.80}, expected an object")
    return dict(attributes)


def _is_four(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4


def _outline(entry: dict[str, Any], name: str, image: DatasetRow) -> Label:
    if _ROTATED_BOX in entry:
        return _rotated_box(entry[_ROTATED_BOX], name, image)
    segmentation = entry.get("segmentation")
    if isinstance(segmentation, dict):
        return _mask(segmentation, name, image)
    if segmentation and segmentation != [[]]:
        return _polygon(segmentation, name)
    box = entry.get("bbox")
    numbers = finite_numbers(box) if isinstance(box, list) and len(box) == 4 else None
    if numbers is None or numbers[2] < 0 or numbers[3] < 0:
        raise EntryError(f"bbox {box!r:.80}, expected [x, y, width, height]")
    x, y, width, height = numbers
    return Label.box(name, x, y, x + width, y + height)


def _rotated_box(value: object, name: str, image: DatasetRow) -> Label:
    numbers = finite_numbers(value) if isinstance(value, list) and len(value) == 5 else None
    if numbers is None or numbers[2] < 0 or numbers[3] < 0:
        raise EntryError(f"rotated_box {value!r:.80}, expected [x, y, width, height, degrees]")
    label = Label.rotated_box(name, *numbers)
    # The enclosing box is clipped to the image.
    corners = [[label.x1, label.y1], [label.x2, label.y2]]
    (x1, y1), (x2, y2) = np.clip(np.array(corners), 0, _size(image)).tolist()
    return replace(label, x1=x1, y1=y1, x2=x2, y2=y2)


def _size(image: DatasetRow) -> tuple[int, int]:
    return int(str(image["width"])), int(str(image["height"]))


def _polygon(segmentation: object, name: str) -> Label:
    outlines = []
    for outline in segmentation if isinstance(segmentation, list) else [None]:
        numbers = finite_numbers(outline) if isinstance(outline, list) else None
        if numbers is None or len(numbers) < 6 or len(numbers) % 2:
            raise EntryError(
                f"an outline {outline!r:.80} in its segmentation, expected at least three points"
            )
        outlines.append(numbers)
    return Label.polygon(name, outlines)


def _mask(runs: dict[str, Any], name: str, image: DatasetRow) -> Label:
    width, height = _size(image)
    if runs.get("size") != [height, width]:
        raise EntryError(
            f"a mask of size {runs.get('size')!r:.40}, expected its image's {[height, width]}"
        )
    if width * height >= _MOST_MASKED:
        raise EntryError(f"a mask of {width} × {height} pixels, more than 32 bits can count")
    value = runs.get("counts")
    if not isinstance(value, str) and not _are_lengths(value, width * height):
        raise EntryError("a mask whose counts are neither a list of run lengths nor their text")
    try:
        counts = counts_from_text(value) if isinstance(value, str) else np.array(value, np.int64)
        counts = checked(counts, width=width, height=height)
    except ValueError as error:
        raise EntryError(f"an invalid mask: {error}") from error
    text = text_from_counts(counts, width=width, height=height)
    geometry = json.dumps({"size": [height, width], "counts": text})
    return Label("mask", name, geometry, *extent(counts, height=height))


def _are_lengths(value: object, most: int) -> bool:
    return isinstance(value, list) and all(
        type(each) is int and 0 <= each <= most for each in value
    )


def _points(entry: dict[str, Any], category: Category) -> Iterator[tuple[Label, dict[str, Any]]]:
    """Yield the labelled keypoints, each with its attributes: ``hidden`` or none."""
    value = entry.get("keypoints") or []
    numbers = finite_numbers(value) if isinstance(value, list) else None
    if numbers is None or len(numbers) % 3:
        raise EntryError(f"keypoints {value!r:.80}, expected x, y and visibility of each")
    names: Sequence[str] = category.points
    for index in range(len(numbers) // 3):
        x, y, visibility = numbers[3 * index : 3 * index + 3]
        if visibility:
            name = names[index] if index < len(names) else f"{category.name} {index + 1}"
            yield Label.keypoint(name, x, y), {"hidden": 1} if visibility == _HIDDEN else {}
