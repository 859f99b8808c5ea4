"""Label Studio's JSON: tasks with their annotations, regions in percent of the image.

Reading loses annotators, predictions, drafts, texts, ratings and relations, and the control that a
choice belongs to. A region that cannot be used excludes its whole image, because the remaining
regions would be an incomplete annotation. Keypoints whose parent is another region belong to the
same object as that region; writing produces the same structure.

Writing loses attributes, the grouping of several outlines into one object, and the ontology except
the names of used classes; images are identified by file name only. Conversion to percent moves a
coordinate by less than a millionth of a pixel. A task's data also contain split and size.
"""

import json
from typing import Any

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.formats.files import class_ids
from annotation_platform.formats.label_studio.region_codecs import CODECS
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.formats.losses import (
    LEFT_OUT,
    attribute_losses,
    class_losses,
    object_losses,
    sentence,
    shape_losses,
)
from annotation_platform.schema.dataset import IMAGE_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import AREAS, POINTS, Label
from annotation_platform.schema.shapes.overlap import labels_of

LABEL_STUDIO_FILE = "label_studio.json"

HOLDS = CODECS.keys()
"""Shapes that this format holds; labels of other shapes are left out."""


def render_label_studio(dataset: Dataset, *, prefix: str = "") -> dict[str, bytes]:
    """Return ``label_studio.json``: a task for each image, by image id, with one annotation.

    Label Studio imports the file and its converter reads it. Controls have the names of the
    platform's labelling interface. Tasks and annotations are numbered from 1. Equal datasets give
    equal bytes, regardless of the order of their rows.

    Args:
        dataset: The dataset to write; the size of an image with labels must be known.
        prefix: Prefix of each file name, e.g. ``/data/local-files/?d=`` or ``s3://bucket/``.

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
    """Return one sentence with a count for each kind of content that the JSON cannot hold."""
    labels = dataset.labels
    points = labels[labels["shape"].isin(POINTS)]
    hidden = int((points["attributes"] != "").sum())
    unused = len(set(dataset.ontology.names) - set(labels["class_name"]))
    # Reading numbers the classes from 0 by name.
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
    """Return the labels of each image with their instances, independent of the order of rows."""
    held = labels[labels["shape"].isin(HOLDS)]
    held = held.sort_values(
        ["image_id", "shape", "class_name", *BOX_COLUMNS, "geometry", "instance"]
    )
    found: dict[str, list[tuple[Label, str]]] = {}
    keys = zip(held["image_id"].tolist(), held["instance"].tolist(), strict=True)
    for label, (image_id, instance) in zip(labels_of(held), keys, strict=True):
        found.setdefault(image_id, []).append((label, instance))
    return found


def _result(
    drawn: list[tuple[Label, str]], image_id: str, width: int, height: int
) -> list[dict[str, Any]]:
    """Return the regions of one image; the parent of an object's keypoints is its first outline."""
    if not drawn:
        return []
    try:
        regions = write_result([label for label, _ in drawn], width, height)
    except ValueError as error:
        raise DataError(f"image {image_id}: {error}. Correct its size or its labels.") from error
    by_key = {region["id"]: region for region in regions}
    outline_of: dict[str, str] = {}
    keys = [f"{label.shape.replace('_', '-')}-{index}" for index, (label, _) in enumerate(drawn)]
    for key, (label, instance) in zip(keys, drawn, strict=True):
        if instance and label.shape in AREAS:
            outline_of.setdefault(instance, key)
    for key, (label, instance) in zip(keys, drawn, strict=True):
        if label.shape in POINTS and instance in outline_of:
            by_key[key]["parentID"] = outline_of[instance]
    return regions
