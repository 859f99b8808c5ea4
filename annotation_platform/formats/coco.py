"""COCO files: one JSON per split; boxes as ``x y width height``, outlines, run lengths, points.

A label is an annotation. The points of an object are in the annotation of its outline, in the
order of ``categories[].keypoints``; a point without an outline is an annotation without extent.
Three keys are specific to this platform, and other readers ignore them: ``rotated_box``, the five
numbers of a rotated box, which other readers see as a polygon; ``instance``, the name of an object;
and ``attributes``, as datumaro and CVAT write them.

Writing loses choices, attributes of a single point except ``hidden``, and the ontology's colours,
shapes, guidelines and order (classes come back ordered by id). Images are identified by file name
only. Reading (``coco_reading.py``) loses captions, panoptic segments, skeletons, supercategories
and scores, and computes the box of an outline instead of using the ``bbox`` given with it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.formats.coco_extras import (
    DECIMALS,
    Extras,
    attributes_of,
    compact,
    extras_of,
    objects_with_points,
    special_labels,
)
from annotation_platform.formats.coco_lines import coco_file, same_id
from annotation_platform.formats.coco_reading import read_coco, read_coco_boxes
from annotation_platform.formats.files import class_ids, split_names
from annotation_platform.formats.losses import class_losses, sentence, shape_losses
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import REGIONS

__all__ = ["coco_losses", "read_coco", "read_coco_boxes", "render_coco"]

HOLDS = frozenset({"box", "rotated_box", "polygon", "mask", "keypoint"})
"""Shapes that this format holds; other areas are written as polygons."""


def coco_losses(dataset: Dataset) -> list[str]:
    """Return one sentence with a count for each kind of content that COCO files cannot hold."""
    labels = dataset.labels
    objects = objects_with_points(labels.loc[special_labels(labels)])
    known = sum(
        bool(attributes_of(point.attributes).keys() - {"hidden"})
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

    Train, val and test are always present, even if empty; a dataset without splits gives
    ``coco/annotations.json``. Category ids are the ontology's; image and annotation ids are
    52 bits of a hash of their content, so they stay the same from version to version and fit
    a double. Equal datasets give equal bytes, regardless of the order of their rows.

    Raises:
        DataError: a label's class or image is unknown, or a label has no position.
    """
    images = dataset.images.sort_values("image_id", ignore_index=True)
    names = images["image_id"].tolist()
    keys = _content_ids(names, "image")
    rows, entries, points_of = _annotations(dataset, names, keys)
    categories = [
        {"id": one.id, "name": one.name, "supercategory": ""}
        # Readers of keypoints require both keys in every category.
        | ({"keypoints": points_of.get(one.id, []), "skeleton": []} if points_of else {})
        for one in sorted(dataset.ontology.classes, key=lambda one: one.id)
    ]
    split_of = images["split"].to_numpy(dtype=object)
    columns = [images[name].tolist() for name in ["file_name", "width", "height"]]
    shown = [
        f'{{"id":{key},"file_name":{compact(name)},"width":{width},"height":{height}}}'
        for key, name, width, height in zip(keys, *columns, strict=True)
    ]
    files = {}
    for split in split_names(images["split"]):
        image_files = [shown[n] for n in np.flatnonzero(split_of == split)]
        found = [entries[n] for n in np.flatnonzero(split_of[rows] == split)]
        files[f"coco/{split or 'annotations'}.json"] = coco_file(
            image_files, found, compact(categories)
        )
    return files


