"""Content of COCO annotations beyond class and box: segmentations, keypoints and attributes."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import AREAS, POINTS, REGIONS, SHAPES, Label, outlines_of
from annotation_platform.schema.shapes.raster import counts_from_text

DECIMALS = 6
_VISIBLE, _HIDDEN = 2, 1

_BY_NUMBERS = frozenset({"rotated_box"})
"""Shapes whose geometry is written under the shape's name, in addition to the outline."""

compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Return the JSON text of a value in one line, without blanks."""


@dataclass(frozen=True)
class LabelRow:
    """A label, and its position among all labels of the dataset."""

    position: int
    class_id: int
    image_id: str
    class_name: str
    shape: str
    geometry: str
    instance: str
    attributes: str
    box: tuple[float, float, float, float]


@dataclass
class LabelledObject:
    """The labels of an image that share an instance."""

    outlines: list[LabelRow] = field(default_factory=list)
    points: list[LabelRow] = field(default_factory=list)


@dataclass
class Extras:
    """Content of annotations beyond class and box, by position of the label; plain boxes have none.

    * ``area``: in square pixels;
    * ``text``: the JSON text after the area;
    * ``content``: the text that the annotation's id is hashed from, in addition to class and box;
    * ``folded``: positions of points that are written in the annotation of their object;
    * ``points_of``: names of the keypoints of each class id;
    * ``blank``: JSON text for annotations of a class id that has keypoints, where none is labelled.
    """

    area: dict[int, float] = field(default_factory=dict)
    text: dict[int, str] = field(default_factory=dict)
    content: dict[int, str] = field(default_factory=dict)
    folded: list[int] = field(default_factory=list)
    points_of: dict[int, list[str]] = field(default_factory=dict)
    blank: dict[int, str] = field(default_factory=dict)


def special_labels(labels: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Return for each label whether it is more than a box: a shape, an instance or attributes."""
    plain = {"shape": "box", "instance": "", "attributes": ""}
    differs = [(labels[name] != value).to_numpy(bool) for name, value in plain.items()]
    return np.asarray(np.logical_or.reduce(differs))


def objects_with_points(rows: pd.DataFrame) -> dict[tuple[str, str], LabelledObject]:
    """Return the objects that have both points and outlines, each sorted."""
    found: dict[tuple[str, str], LabelledObject] = defaultdict(LabelledObject)
    for row in _rows(rows):
        if row.instance and row.shape in REGIONS:
            one = found[row.image_id, row.instance]
            (one.outlines if row.shape in AREAS else one.points).append(row)
    objects = {key: one for key, one in found.items() if one.outlines and one.points}
    for one in objects.values():
        one.outlines.sort(key=lambda row: (row.class_id, row.shape, row.box, row.geometry))
        one.points.sort(key=lambda row: (row.class_id, row.box, row.attributes))
    return objects


def _rows(rows: pd.DataFrame) -> list[LabelRow]:
    names = ["image_id", "class_name", "shape", "geometry", "instance", "attributes"]
    ids = rows["class_id"].tolist() if "class_id" in rows else [0] * len(rows)
    positions = rows["position"].tolist() if "position" in rows else [0] * len(rows)
    boxes = zip(*(rows[edge].tolist() for edge in BOX_COLUMNS), strict=True)
    columns = [rows[name].tolist() for name in names]
    return [LabelRow(*values) for values in zip(positions, ids, *columns, boxes, strict=True)]


def extras_of(labels: pd.DataFrame) -> Extras:
    """Return the content of all annotations beyond class and box."""
    extras = Extras()
    chosen = np.flatnonzero(special_labels(labels))
    if not len(chosen):
        return extras
    special = labels.iloc[chosen].assign(position=chosen)
    objects = objects_with_points(special)
    points_at = {one.outlines[0].position: one.points for one in objects.values()}
    extras.folded = [point.position for points in points_at.values() for point in points]
    folded = set(extras.folded)
    rows = [row for row in _rows(special) if row.position not in folded]
    points = {
        row.position: [row] if row.shape in POINTS else points_at.get(row.position, [])
        for row in rows
    }
    layout = _layout(rows, points)
    extras.points_of = {key: [name for _, name in slots] for key, slots in layout.items()}
    if layout:
        extras.blank = {
            key: _points_text(layout.get(key, []), [])
            for key in {*labels["class_id"].tolist(), *layout}
        }
    for row in rows:
        _add_extras(extras, row, points[row.position], layout)
    return extras


