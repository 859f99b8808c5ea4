"""YOLO folders: ``data.yaml``, ``images/`` and one text file per image, a line for each object.

All numbers are fractions of the image's sides. After the class number a line has, by task,

===========  =======================================================================
``detect``   ``x_centre y_centre width height``
``segment``  ``x y x y …``: the corners of one outline
``obb``      ``x y x y x y x y``: the four corners of a rotated box
``pose``     a box as in ``detect``, then ``x y visible`` for each kind of keypoint:
             2 is visible, 1 hidden, and ``0 0 0`` not labelled
===========  =======================================================================

Class numbers are positions in ``data.yaml``. Three keys in it are specific to this platform:
``class_ids``, the ontology's ids, which may have gaps; ``task``, because lines of ``segment`` and
``obb`` may have the same form; and ``kpt_class_ids``. A line that does not fit the task is refused.

Reading loses nothing. Writing loses (``yolo_losses`` counts it) choices, keypoints except those of
an object in ``pose``, attributes except ``hidden``, and parts outside the image. In ``segment`` the
pieces of an area are joined into one outline by lines that run there and back
(``outlines.joined``), so that no piece is lost and none becomes a separate object.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from annotation_platform.errors import DataError
from annotation_platform.formats.files import (
    check_image_ids,
    split_names,
)
from annotation_platform.formats.losses import (
    BOXES_ONLY,
    LEFT_OUT,
    Wording,
    attribute_losses,
    class_losses,
    object_losses,
    sentence,
    shape_losses,
)
from annotation_platform.formats.outlines import one_outline, smallest_rotated_box
from annotation_platform.formats.yolo_classes import YoloTask
from annotation_platform.formats.yolo_lines import (
    DIGITS,
    UNITS,
    UnitArray,
    YoloObjects,
    fractions_of,
    keypoint_classes,
    labels_in,
    object_classes,
)
from annotation_platform.formats.yolo_reading import read_yolo
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.shapes import POINTS, Label, outlines_of

__all__ = ["YoloTask", "read_yolo", "render_yolo", "yolo_losses"]

HOLDS: dict[YoloTask, frozenset[str]] = {
    "detect": BOXES_ONLY,
    "segment": frozenset({"polygon"}),
    "obb": frozenset({"rotated_box"}),
    "pose": BOXES_ONLY | {"keypoint"},
}
"""Shapes that lines of each task hold; see ``_BECOMES`` for other areas."""

_FOUR_CORNERS = frozenset({"box", "rotated_box"})
"""Areas that are rotated boxes without loss; others become the smallest rotated box around them."""


def render_yolo(dataset: Dataset, task: YoloTask = "detect") -> dict[str, bytes]:
    """Return the YOLO files of ``dataset`` by relative path: ``data.yaml`` and one per image.

    An image without objects has an empty file. Objects are clipped to the image, so that every
    number and every edge is in ``[0, 1]``. Equal datasets give equal bytes, regardless of the
    order of their rows.

    Raises:
        DataError: a class or its image is unknown, an image id is not a file name, or every class
            is a keypoint.
    """
    check_image_ids(dataset)
    lines = _WRITERS[task](dataset)
    files = {"data.yaml": _data_yaml(dataset, task)}
    names = zip(dataset.images["image_id"].tolist(), dataset.images["split"].tolist(), strict=True)
    for image_id, split in sorted(names):
        path = f"labels/{split}/{image_id}.txt" if split else f"labels/{image_id}.txt"
        files[path] = lines.get(image_id, b"")
    return files


def _data_yaml(dataset: Dataset, task: YoloTask) -> bytes:
    points = keypoint_classes(dataset) if task == "pose" else {}
    objects = object_classes(dataset, task)
    if not objects:
        raise DataError("every class is a keypoint, and objects have no class. Add their class.")
    folders = {
        split or "train": f"images/{split}" for split in split_names(dataset.images["split"])
    }
    content: dict[str, Any] = {
        **folders,
        "names": dict(enumerate(objects)),
        "class_ids": list(objects.values()),
    }
    if task == "pose":
        content["kpt_shape"] = [len(points), 3]
        content["kpt_names"] = {number: list(points) for number in range(len(objects))}
        content["kpt_class_ids"] = list(points.values())
    elif task != "detect":
        content["task"] = task
    # The default dumper writes repeated lists as references, which few readers of YAML expect.
    return yaml.dump(content, Dumper=_Plain, sort_keys=False, allow_unicode=True).encode()


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Return True: repeated values are written in full."""
        return True


