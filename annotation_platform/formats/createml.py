"""Apple's Create ML: one JSON list of images with their boxes, as centre and size in pixels.

An entry is ``{"image": name, "annotations": [{"label": class, "coordinates": {"x", "y", "width",
"height"}}]}``; ``x`` and ``y`` are the centre, from the top left corner of the image.

Reading loses nothing, but the format lacks image sizes. Writing loses (``createml_losses`` counts
it) all shapes other than upright boxes, the grouping of labels into objects, all attributes, class
ids and classes without a box. Numbers have at most six decimals.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    check_image_ids,
    class_ids,
    image_ids,
    image_size,
    make_dataset,
    make_ontology,
    read_json,
    refuse_link,
    refuse_way_out,
    split_names,
)
from annotation_platform.formats.losses import (
    BOXES_ONLY,
    box_losses,
    class_losses,
    number_losses,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.tables.shared import SPLITS

HOLDS = BOXES_ONLY
"""Shapes that this format holds; other areas become their enclosing boxes."""

_NUMBERS = ("x", "y", "width", "height")
_DECIMALS = 6


def render_createml(dataset: Dataset) -> dict[str, bytes]:
    """Return the Create ML files of ``dataset`` by relative path: ``createml/<split>.json``.

    Train, val and test are always present, even if empty; a dataset without splits gives
    ``createml/annotations.json``. Images without a box have an empty list. Equal datasets give
    equal bytes, regardless of the order of their rows.

    Raises:
        DataError: a class or its image is unknown, an image has no file name, or two share one.
    """
    class_ids(dataset)
    check_image_ids(dataset)
    file_names = dataset.images["file_name"]
    if (file_names == "").any() or file_names.duplicated().any():
        raise DataError(
            "an image without a file name, or two with the same: Create ML identifies images by "
            "their file names. Read the dataset together with its images."
        )
    boxes = _boxes(dataset)
    images = dataset.images.sort_values("file_name")
    files: dict[str, bytes] = {}
    for split in split_names(images["split"]):
        rows = images[images["split"] == split]
        content = [
            {"image": name, "annotations": boxes.get(image_id, [])}
            for name, image_id in zip(rows["file_name"], rows["image_id"], strict=True)
        ]
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        files[f"createml/{split or 'annotations'}.json"] = text.encode() + b"\n"
    return files


def _boxes(dataset: Dataset) -> dict[str, list[dict[str, object]]]:
    labels = dataset.boxes().labels
    edges = labels[BOX_COLUMNS].to_numpy(dtype=np.float64)
    low, high = edges[:, :2], edges[:, 2:]
    # Adding zero turns a rounded -0.0 into 0.0: the two would be written differently.
    numbers = np.round(np.hstack([(low + high) / 2, high - low]), _DECIMALS) + 0.0
    rows = zip(
        labels["image_id"].tolist(), labels["class_name"].tolist(), numbers.tolist(), strict=True
    )
    boxes: dict[str, list[dict[str, object]]] = {}
    for image_id, name, values in sorted(rows):
        entry = {"label": name, "coordinates": dict(zip(_NUMBERS, values, strict=True))}
        boxes.setdefault(image_id, []).append(entry)
    return boxes


def createml_losses(dataset: Dataset) -> list[str]:
    """Return one sentence with a count for each kind of content that writing loses or changes."""
    return [*box_losses(dataset), *number_losses(dataset), *class_losses(dataset)]


def read_createml(path: Path, *, sizes: Mapping[str, tuple[int, int]] | None = None) -> Dataset:
    """Return the dataset of one Create ML file, or of all in a folder (or its ``createml``).

    Images of train.json, val.json or test.json, or of a file in a folder with such a name, have
    that split; others have none. Classes are numbered from 0 in alphabetical order. The keys
    ``imagefilename`` and ``annotation`` of older files are read too.

    Args:
        path: The file or folder. Images are in that folder, in the folder of the file, or in the
            parent of ``createml``; ``file_name`` is the name in the file.
        sizes: Width and height in pixels by file name, for images that are not available. Other
            sizes are read from the image's header.

    Raises:
        FormatError: a file is not Create ML's, names an image outside the folder, a missing image,
            or an image twice; a link out of the folder.
    """
    images: list[dict[str, object]] = []
    boxes: list[tuple[int, dict[str, object]]] = []
    for file in _json_files(path):
        data = read_json(file)
        if not isinstance(data, list):
            raise FormatError(str(file), 0, "not a list of images", "Export it from Create ML.")
        for number, entry in enumerate(data):
            where = f"[{number}]"
            name = _text(entry, ("image", "imagefilename"), file, where)
            refuse_way_out(name, where=file)
            width, height = (sizes or {}).get(name) or _size(path, file, name)
            boxes += [(len(images), box) for box in _read_boxes(entry, file, where)]
            images.append(
                {"file_name": name, "split": _split(file), "width": width, "height": height}
            )
    names = sorted({str(box["class_name"]) for _, box in boxes})
    if not names:
        raise FormatError(str(path), 0, "no Create ML file with a box", "Name the JSON file.")
    ids = image_ids([str(row["file_name"]) for row in images], where=path)
    return make_dataset(
        [{**row, "image_id": ids[number]} for number, row in enumerate(images)],
        [{**box, "image_id": ids[number]} for number, box in boxes],
        make_ontology(dict(enumerate(names)), where=path),
    )


def _json_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    folder = path / "createml" if (path / "createml").is_dir() else path
    files = sorted(folder.glob("*.json")) or sorted(folder.glob("*/*.json"))
    for file in (folder, *files):
        refuse_link(file, path)
    if not files:
        raise FormatError(str(path), 0, "no .json file", "Name the file of the annotations.")
    return files


def _split(file: Path) -> str:
    names = (file.stem, file.parent.name)
    return next((name for name in names if name in SPLITS), "")


def _size(path: Path, file: Path, name: str) -> tuple[int, int]:
    folders = [*([path] if path.is_dir() else []), file.parent, file.parent.parent]
    for folder in folders:
        if (folder / name).is_file():
            refuse_link(folder / name, folder)
            return image_size(folder / name)
    raise FormatError(str(file), 0, f"no image {name!r} found for it", "Add the image or its size.")


def _text(entry: object, keys: tuple[str, ...], file: Path, where: str) -> str:
    found = [entry[key] for key in keys if key in entry] if isinstance(entry, dict) else []
    if len(found) != 1 or not isinstance(found[0], str) or not found[0]:
        raise FormatError(
            str(file), 0, f"{where} has no {keys[0]}", "Add the key or remove the entry."
        )
    return found[0]


def _read_boxes(entry: Mapping[str, Any], file: Path, where: str) -> list[dict[str, object]]:
    given = entry.get("annotations", entry.get("annotation", []))
    if not isinstance(given, list):
        problem = f"{where} has annotations that are not a list"
        raise FormatError(str(file), 0, problem, "Export it again.")
    rows: list[dict[str, object]] = []
    for number, each in enumerate(given):
        location = f"{where}.annotations[{number}]"
        name = _text(each, ("label",), file, location)
        box = each.get("coordinates")
        values: list[Any] = [box.get(key) for key in _NUMBERS] if isinstance(box, dict) else []
        if not values or not all(_is_number(value) for value in values) or min(values[2:]) < 0:
            problem = f"{location} has no box of {', '.join(_NUMBERS)}"
            raise FormatError(str(file), 0, problem, "Correct or remove it.")
        x, y, w, h = (float(value) for value in values)
        edges = [round(edge, 9) for edge in (x - w / 2, y - h / 2, x + w / 2, y + h / 2)]
        rows.append({"class_name": name, **dict(zip(BOX_COLUMNS, edges, strict=True))})
    return rows


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and -1e9 <= value <= 1e9  # type: ignore[operator]