def _annotations(
    dataset: Dataset, names: list[str], keys: list[int]
) -> tuple[npt.NDArray[np.intp], list[str], dict[int, list[str]]]:
    """Return, in writing order, each annotation's image row and JSON text; and keypoint names."""
    labels, image = _regions(dataset, names)
    extras = extras_of(labels)
    positions = np.delete(np.arange(len(labels)), extras.folded)
    classes = labels["class_id"].to_numpy()[positions]
    x1, y1, x2, y2 = (labels[edge].to_numpy(float)[positions] for edge in BOX_COLUMNS)
    # Adding zero turns a rounded -0.0 into 0.0: the two would be written differently.
    sides = np.round(np.stack([x1, y1, x2 - x1, y2 - y1]), DECIMALS) + 0.0
    if not np.isfinite(sides).all():
        raise DataError(
            "a label has no position: its edges are not finite numbers. Correct or remove it."
        )
    content = (
        [extras.content.get(position, "") for position in positions.tolist()]
        if extras.content
        else []
    )
    code = np.unique(content, return_inverse=True)[1] if content else np.zeros(len(positions), int)
    facts = [image[positions], classes, *sides, code]
    order = np.lexsort(facts[::-1])
    facts = [each[order] for each in facts]
    areas = np.round(facts[4] * facts[5], DECIMALS)
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
    tails = _tails(extras, positions[order].tolist(), category, area)
    entries = [
        f'{{"id":{key},"image_id":{keys[at]},"category_id":{of},'
        f'"bbox":[{a},{b},{c},{d}],"area":{tail}}}'
        for key, at, of, a, b, c, d, tail in zip(ids, row, category, x, y, w, h, tails, strict=True)
    ]
    return facts[0], entries, extras.points_of


def _regions(dataset: Dataset, names: list[str]) -> tuple[pd.DataFrame, npt.NDArray[np.intp]]:
    """Return the labels that are regions, with their class ids, and each one's image row."""
    labels = dataset.labels
    is_region = labels["shape"].isin(REGIONS)
    if not is_region.all():
        labels = labels[is_region]
    codes, found = pd.factorize(labels["class_name"])
    known = dataset.ontology.id_of
    ids = [known.get(name) for name in found]
    image = pd.Index(names).get_indexer(pd.Index(labels["image_id"]))
    if None in ids or -1 in codes or (image < 0).any():
        # Raises an error that names the label.
        class_ids(replace(dataset, labels=labels))
    return labels.assign(class_id=np.array([*ids, 0], dtype=np.int64)[codes]), image


def _tails(extras: Extras, positions: list[int], category: list[int], area: list[str]) -> list[str]:
    """Return the JSON text of each annotation, from the area on."""
    plain = ',"iscrowd":0,"segmentation":[]'
    if not extras.text and not extras.blank:
        return [each + plain for each in area]
    return [
        f"{extras.area[position]!r}{extras.text[position]}"
        if position in extras.text
        else each + plain + extras.blank.get(of, "")
        for position, of, each in zip(positions, category, area, strict=True)
    ]


def _copies(facts: list[npt.NDArray[Any]]) -> npt.NDArray[np.int64]:
    """Return a running number in each group of equal neighbours, to distinguish equal boxes."""
    count = len(facts[0])
    is_first = np.ones(count, dtype=bool)
    if count:
        is_first[1:] = np.logical_or.reduce([each[1:] != each[:-1] for each in facts])
    starts = np.flatnonzero(is_first)
    return np.arange(count) - np.repeat(starts, np.diff(starts, append=count))


def _content_ids(keys: Iterable[str], noun: str) -> list[int]:
    sha256 = hashlib.sha256
    digests = b"".join([sha256(key.encode()).digest() for key in keys])
    # A digest is four numbers of 64 bits; the id is the upper 52 bits of the first.
    ids: list[int] = (np.frombuffer(digests, ">u8")[::4] >> 12).tolist()
    if len(set(ids)) != len(ids):
        raise same_id(noun)
    return ids


def _texts(numbers: npt.NDArray[np.float64]) -> list[str]:
    """Return each number as ``repr`` formats it."""
    sizes = np.abs(numbers)
    if len(numbers) and ((sizes == 0) | ((sizes >= 1e-4) & (sizes < 1e16))).all():
        # orjson is five times as fast and differs from repr in exponents only.
        return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY).decode()[1:-1].split(",")
    return list(map(repr, numbers.tolist()))