def _box_columns(objects: YoloObjects) -> list[tuple[UnitArray, int]]:
    edges = objects.labels[BOX_COLUMNS].to_numpy(dtype=np.float64)
    left_top = fractions_of(edges[:, :2], objects.sides)
    right_bottom = fractions_of(edges[:, 2:], objects.sides)
    # Half of a sum of whole billionths has exactly ten decimals: the edges computed from centre and
    # size are exact, and none exceeds 1.
    centre = (left_top + right_bottom) * 5
    size = right_bottom - left_top
    columns = [(centre, DIGITS + 1), (size, DIGITS)]
    return [(values[:, axis], decimals) for values, decimals in columns for axis in (0, 1)]


def _detect(dataset: Dataset) -> dict[str, bytes]:
    objects = YoloObjects.of(dataset, "detect")
    return objects.lines(_box_columns(objects))


def _pose(dataset: Dataset) -> dict[str, bytes]:
    objects = YoloObjects.of(dataset, "pose")
    kinds = list(keypoint_classes(dataset))
    points = _points(dataset, objects, kinds)
    labels = points.labels
    locations = np.zeros((len(objects.labels), len(kinds), 2), dtype=np.int64)
    visibility = np.zeros((len(objects.labels), len(kinds)), dtype=np.int64)
    pixels = labels[["x1", "y1"]].to_numpy(dtype=np.float64)
    locations[points.owner, points.kind] = fractions_of(pixels, objects.sides[points.owner])
    visibility[points.owner, points.kind] = np.where(_hidden(labels["attributes"]), 1, 2)
    columns = _box_columns(objects)
    for kind in range(len(kinds)):
        columns += [(locations[:, kind, 0], DIGITS), (locations[:, kind, 1], DIGITS)]
        columns.append((visibility[:, kind], 0))
    return objects.lines(columns)


@dataclass(frozen=True)
class _Points:
    """Keypoints that lines hold, and counts of those that they do not.

    ``owner`` is the position of each keypoint's object, ``kind`` that of its class.
    """

    labels: pd.DataFrame
    owner: npt.NDArray[np.intp]
    kind: npt.NDArray[np.intp]
    without_object: int
    repeated: int


def _points(dataset: Dataset, objects: YoloObjects, kinds: list[str]) -> _Points:
    keys = ["image_id", "instance"]
    owners = objects.labels.assign(owner=np.arange(len(objects.labels)))
    owners = owners[owners["instance"] != ""].drop_duplicates(keys)
    points = dataset.labels[dataset.labels["shape"].isin(POINTS)]
    owned = points.merge(owners[[*keys, "owner"]], on=keys)
    # Of two points of a class, the first by coordinates is written, regardless of the row order.
    one = owned.sort_values(["owner", "class_name", "x1", "y1", "attributes"])
    one = one.drop_duplicates(["owner", "class_name"])
    return _Points(
        labels=one,
        owner=one["owner"].to_numpy(dtype=np.intp),
        kind=pd.Index(kinds).get_indexer(pd.Index(one["class_name"])),
        without_object=len(points) - len(owned),
        repeated=len(owned) - len(one),
    )


def _hidden(attributes: "pd.Series[str]") -> list[bool]:
    return [bool(text and json.loads(text).get("hidden")) for text in attributes]


def _obb(dataset: Dataset) -> dict[str, bytes]:
    objects = YoloObjects.of(dataset, "obb")
    corners = _corners(objects)
    fractions = fractions_of(corners, objects.sides[:, None, :]).reshape(-1, 8)
    return objects.lines([(fractions[:, number], DIGITS) for number in range(8)])