def _layout(
    rows: list[LabelRow], points: dict[int, list[LabelRow]]
) -> dict[int, list[tuple[int, str]]]:
    """Return the keypoint slots of each class id: class ids and names of its points, sorted.

    A point class that occurs several times in one object has that many slots.
    """
    most: dict[int, Counter[tuple[int, str]]] = defaultdict(Counter)
    for row in rows:
        if points[row.position]:
            most[row.class_id] |= Counter(
                (one.class_id, one.class_name) for one in points[row.position]
            )
    return {key: sorted(counted.elements()) for key, counted in most.items()}


def _add_extras(
    extras: Extras, row: LabelRow, points: list[LabelRow], layout: dict[int, list[tuple[int, str]]]
) -> None:
    attributes = attributes_of(row.attributes)
    crowd = 1 if attributes.pop("crowd", 0) else 0
    if row.shape in POINTS:
        attributes.pop("hidden", None)
    extras.area[row.position], segmentation = _segmentation(row)
    text = f',"iscrowd":{crowd},"segmentation":{segmentation}'
    if row.shape in _BY_NUMBERS:
        text += f',"{row.shape}":{compact(json.loads(row.geometry))}'
    if layout:
        text += _points_text(layout.get(row.class_id, []), points)
    if row.instance:
        text += f',"instance":{compact(row.instance)}'
    if attributes:
        text += f',"attributes":{compact(attributes)}'
    extras.text[row.position] = text
    facts = [row.shape, row.geometry, row.instance, row.attributes]
    drawn = [[one.class_id, *one.box[:2], one.attributes] for one in points]
    extras.content[row.position] = compact([*facts, drawn])


def _segmentation(row: LabelRow) -> tuple[float, str]:
    """Return the area in square pixels and the segmentation as text."""
    shape = SHAPES[row.shape]
    if shape.is_upright_box or row.shape in POINTS:
        x1, y1, x2, y2 = row.box
        return round((x2 - x1) * (y2 - y1), DECIMALS), "[]"
    values = json.loads(row.geometry)
    if shape.is_raster:
        return float(counts_from_text(values["counts"])[1::2].sum()), compact(values)
    if row.shape in _BY_NUMBERS:
        corners = np.round(_outlines(row)[0], DECIMALS) + 0.0
        return round(values[2] * values[3], DECIMALS), compact([corners.tolist()])
    outlines = _outlines(row)
    return round(sum(map(_enclosed, outlines)), DECIMALS), compact(outlines)


def _outlines(row: LabelRow) -> list[list[float]]:
    return outlines_of(Label(row.shape, row.class_name, row.geometry, *row.box))


def _enclosed(outline: list[float]) -> float:
    x, y = np.reshape(outline, (-1, 2)).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _points_text(slots: list[tuple[int, str]], points: list[LabelRow]) -> str:
    waiting = defaultdict(list)
    for point in points:
        waiting[point.class_id].append(point)
    numbers: list[float] = []
    for class_id, _ in slots:
        if waiting[class_id]:
            point = waiting[class_id].pop(0)
            x, y = json.loads(point.geometry)
            is_hidden = attributes_of(point.attributes).get("hidden")
            numbers += [x, y, _HIDDEN if is_hidden else _VISIBLE]
        else:
            numbers += [0, 0, 0]
    return f',"keypoints":{compact(numbers)},"num_keypoints":{len(points)}'


def attributes_of(text: str) -> dict[str, Any]:
    """Return the attributes of a label from their JSON text; empty text gives none."""
    return dict(json.loads(text)) if text else {}
