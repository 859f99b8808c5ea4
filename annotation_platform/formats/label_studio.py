"""Label Studio's JSON: tasks with their annotations, regions in percent of the image.

Reading loses who answered, predictions, drafts, texts, ratings and relations, and which question a
choice answers; a region that is nothing usable takes the whole image with it, because without it
the rest would say another thing. An annotation's points that are under another region are of one
object with it, as the writer puts them.

Writing loses attributes, that several outlines are one object, and all of the ontology but the
names of classes that are used; images are named by file only. Regions are in percent, which
moves a place by less than a millionth of a pixel. A task's data say split and size, too.
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from annotation_platform.consensus.overlap import labels_of
from annotation_platform.errors import DataError
from annotation_platform.formats.files import class_ids, write_files
from annotation_platform.formats.label_studio_reading import (
    LabelStudioReading,
    image_path,
    read_label_studio,
)
from annotation_platform.formats.losses import (
    LEFT_OUT,
    attribute_losses,
    class_losses,
    object_losses,
    sentence,
    shape_losses,
)
from annotation_platform.labeling.backends.label_studio.region_codecs import CODECS
from annotation_platform.labeling.backends.label_studio.results import write_result
from annotation_platform.schema.dataset import IMAGE_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import AREAS, POINTS, Label

__all__ = [
    "LabelStudioReading",
    "image_path",
    "label_studio_losses",
    "read_label_studio",
    "render_label_studio",
    "write_label_studio",
]

LABEL_STUDIO_FILE = "label_studio.json"

HOLDS = CODECS.keys()
"""The shapes of this format; labels of others are left out."""


def write_label_studio(dataset: Dataset, folder: Path, *, prefix: str = "") -> None:
    """Write ``label_studio.json`` under ``folder``; see ``render_label_studio``."""
    write_files(render_label_studio(dataset, prefix=prefix), folder)


def render_label_studio(dataset: Dataset, *, prefix: str = "") -> dict[str, bytes]:
    """Return ``label_studio.json``: a task for each image, by image id, with one annotation.

    Label Studio imports it, and its converter reads it; controls are called as the platform's
    interface calls them. Tasks and annotations are numbered from 1. Equal datasets give equal
    bytes, whatever the order of their rows.

    Args:
        dataset: What is written; an image's size must be known where it has labels.
        prefix: Put before each file name, e.g. ``/data/local-files/?d=`` or ``s3://bucket/``.

    Raises:
        DataError: a label's class or image is unknown, or its image's size.
    """
    class_ids(dataset)
    drawn = _by_image(dataset.labels)
    images = dataset.images.sort_values("image_id")
    columns = [images[name].tolist() for name in IMAGE_COLUMNS]
    tasks = [
        {
            "id": number,
            "data": _task_data(prefix + file_name, split, width, height),
            "annotations": [
                {
                    "id": number,
                    "was_cancelled": False,
                    "result": _result(drawn.get(image_id, []), image_id, width, height),
                }
            ],
        }
        for number, (image_id, file_name, split, width, height) in enumerate(
            zip(*columns, strict=True), start=1
        )
    ]
    text = ",\n".join(json.dumps(task, ensure_ascii=False) for task in tasks)
    return {LABEL_STUDIO_FILE: f"[\n{text}\n]\n".encode()}


def label_studio_losses(dataset: Dataset) -> list[str]:
    """Return one sentence for each kind of thing that Label Studio's JSON of ``dataset`` lacks."""
    labels = dataset.labels
    points = labels[labels["shape"].isin(POINTS)]
    hidden = int((points["attributes"] != "").sum())
    unused = len(set(dataset.ontology.names) - set(labels["class_name"]))
    # Its classes are counted from 0 by name when they are read.
    used = sorted(set(labels["class_name"]))
    moved = sum(dataset.ontology.id_of.get(name) != number for number, name in enumerate(used))
    return [
        *shape_losses(dataset, HOLDS, areas=LEFT_OUT),
        *attribute_losses(dataset),
        *sentence(
            hidden,
            ("keypoint", "keypoints"),
            ("loses its attributes", "lose their attributes"),
        ),
        *object_losses(dataset),
        *sentence(unused, ("class without a label", "classes without a label"), LEFT_OUT),
        *sentence(moved, ("class", "classes"), ("gets another id", "get other ids")),
        *class_losses(dataset),
    ]


def _task_data(address: str, split: str, width: int, height: int) -> dict[str, Any]:
    size = {"width": width, "height": height} if width and height else {}
    return {"image": address, **({"split": split} if split else {}), **size}


def _by_image(labels: pd.DataFrame) -> dict[str, list[tuple[Label, str]]]:
    """Return the labels of each image with their instances, in an order that is theirs alone."""
    kept = labels[labels["shape"].isin(HOLDS)]
    kept = kept.sort_values(
        ["image_id", "shape", "class_name", *BOX_COLUMNS, "geometry", "instance"]
    )
    found: dict[str, list[tuple[Label, str]]] = {}
    keys = zip(kept["image_id"].tolist(), kept["instance"].tolist(), strict=True)
    for label, (image_id, instance) in zip(labels_of(kept), keys, strict=True):
        found.setdefault(image_id, []).append((label, instance))
    return found


def _result(
    drawn: list[tuple[Label, str]], image_id: str, width: int, height: int
) -> list[dict[str, Any]]:
    """Return the regions of one image; points of an object are under its first outline."""
    if not drawn:
        return []
    try:
        regions = write_result([label for label, _ in drawn], width, height)
    except ValueError as error:
        raise DataError(f"image {image_id}: {error}. Correct its size or its labels.") from error
    by_key = {region["id"]: region for region in regions}
    outline_of: dict[str, str] = {}
    keys = [f"{label.shape.replace('_', '-')}-{place}" for place, (label, _) in enumerate(drawn)]
    for key, (label, instance) in zip(keys, drawn, strict=True):
        if instance and label.shape in AREAS:
            outline_of.setdefault(instance, key)
    for key, (label, instance) in zip(keys, drawn, strict=True):
        if label.shape in POINTS and instance in outline_of:
            by_key[key]["parentID"] = outline_of[instance]
    return regions