def _corners(objects: YoloObjects) -> FloatArray:
    """Return ``(N, 4, 2)`` corners, in pixels, of boxes or of the smallest boxes around labels."""
    found = [_corners_of(label) for label in labels_in(objects.labels)]
    return np.stack(found) if found else np.empty((0, 4, 2))


def _corners_of(label: Label) -> FloatArray:
    if label.shape not in _FOUR_CORNERS:
        try:
            label = smallest_rotated_box(label)
        except ValueError:
            # A label without area has no smallest rotated box.
            label = replace(label, shape="box", geometry="")
    return np.reshape(outlines_of(label)[0], (4, 2))


def _segment(dataset: Dataset) -> dict[str, bytes]:
    objects = YoloObjects.of(dataset, "segment")
    found: list[tuple[int, int, list[int]]] = []
    columns = (objects.image, objects.position, objects.sides)
    rows = zip(labels_in(objects.labels), *(each.tolist() for each in columns), strict=True)
    for label, image, position, (width, height) in rows:
        outline = one_outline(label, width=int(width), height=int(height))
        if len(outline):
            units = fractions_of(outline, np.array([width, height])).ravel().tolist()
            found.append((image, position, units))
    lines: dict[str, list[str]] = {}
    for image, position, units in sorted(found):
        numbers = " ".join([f"{unit / UNITS:.9f}" for unit in units])
        lines.setdefault(objects.image_names[image], []).append(f"{position} {numbers}\n")
    return {name: "".join(each).encode() for name, each in lines.items()}


_WRITERS: dict[YoloTask, Callable[[Dataset], dict[str, bytes]]] = {
    "detect": _detect,
    "segment": _segment,
    "obb": _obb,
    "pose": _pose,
}


def yolo_losses(dataset: Dataset, task: YoloTask = "detect") -> list[str]:
    """Return one sentence with a count for each kind of content that writing loses or changes."""
    objects = YoloObjects.of(dataset, task)
    outside = _outside(objects.labels, objects.sides)
    noun = ("label", "labels")
    lost = shape_losses(dataset, HOLDS[task], **_BECOMES.get(task, {}))
    if task == "pose":
        points = _points(dataset, objects, list(keypoint_classes(dataset)))
        alone: Wording = ("keypoint without an object", "keypoints without an object")
        second: Wording = ("second keypoint of a kind", "second keypoints of a kind")
        lost += sentence(points.without_object, alone, LEFT_OUT)
        lost += sentence(points.repeated, second, LEFT_OUT)
        outside += _outside(points.labels, objects.sides[points.owner])
    if task == "segment":
        drawn = objects.labels[~objects.labels["shape"].isin(_FOUR_CORNERS)]
        joined = [label for label in labels_in(drawn) if len(outlines_of(label)) > 1]
        verb = ("of several pieces is joined into one", "of several pieces are joined into one")
        lost += sentence(len(joined), ("outline", "outlines"), verb)
    return [
        *lost,
        *sentence(outside, noun, ("is cut at the image's edge", "are cut at the image's edge")),
        *attribute_losses(dataset),
        *object_losses(dataset),
        *class_losses(dataset),
    ]


def _outside(labels: pd.DataFrame, sides: FloatArray) -> int:
    edges = labels[BOX_COLUMNS].to_numpy(dtype=np.float64)
    return int(((edges[:, :2] < 0) | (edges[:, 2:] > sides)).any(axis=1).sum())


_BECOMES: dict[YoloTask, dict[str, Wording]] = {
    "segment": {"areas": ("becomes a polygon", "become polygons")},
    "obb": {
        "areas": ("becomes the smallest rotated box around it", "become rotated boxes around them"),
        "upright": ("becomes a rotated box", "become rotated boxes"),
    },
}
"""Verb phrases for areas that a task does not hold: arguments of ``shape_losses``."""
