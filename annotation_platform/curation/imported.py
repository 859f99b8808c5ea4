"""Imported labels: the labels that images landed with, made upright and checked."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import read_orientation
from annotation_platform.ingestion.sidecars import SidecarLabels, read_sidecar
from annotation_platform.schema.geometry import Boxes, as_boxes, box_areas, clip_boxes
from annotation_platform.schema.keys import raw_key, sidecar_key
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING, Label
from annotation_platform.schema.tables import (
    CleanedImages,
    Frame,
    ImportedLabels,
    RawImages,
    records,
)
from annotation_platform.storage.objects import ObjectStore

PEOPLE = "people"
"""The origin of labels annotated on this platform; imported labels never have it."""

_ONE_OBJECT = ["round_id", "source_key", "arrival_version"]
_CLIPPED_PIXELS = 1.0
_SHOWN_CLASSES = 12
_LONGEST_ORIGIN = 200


@dataclass(frozen=True)
class ImportedRound:
    """The imported labels of a round, and how many images with labels were not accepted."""

    labels: Frame[ImportedLabels]
    unused: int


def imported_labels(
    cleaned: pd.DataFrame, raw: pd.DataFrame, store: ObjectStore, ontology: Ontology
) -> ImportedRound:
    """Return the labels that the accepted images of a round landed with.

    Labels made on an image of the stored size do not change. Labels made on the image before it was
    turned upright (width and height swapped) are turned with it. All labels of an image are refused
    together, with the reason in each row, because a part of them would be a different annotation.
    They are refused if the ontology lacks the class of one of them, if one has no area or extends
    more than a pixel outside the image (less is clipped), or if they were made on an image of
    another size.

    An image that landed with labels but no box keeps one row with ``shape`` = ``none``.

    Args:
        cleaned: the round's ``cleaned_images``.
        raw: the round's ``raw_images``.
        store: the lake, with the landed bytes and sidecars in it.
        ontology: the permitted classes.
    """
    sidecars = raw[[*_ONE_OBJECT, RawImages.sidecar_sha256]]
    images = cleaned.merge(sidecars, on=_ONE_OBJECT, how="inner")
    images = images[images[RawImages.sidecar_sha256].notna()].sort_values(CleanedImages.image_id)
    rows: list[dict[str, object]] = []
    unused = 0
    for image in records(images):
        try:
            labels = read_sidecar(store.get(sidecar_key(str(image["sidecar_sha256"])))).labels
            problem = ""
        except DataError as error:
            labels, problem = SidecarLabels("", 0, 0, ()), f"bad metadata: {error}"
        if labels is None:
            continue
        if image["outcome"] != "accepted":
            unused += not problem
            continue
        rows += _rows(image, labels, problem, store, ontology)
    return ImportedRound(ImportedLabels.from_rows(rows), unused)


def turned_upright(boxes: Boxes, orientation: int, *, width: float, height: float) -> Boxes:
    """Return boxes in the upright image, with EXIF's ``orientation``, 1 to 8, undone.

    Args:
        boxes: ``(N, 4)``, in pixels of the image as it is coded.
        orientation: the value that ``decode_image`` undoes.
        width: of the upright image.
        height: of the upright image.
    """
    edges = boxes[:, [1, 0, 3, 2]] if orientation >= 5 else boxes.copy()
    if orientation in {2, 3, 6, 7}:
        edges[:, [0, 2]] = width - edges[:, [2, 0]]
    if orientation in {3, 4, 7, 8}:
        edges[:, [1, 3]] = height - edges[:, [3, 1]]
    return edges


def _rows(
    image: dict[str, object],
    labels: SidecarLabels,
    problem: str,
    store: ObjectStore,
    ontology: Ontology,
) -> list[dict[str, object]]:
    image_id, names = str(image["image_id"]), [box.class_name for box in labels.boxes]
    boxes = as_boxes([[box.x1, box.y1, box.x2, box.y2] for box in labels.boxes])
    width, height = int(str(image["width"])), int(str(image["height"]))
    if not problem:
        boxes, problem = _on_stored(boxes, labels, image_id, (width, height), store)
    if not problem:
        problem = _unusable(names, boxes, (width, height), ontology)
    if not problem:
        boxes = clip_boxes(boxes, width=width, height=height)
    same = {
        "round_id": image["round_id"],
        "image_id": image_id,
        "origin": _origin(labels.origin),
        "problem": problem,
    }
    if not names:
        return [{**same, "label_id": f"{image_id}:none", **vars(NOTHING)}]
    return [
        {**same, "label_id": f"{image_id}:{number:04d}", **vars(Label.box(name, *box))}
        for number, (name, box) in enumerate(zip(names, boxes.tolist(), strict=True))
    ]


def _on_stored(
    boxes: Boxes, labels: SidecarLabels, image_id: str, stored: tuple[int, int], store: ObjectStore
) -> tuple[Boxes, str]:
    """Return the boxes in pixels of the stored image, and the problem if that is impossible."""
    made_on = (labels.width, labels.height)
    if made_on == stored:
        return boxes, ""
    if made_on == stored[::-1]:
        orientation = read_orientation(store.get(raw_key(image_id)))
        if orientation >= 5:
            return turned_upright(boxes, orientation, width=stored[0], height=stored[1]), ""
    theirs, ours = (f"{width} × {height}" for width, height in (made_on, stored))
    return boxes, f"made on an image of {theirs} pixels, this one has {ours}"


def _unusable(names: Sequence[str], boxes: Boxes, size: tuple[int, int], ontology: Ontology) -> str:
    for number, name in enumerate(names):
        if name not in ontology.names:
            known = ", ".join(ontology.names[:_SHOWN_CLASSES])
            return f"box {number}: class {name!r:.80} is not in the ontology ({known})"
    inside = clip_boxes(boxes, width=size[0], height=size[1])
    outside = np.abs(boxes - inside).max(axis=1, initial=0.0)
    areas = np.minimum(box_areas(boxes), box_areas(inside))
    for number, (name, pixels, area) in enumerate(zip(names, outside, areas, strict=True)):
        if pixels > _CLIPPED_PIXELS:
            return f"box {number} ({name}) reaches {pixels:g} pixels outside the image"
        if area <= 0:
            return f"box {number} ({name}) has no area"
    return ""


def _origin(text: str) -> str:
    # One short line: it is shown in tables.
    origin = " ".join(text.split())[:_LONGEST_ORIGIN]
    if origin in {"", PEOPLE}:
        return f"sidecar:{origin}" if origin else "sidecar"
    return origin
