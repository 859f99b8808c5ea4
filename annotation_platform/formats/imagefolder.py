"""Hugging Face imagefolder: images in a folder for each split, and what is said of them beside.

``<split>/metadata.jsonl`` has a line for each image: ``file_name``, relative to its folder, and
``objects`` with three lists as long as there are boxes: ``bbox`` (``x y width height`` in pixels,
as in COCO), ``categories`` (class names) and ``ids`` (their ids in the ontology). Besides,
``image_id``, ``width`` and ``height``, and ``choices`` (class names) where a data set has any.

A data set in which each image has one choice, and nothing else, may be written as class folders
instead: ``<split>/<class>/<image>``, and no metadata. Without splits, all this lies in the folder
itself. ``ontology.json`` there keeps everything about the classes; other readers pass it over.

Writing loses (``imagefolder_losses`` counts it) the geometry of what is no upright box, keypoints,
what joins labels to objects and all attributes. Reading metadata passes over keys that are not
named here, and takes numbers as categories, too; ``metadata.csv`` is not read.
"""

import json
from pathlib import Path, PurePosixPath

import numpy as np

from annotation_platform.errors import DataError
from annotation_platform.formats.csv_jsonl import render_ontology
from annotation_platform.formats.files import (
    check_image_ids,
    check_split_names,
    class_ids,
    is_plain_name,
    write_files,
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
    "imagefolder_places",
    "is_one_choice",
    "read_imagefolder",
    "render_imagefolder",
    "write_imagefolder",
]

_DECIMALS = 6
HOLDS = frozenset({"box", "choice"})
"""The shapes of this format; other areas become their enclosing boxes."""


def write_imagefolder(dataset: Dataset, folder: Path, *, class_folders: bool = False) -> None:
    """Write the files of ``render_imagefolder``; images are the caller's to place."""
    write_files(render_imagefolder(dataset, class_folders=class_folders), folder)


def render_imagefolder(dataset: Dataset, *, class_folders: bool = False) -> dict[str, bytes]:
    """Return the metadata of each split and ``ontology.json``, by relative path.

    Images belong where ``imagefolder_places`` says. Equal datasets give equal bytes, whatever
    the order of their rows.

    Args:
        dataset: What is written; images need file names, of which the extension is used.
        class_folders: Whether images are put into class folders, which say everything.

    Raises:
        DataError: a class or its image is unknown; an image has no file name; images have more
            than a choice each, or a class is no name of a folder, where there are class folders.
    """
    class_ids(dataset)
    places = imagefolder_places(dataset, class_folders=class_folders)
    if class_folders:
        return render_ontology(dataset)
    boxes, choices = _boxes(dataset), _choices(dataset)
    lines: dict[str, list[str]] = {}
    images = dataset.images
    columns = [images[name].tolist() for name in ("image_id", "split", "width", "height")]
    for image_id, split, width, height, place in sorted(zip(*columns, places, strict=True)):
        found = boxes.get(image_id, [])
        entry = {
            "file_name": place.removeprefix(f"{split}/") if split else place,
            "image_id": image_id,
            "width": int(width),
            "height": int(height),
            "objects": {
                "bbox": [box for _, _, box in found],
                "categories": [name for name, _, _ in found],
                "ids": [class_id for _, class_id, _ in found],
            },
            # A table has the same columns in each of its rows.
            **({"choices": choices.get(image_id, [])} if choices else {}),
        }
        path = f"{split}/{METADATA}" if split else METADATA
        lines.setdefault(path, []).append(json.dumps(entry, ensure_ascii=False) + "\n")
    files = {path: "".join(several).encode() for path, several in sorted(lines.items())}
    return {**files, **render_ontology(dataset)}


def imagefolder_places(dataset: Dataset, *, class_folders: bool = False) -> list[str]:
    """Return where the image of each image belongs, relative, in the order of ``images``.

    Raises:
        DataError: see ``render_imagefolder``.
    """
    check_image_ids(dataset)
    check_split_names(dataset)
    folder_of: dict[str, str] = {}
    if class_folders:
        if not is_one_choice(dataset):
            raise DataError(
                "class folders hold one choice an image, of a class that is the name of a folder, "
                "and nothing else. Write metadata instead."
            )
        labels = dataset.labels
        folder_of = dict(zip(labels["image_id"], labels["class_name"] + "/", strict=True))
    places = []
    columns = (dataset.images[name].tolist() for name in ("image_id", "file_name", "split"))
    for image_id, file_name, split in zip(*columns, strict=True):
        suffix = PurePosixPath(file_name).suffix
        if not suffix:
            raise DataError(
                f"image {image_id} has no file name with an extension, by which an imagefolder "
                "tells its images. Read the dataset with its images at hand."
            )
        start = f"{split}/" if split else ""
        places.append(f"{start}{folder_of.get(image_id, '')}{image_id}{suffix}")
    return places


def is_one_choice(dataset: Dataset) -> bool:
    """Return whether class folders can say it all.

    Each image has one choice, that can be a folder's name, and nothing else; all images have a
    split, or none has; and splits cannot be taken for classes.
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
    """Return a sentence, with a count, on each kind of thing that writing loses or changes."""
    choices = dataset.labels[dataset.labels["shape"].isin(CLASSIFICATIONS)]
    said = int(((choices["attributes"] != "") | (choices["instance"] != "")).sum())
    verb = ("loses its attributes", "lose their attributes")
    return [
        *shape_losses(dataset, HOLDS),
        *attribute_losses(dataset),
        *sentence(said, ("choice", "choices"), verb),
        *object_losses(dataset),
    ]


def _boxes(dataset: Dataset) -> dict[str, list[tuple[str, int, list[float]]]]:
    labels = dataset.boxes().labels
    edges = labels[BOX_COLUMNS].to_numpy(dtype=np.float64)
    if not np.isfinite(edges).all():
        raise DataError("a box lies nowhere: its edges are no numbers. Correct or remove it.")
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
