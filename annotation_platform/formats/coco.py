"""COCO files: one JSON per split; boxes as ``x y width height``, outlines, run lengths, points.

A label is an annotation; the points of an object are in the annotation of its outline, with
``categories[].keypoints`` saying which is which, and a point on its own is an annotation without
extent. Three keys are ours, and other readers pass them over: ``rotated_box``, the five numbers of
a rotated box, which others see as a polygon; ``instance``, what an object is called; and
``attributes``, as datumaro and CVAT write them.

Writing loses choices, what is known of a single point besides its being hidden, and the ontology's
colours, shapes, guidelines and order (classes come back ordered by id); it names images by file
only. Reading loses captions, panoptic segments, skeletons, supercategories and scores, and takes
the box around an outline instead of the one that a file gives beside it. ``coco_reading.py`` reads.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.formats.coco_lines import coco_file, same_id
from annotation_platform.formats.coco_reading import read_coco, read_coco_boxes
from annotation_platform.formats.files import class_ids, split_names, write_files
from annotation_platform.formats.losses import class_losses, sentence, shape_losses
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import AREAS, POINTS, REGIONS, SHAPES, Label, outlines_of
from annotation_platform.schema.shapes.raster import counts_from_text

__all__ = ["coco_losses", "read_coco", "read_coco_boxes", "render_coco", "write_coco"]

HOLDS = frozenset({"box", "rotated_box", "polygon", "mask", "keypoint"})
"""The shapes of this format; other areas are written as polygons."""

_BY_NUMBERS = frozenset({"rotated_box"})
"""Shapes whose geometry an annotation has under their name, beside its outline."""

_DECIMALS = 6
_VISIBLE, _HIDDEN = 2, 1


def write_coco(dataset: Dataset, folder: Path) -> None:
    """Write ``coco/<split>.json`` under ``folder``; see ``render_coco``."""
    write_files(render_coco(dataset), folder)


def coco_losses(dataset: Dataset) -> list[str]:
    """Return one sentence for each kind of thing in ``dataset`` that its COCO files lack."""
    labels = dataset.labels
    objects = _objects(labels.loc[_special(labels)])
    known = sum(
        bool(_attributes(point.attributes).keys() - {"hidden"})
        for one in objects.values()
        for point in one.points
    )
    return [
        *shape_losses(dataset, HOLDS, areas=("becomes a polygon", "become polygons")),
        *sentence(
            known,
            ("keypoint of an object", "keypoints of objects"),
            ("loses its attributes", "lose their attributes"),
        ),
        *class_losses(dataset),
    ]


def render_coco(dataset: Dataset) -> dict[str, bytes]:
    """Return the COCO files of ``dataset`` by relative path: ``coco/<split>.json``.

    Train, val and test are always there, if need be empty; a dataset without splits gives
    ``coco/annotations.json``. Category ids are the ontology's; image and annotation ids are
    52 bits of a hash of their content, so they stay the same from version to version and fit
    a double. Equal datasets give equal bytes, whatever the order of their rows.

    Raises:
        DataError: a label's class or image is unknown, or it lies nowhere.
    """
    images = dataset.images.sort_values("image_id", ignore_index=True)
    names = images["image_id"].tolist()
    keys = _content_ids(names, "image")
    rows, entries, points_of = _annotations(dataset, names, keys)
    categories = [
        {"id": one.id, "name": one.name, "supercategory": ""}
        # A reader of points wants both keys in every category.
        | ({"keypoints": points_of.get(one.id, []), "skeleton": []} if points_of else {})
        for one in sorted(dataset.ontology.classes, key=lambda one: one.id)
    ]
    split_of = images["split"].to_numpy(dtype=object)
    columns = [images[name].tolist() for name in ["file_name", "width", "height"]]
    shown = [
        f'{{"id":{key},"file_name":{_compact(name)},"width":{width},"height":{height}}}'
        for key, name, width, height in zip(keys, *columns, strict=True)
    ]
    files = {}
    for split in split_names(images["split"]):
        image_files = [shown[n] for n in np.flatnonzero(split_of == split)]
        found = [entries[n] for n in np.flatnonzero(split_of[rows] == split)]
        files[f"coco/{split or 'annotations'}.json"] = coco_file(
            image_files, found, _compact(categories)
        )
    return files


@dataclass(frozen=True)
class _Row:
    """A label, and its place among all labels."""

    place: int
    class_id: int
    image_id: str
    class_name: str
    shape: str
    geometry: str
    instance: str
    attributes: str
    box: tuple[float, float, float, float]


@dataclass
class _Object:
    """The labels of an image that share an instance."""

    outlines: list[_Row] = field(default_factory=list)
    points: list[_Row] = field(default_factory=list)


@dataclass
class _Said:
    """What annotations say beyond their box, by place: nothing of a plain box."""

    area: dict[int, float] = field(default_factory=dict)
    text: dict[int, str] = field(default_factory=dict)
    content: dict[int, str] = field(default_factory=dict)
    folded: list[int] = field(default_factory=list)
    points_of: dict[int, list[str]] = field(default_factory=dict)
    blank: dict[int, str] = field(default_factory=dict)


def _annotations(
    dataset: Dataset, names: list[str], keys: list[int]
) -> tuple[npt.NDArray[np.intp], list[str], dict[int, list[str]]]:
    """Return, in order, the images' rows, the annotations' texts, and the points of classes."""
    labels, image = _placed(dataset, names)
    said = _said(labels)
    places = np.delete(np.arange(len(labels)), said.folded)
    classes = labels["class_id"].to_numpy()[places]
    x1, y1, x2, y2 = (labels[edge].to_numpy(float)[places] for edge in BOX_COLUMNS)
    # Adding zero turns a rounded -0.0 into 0.0: the two would be written differently.
    sides = np.round(np.stack([x1, y1, x2 - x1, y2 - y1]), _DECIMALS) + 0.0
    if not np.isfinite(sides).all():
        raise DataError("a label lies nowhere: its edges are no numbers. Correct or remove it.")
    content = [said.content.get(place, "") for place in places.tolist()] if said.content else []
    code = np.unique(content, return_inverse=True)[1] if content else np.zeros(len(places), int)
    facts = [image[places], classes, *sides, code]
    order = np.lexsort(facts[::-1])
    facts = [each[order] for each in facts]
    areas = np.round(facts[4] * facts[5], _DECIMALS)
    x, y, w, h, area = (_texts(each) for each in [*facts[2:6], areas])
    row, category = facts[0].tolist(), facts[1].tolist()
    copies = _copies(facts).tolist()
    hashed = [
        f"{names[at]}/{of}/{a}/{b}/{c}/{d}/{copy}"
        for at, of, a, b, c, d, copy in zip(row, category, x, y, w, h, copies, strict=True)
    ]
    if content:
        more = [content[n] for n in order.tolist()]
        hashed = [f"{a}/{b}" if b else a for a, b in zip(hashed, more, strict=True)]
    ids = _content_ids(hashed, "annotation")
    tails = _tails(said, places[order].tolist(), category, area)
    entries = [
        f'{{"id":{key},"image_id":{keys[at]},"category_id":{of},'
        f'"bbox":[{a},{b},{c},{d}],"area":{tail}}}'
        for key, at, of, a, b, c, d, tail in zip(ids, row, category, x, y, w, h, tails, strict=True)
    ]
    return facts[0], entries, said.points_of


def _placed(dataset: Dataset, names: list[str]) -> tuple[pd.DataFrame, npt.NDArray[np.intp]]:
    """Return the regions with their class ids, and of each its image's row."""
    labels = dataset.labels
    is_region = labels["shape"].isin(REGIONS)
    if not is_region.all():
        labels = labels[is_region]
    codes, found = pd.factorize(labels["class_name"])
    known = dataset.ontology.id_of
    ids = [known.get(name) for name in found]
    image = pd.Index(names).get_indexer(pd.Index(labels["image_id"]))
    if None in ids or -1 in codes or (image < 0).any():
        # This says which.
        class_ids(replace(dataset, labels=labels))
    return labels.assign(class_id=np.array([*ids, 0], dtype=np.int64)[codes]), image


