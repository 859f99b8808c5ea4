"""Hugging Face imagefolder: one folder of images per split, each with a metadata file.

``<split>/metadata.jsonl`` has one line per image: ``file_name``, relative to its folder, and
``objects`` with three lists of one entry per box: ``bbox`` (``x y width height`` in pixels, as in
COCO), ``categories`` (class names) and ``ids`` (class ids of the ontology). It also has
``image_id``, ``width`` and ``height``, and ``choices`` (class names) if the dataset has any.

A dataset in which each image has one choice, and no other label, can be written as class folders
instead: ``<split>/<class>/<image>``, without metadata. Without splits, the folder itself takes the
role of the split's folder. ``ontology.json`` in the folder holds the complete ontology; other
readers ignore it.

Writing loses (``imagefolder_losses`` counts it) the geometry of shapes other than upright boxes,
keypoints, the grouping of labels into objects and all attributes. Reading metadata
(``imagefolder_reading.py``) ignores keys that are not listed here, and accepts numbers as
categories; ``metadata.csv`` is not read.
"""

import json
from pathlib import PurePosixPath

import numpy as np

from annotation_platform.errors import DataError
from annotation_platform.formats.csv_jsonl import render_ontology
from annotation_platform.formats.files import (
    check_image_ids,
    check_split_names,
    class_ids,
    is_plain_name,
)
from annotation_platform.formats.imagefolder_reading import METADATA, read_imagefolder
from annotation_platform.formats.losses import (
    attribute_losses,
    object_losses,
    sentence,
    shape_losses,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import CLASSIFICATIONS

__all__ = [
    "METADATA",
    "imagefolder_losses",
    "imagefolder_paths",
    "is_one_choice",
    "read_imagefolder",
    "render_imagefolder",
]

_DECIMALS = 6
HOLDS = frozenset({"box", "choice"})
"""Shapes that this format holds; other areas become their enclosing boxes."""


def render_imagefolder(dataset: Dataset, *, class_folders: bool = False) -> dict[str, bytes]:
    """Return the metadata of each split and ``ontology.json``, by relative path.

    ``imagefolder_paths`` gives the locations of the images. Equal datasets give equal bytes,
    regardless of the order of their rows.

    Args:
        dataset: The dataset to write; images need file names, of which the extension is used.
        class_folders: Whether images are in class folders, which replace metadata.

    Raises:
        DataError: a class or its image is unknown; an image has no file name; with class folders,
            an image does not have exactly one choice, or a class is not a folder name.
    """
    class_ids(dataset)
    locations = imagefolder_paths(dataset, class_folders=class_folders)
    if class_folders:
        return render_ontology(dataset)
    boxes, choices = _boxes(dataset), _choices(dataset)
    lines: dict[str, list[str]] = {}
    images = dataset.images
    columns = [images[name].tolist() for name in ("image_id", "split", "width", "height")]
    for image_id, split, width, height, location in sorted(zip(*columns, locations, strict=True)):
        found = boxes.get(image_id, [])
        entry = {
            "file_name": location.removeprefix(f"{split}/") if split else location,
            "image_id": image_id,
            "width": int(width),
            "height": int(height),
            "objects": {
                "bbox": [box for _, _, box in found],
                "categories": [name for name, _, _ in found],
                "ids": [class_id for _, class_id, _ in found],
            },
            # All rows of a table have the same columns.
            **({"choices": choices.get(image_id, [])} if choices else {}),
        }
        path = f"{split}/{METADATA}" if split else METADATA
        lines.setdefault(path, []).append(json.dumps(entry, ensure_ascii=False) + "\n")
    files = {path: "".join(several).encode() for path, several in sorted(lines.items())}
    return {**files, **render_ontology(dataset)}


def imagefolder_paths(dataset: Dataset, *, class_folders: bool = False) -> list[str]:
    """Return the location of each image, relative to the folder, in the order of ``images``.

    Raises:
        DataError: see ``render_imagefolder``.
    """
    check_image_ids(dataset)
    check_split_names(dataset)
    folder_of: dict[str, str] = {}
    if class_folders:
        if not is_one_choice(dataset):
            raise DataError(
                "class folders hold one choice per image, of a class that is a folder name, and no "
                "other label. Write metadata instead."
            )
        labels = dataset.labels
        folder_of = dict(zip(labels["image_id"], labels["class_name"] + "/", strict=True))
    locations = []
    columns = (dataset.images[name].tolist() for name in ("image_id", "file_name", "split"))
    for image_id, file_name, split in zip(*columns, strict=True):
        suffix = PurePosixPath(file_name).suffix
        if not suffix:
            raise DataError(
                f"image {image_id} has no file name with an extension, by which an imagefolder "
                "recognises images. Read the dataset together with its images."
            )
        start = f"{split}/" if split else ""
        locations.append(f"{start}{folder_of.get(image_id, '')}{image_id}{suffix}")
    return locations


def is_one_choice(dataset: Dataset) -> bool:
    """Return whether class folders can hold the complete dataset.

    They can if each image has one choice, whose class can be a folder name, and no other label;
    all images have a split, or none has; and split names cannot be confused with class names.
    """
    labels = dataset.labels
    splits = set(dataset.images["split"])
    return (
        (splits == {""} or not ("" in splits or splits <= set(dataset.ontology.names)))
        and len(labels) > 0
        and bool(labels["shape"].isin(CLASSIFICATIONS).all())
        and not labels["image_id"].duplicated().any()
        and set(labels["image_id"]) == set(dataset.images["image_id"])
        and all(is_plain_name(name) and name.strip() == name for name in labels["class_name"])
    )


def imagefolder_losses(dataset: Dataset) -> list[str]:
    """Return one sentence with a count for each kind of content that writing loses or changes."""
    choices = dataset.labels[dataset.labels["shape"].isin(CLASSIFICATIONS)]
    described = int(((choices["attributes"] != "") | (choices["instance"] != "")).sum())
    verb = ("loses its attributes", "lose their attributes")
    return [
        *shape_losses(dataset, HOLDS),
        *attribute_losses(dataset),
        *sentence(described, ("choice", "choices"), verb),
        *object_losses(dataset),
    ]


def _boxes(dataset: Dataset) -> dict[str, list[tuple[str, int, list[float]]]]:
    labels = dataset.boxes().labels
    edges = labels[BOX_COLUMNS].to_numpy(dtype=np.float64)
    if not np.isfinite(edges).all():
        raise DataError(
            "a box has no position: its edges are not finite numbers. Correct or remove it."
        )
    # Adding zero turns a rounded -0.0 into 0.0: the two would be written differently.
    sides = np.round(np.hstack([edges[:, :2], edges[:, 2:] - edges[:, :2]]), _DECIMALS) + 0.0
    ids = labels["class_name"].map(dataset.ontology.id_of).tolist()
    rows = zip(labels["image_id"], labels["class_name"], ids, sides.tolist(), strict=True)
    boxes: dict[str, list[tuple[str, int, list[float]]]] = {}
    for image_id, *box in sorted(rows):
        boxes.setdefault(image_id, []).append((box[0], int(box[1]), box[2]))
    return boxes


def _choices(dataset: Dataset) -> dict[str, list[str]]:
    labels = dataset.labels[dataset.labels["shape"].isin(CLASSIFICATIONS)]
    choices: dict[str, list[str]] = {}
    for image_id, name in sorted(zip(labels["image_id"], labels["class_name"], strict=True)):
        choices.setdefault(image_id, []).append(name)
    return choices