def _tails(said: _Said, places: list[int], category: list[int], area: list[str]) -> list[str]:
    """Return the annotations' texts from the area on."""
    plain = ',"iscrowd":0,"segmentation":[]'
    if not said.text and not said.blank:
        return [each + plain for each in area]
    return [
        f"{said.area[place]!r}{said.text[place]}"
        if place in said.text
        else each + plain + said.blank.get(of, "")
        for place, of, each in zip(places, category, area, strict=True)
    ]


def _copies(facts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """Return a running number in each group of equal neighbours: equal boxes are told apart."""
    count = len(facts[0])
    is_first = np.ones(count, dtype=bool)
    if count:
        is_first[1:] = np.logical_or.reduce([each[1:] != each[:-1] for each in facts])
    starts = np.flatnonzero(is_first)
    return np.arange(count) - np.repeat(starts, np.diff(starts, append=count))


def _content_ids(keys: Iterable[str], what: str) -> list[int]:
    sha256 = hashlib.sha256
    digests = b"".join([sha256(key.encode()).digest() for key in keys])
    # Each has four numbers of 64 bits; of the first, the upper 52 bits are taken.
    ids: list[int] = (np.frombuffer(digests, ">u8")[::4] >> 12).tolist()
    if len(set(ids)) != len(ids):
        raise same_id(what)
    return ids


def _special(labels: pd.DataFrame) -> npt.NDArray[np.bool_]:
    plain = {"shape": "box", "instance": "", "attributes": ""}
    differs = [(labels[name] != value).to_numpy(bool) for name, value in plain.items()]
    return np.asarray(np.logical_or.reduce(differs))


def _objects(rows: pd.DataFrame) -> dict[tuple[str, str], _Object]:
    """Return the objects that have points, and an outline to say them with; outlines in order."""
    found: dict[tuple[str, str], _Object] = defaultdict(_Object)
    for row in _rows(rows):
        if row.instance and row.shape in REGIONS:
            one = found[row.image_id, row.instance]
            (one.outlines if row.shape in AREAS else one.points).append(row)
    objects = {key: one for key, one in found.items() if one.outlines and one.points}
    for one in objects.values():
        one.outlines.sort(key=lambda row: (row.class_id, row.shape, row.box, row.geometry))
        one.points.sort(key=lambda row: (row.class_id, row.box, row.attributes))
    return objects


def _rows(rows: pd.DataFrame) -> list[_Row]:
    names = ["image_id", "class_name", "shape", "geometry", "instance", "attributes"]
    ids = rows["class_id"].tolist() if "class_id" in rows else [0] * len(rows)
    places = rows["place"].tolist() if "place" in rows else [0] * len(rows)
    boxes = zip(*(rows[edge].tolist() for edge in BOX_COLUMNS), strict=True)
    columns = [rows[name].tolist() for name in names]
    return [_Row(*values) for values in zip(places, ids, *columns, boxes, strict=True)]


def _said(labels: pd.DataFrame) -> _Said:
    said = _Said()
    chosen = np.flatnonzero(_special(labels))
    if not len(chosen):
        return said
    special = labels.iloc[chosen].assign(place=chosen)
    objects = _objects(special)
    points_at = {one.outlines[0].place: one.points for one in objects.values()}
    said.folded = [point.place for points in points_at.values() for point in points]
    folded = set(said.folded)
    rows = [row for row in _rows(special) if row.place not in folded]
    points = {
        row.place: [row] if row.shape in POINTS else points_at.get(row.place, []) for row in rows
    }
    layout = _layout(rows, points)
    said.points_of = {key: [name for _, name in slots] for key, slots in layout.items()}
    if layout:
        said.blank = {
            key: _points_text(layout.get(key, []), [])
            for key in {*labels["class_id"].tolist(), *layout}
        }
    for row in rows:
        _say(said, row, points[row.place], layout)
    return said


def _layout(rows: list[_Row], points: dict[int, list[_Row]]) -> dict[int, list[tuple[int, str]]]:
    """Return for each class with points which classes they have, one as often as need be."""
    most: dict[int, Counter[tuple[int, str]]] = defaultdict(Counter)
    for row in rows:
        if points[row.place]:
            most[row.class_id] |= Counter(
                (one.class_id, one.class_name) for one in points[row.place]
            )
    return {key: sorted(counted.elements()) for key, counted in most.items()}


def _say(
    said: _Said, row: _Row, points: list[_Row], layout: dict[int, list[tuple[int, str]]]
) -> None:
    attributes = _attributes(row.attributes)
    crowd = 1 if attributes.pop("crowd", 0) else 0
    if row.shape in POINTS:
        attributes.pop("hidden", None)
    said.area[row.place], segmentation = _segmentation(row)
    text = f',"iscrowd":{crowd},"segmentation":{segmentation}'
    if row.shape in _BY_NUMBERS:
        text += f',"{row.shape}":{_compact(json.loads(row.geometry))}'
    if layout:
        text += _points_text(layout.get(row.class_id, []), points)
    if row.instance:
        text += f',"instance":{_compact(row.instance)}'
    if attributes:
        text += f',"attributes":{_compact(attributes)}'
    said.text[row.place] = text
    facts = [row.shape, row.geometry, row.instance, row.attributes]
    drawn = [[one.class_id, *one.box[:2], one.attributes] for one in points]
    said.content[row.place] = _compact([*facts, drawn])


def _segmentation(row: _Row) -> tuple[float, str]:
    """Return the area in square pixels and the segmentation as text."""
    shape = SHAPES[row.shape]
    if shape.is_upright_box or row.shape in POINTS:
        x1, y1, x2, y2 = row.box
        return round((x2 - x1) * (y2 - y1), _DECIMALS), "[]"
    values = json.loads(row.geometry)
    if shape.is_raster:
        return float(counts_from_text(values["counts"])[1::2].sum()), _compact(values)
    if row.shape in _BY_NUMBERS:
        corners = np.round(_outlines(row)[0], _DECIMALS) + 0.0
        return round(values[2] * values[3], _DECIMALS), _compact([corners.tolist()])
    outlines = _outlines(row)
    return round(sum(map(_enclosed, outlines)), _DECIMALS), _compact(outlines)


def _outlines(row: _Row) -> list[list[float]]:
    return outlines_of(Label(row.shape, row.class_name, row.geometry, *row.box))


def _enclosed(outline: list[float]) -> float:
    x, y = np.reshape(outline, (-1, 2)).T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2


def _points_text(slots: list[tuple[int, str]], points: list[_Row]) -> str:
    waiting = defaultdict(list)
    for point in points:
        waiting[point.class_id].append(point)
    numbers: list[float] = []
    for class_id, _ in slots:
        if waiting[class_id]:
            point = waiting[class_id].pop(0)
            x, y = json.loads(point.geometry)
            is_hidden = _attributes(point.attributes).get("hidden")
            numbers += [x, y, _HIDDEN if is_hidden else _VISIBLE]
        else:
            numbers += [0, 0, 0]
    return f',"keypoints":{_compact(numbers)},"num_keypoints":{len(points)}'


def _attributes(text: str) -> dict[str, Any]:
    return dict(json.loads(text)) if text else {}


def _texts(numbers: npt.NDArray[np.float64]) -> list[str]:
    """Return each number as ``repr`` writes it."""
    sizes = np.abs(numbers)
    if len(numbers) and ((sizes == 0) | ((sizes >= 1e-4) & (sizes < 1e16))).all():
        # Five times as fast, and the same but for exponents.
        return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY).decode()[1:-1].split(",")
    return list(map(repr, numbers.tolist()))


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
