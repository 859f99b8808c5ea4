"""KITTI object detection: ``label_2/`` with one text file per image, a line for each object.

A line is ``type truncated occluded alpha x1 y1 x2 y2 height width length x y z rotation_y`` and an
optional score. The box is in pixels, counted from 0, and its numbers are edges; the cuboid is in
metres in the camera's frame; angles are in radians. Unknown values are the official
``-1 -1 -10 … -1 -1 -1 -1000 -1000 -1000 -10``, as in ``DontCare`` regions, which are an ordinary
class here.

The values of a line other than its box are attributes: ``truncated`` and ``occluded``, 0 or 1;
where KITTI has a finer value, ``truncation``, the share outside the image, and ``occlusion``, the
degree 0 to 3; ``alpha``; ``score``; and ``cuboid``.

Reading loses nothing, but the format lacks image sizes. Writing loses (``kitti_losses`` counts it)
all shapes other than upright boxes, the grouping of labels into objects, other attributes, class
ids and classes without a box; ``_`` replaces blanks in class names. Numbers have at most six
decimals.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    check_image_ids,
    class_ids,
    files_by_key,
    finite_numbers,
    image_row,
    image_size,
    make_dataset,
    make_ontology,
    read_text,
    refuse_link,
)
from annotation_platform.formats.losses import (
    BOXES_ONLY,
    box_losses,
    class_losses,
    number_losses,
    sentence,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS

HOLDS = BOXES_ONLY
"""Shapes that this format holds; other areas become their enclosing boxes."""

CUBOID = ("height", "width", "length", "x", "y", "z", "rotation_y")

_ATTRIBUTES = ("truncated", "occluded", "truncation", "occlusion", "alpha", "score", "cuboid")
_NO_CUBOID = (-1.0, -1.0, -1.0, -1000.0, -1000.0, -1000.0, -10.0)
_NO_ALPHA = -10.0
_UNKNOWN = -1.0
_DECIMALS = 6


def render_kitti(dataset: Dataset) -> dict[str, bytes]:
    """Return the KITTI files of ``dataset``: ``<split>/label_2/<image_id>.txt``, also empty ones.

    Without splits they are ``label_2/<image_id>.txt``. Images belong in ``image_2`` next to
    ``label_2``. Equal datasets give equal bytes, regardless of the order of their rows.

    Raises:
        DataError: a class or its image is unknown; an image id is not a file name; two classes
            differ only in blanks; a cuboid is not seven numbers.
    """
    class_ids(dataset)
    check_image_ids(dataset)
    types = _types(dataset)
    lines: dict[str, list[str]] = {}
    labels = dataset.boxes().labels
    columns = [labels[name].tolist() for name in ("image_id", "class_name", "attributes")]
    edges = labels[BOX_COLUMNS].to_numpy().tolist()
    for image_id, name, text, box in zip(*columns, edges, strict=True):
        attributes = json.loads(text) if text else {}
        lines.setdefault(image_id, []).append(_line(types[name], box, attributes, image_id))
    files: dict[str, bytes] = {}
    names = zip(dataset.images["image_id"], dataset.images["split"], strict=True)
    for image_id, split in sorted(names):
        path = f"{split}/label_2/{image_id}.txt" if split else f"label_2/{image_id}.txt"
        files[path] = "".join(sorted(lines.get(image_id, []))).encode()
    return files


def _types(dataset: Dataset) -> dict[str, str]:
    types = {name: "_".join(name.split()) for name in dataset.ontology.names}
    if len(set(types.values())) < len(types) or "" in types.values():
        raise DataError(
            "two classes differ only in blanks, which KITTI cannot hold. Rename one of them."
        )
    return types


def _line(name: str, box: list[float], attributes: Mapping[str, Any], image_id: str) -> str:
    cuboid = attributes.get("cuboid")
    if cuboid is not None:
        # A cuboid is seven numbers in KITTI's order, or an object with the names as keys.
        given = [cuboid.get(key) for key in CUBOID] if isinstance(cuboid, dict) else cuboid
        numbers = finite_numbers(given) if isinstance(given, list) else None
        if numbers is None or len(numbers) != len(CUBOID):
            raise DataError(
                f"image {image_id}: a cuboid is not the seven numbers {', '.join(CUBOID)}. "
                "Correct the attribute of the label."
            )
    else:
        numbers = list(_NO_CUBOID)
    values: list[Any] = [
        attributes.get("truncation", attributes.get("truncated", _UNKNOWN)),
        attributes.get("occlusion", attributes.get("occluded", _UNKNOWN)),
        attributes.get("alpha", _NO_ALPHA),
        *box,
        *numbers,
        *([attributes["score"]] if "score" in attributes else []),
    ]
    return f"{name} {' '.join(_number(float(value)) for value in values)}\n"


def _number(value: float) -> str:
    # Adding zero turns a rounded -0.0 into 0.0.
    text = f"{round(value, _DECIMALS) + 0.0:.{_DECIMALS}f}"
    return text.rstrip("0").rstrip(".")


def kitti_losses(dataset: Dataset) -> list[str]:
    """Return one sentence with a count for each kind of content that writing loses or changes."""
    blank = sum(name != "_".join(name.split()) for name in dataset.ontology.names)
    return [
        *box_losses(dataset, held=_ATTRIBUTES),
        *number_losses(dataset),
        *sentence(
            blank,
            ("class name", "class names"),
            ("has its blanks replaced by _", "have their blanks replaced by _"),
        ),
        *class_losses(dataset),
    ]


def read_kitti(folder: Path, *, sizes: Mapping[str, tuple[int, int]] | None = None) -> Dataset:
    """Return the dataset of a KITTI folder, or of a folder with one KITTI folder per split.

    Image ids are the names of the text files; images in ``image_2`` without a text file have no
    objects. ``training`` and ``testing`` are the splits train and test. Classes are numbered from
    0 in alphabetical order.

    Args:
        folder: The folder of ``label_2``, or of the splits.
        sizes: Width and height in pixels by image id, for images that are not available:
            ``file_name`` is then empty. Other sizes are read from the image's header.

    Raises:
        FormatError: a line is not KITTI's; a file has no image, or is a link out of the folder;
            an image is in two splits.
    """
    images: dict[str, dict[str, object]] = {}
    labels: list[dict[str, object]] = []
    for split_folder in _split_folders(folder):
        split = "" if split_folder == folder else split_folder.name
        split = {"training": "train", "testing": "test"}.get(split, split)
        refuse_link(split_folder, folder)
        texts = files_by_key(split_folder / "label_2", folder, {".txt"})
        image_files = files_by_key(split_folder / "image_2", folder, IMAGE_SUFFIXES)
        for image_id in sorted(texts.keys() | image_files.keys()):
            path = texts.get(image_id) or image_files[image_id]
            if image_id in images:
                problem = f"image {image_id!r} is also in the split {images[image_id]['split']}"
                raise FormatError(str(path), 0, problem, "Remove one of the two.")
            image_file = image_files.get(image_id)
            file_name = image_file.relative_to(folder).as_posix() if image_file else ""
            size = _size(path, image_file, (sizes or {}).get(image_id))
            images[image_id] = image_row(image_id, file_name, split, size)
            if image_id in texts:
                labels += [{**row, "image_id": image_id} for row in _read_labels(path)]
    names = sorted({str(label["class_name"]) for label in labels})
    if not names:
        raise FormatError(str(folder), 0, "no object in label_2", "Name the folder of label_2.")
    ontology = make_ontology(dict(enumerate(names)), where=folder)
    return make_dataset(list(images.values()), labels, ontology)


def _split_folders(folder: Path) -> list[Path]:
    folders = [folder, *sorted(path for path in folder.glob("*") if path.is_dir())]
    found = [path for path in folders if (path / "label_2").is_dir()]
    if not found:
        raise FormatError(str(folder), 0, "no folder label_2", "Name the folder that holds it.")
    return found


def _size(path: Path, image_file: Path | None, known: tuple[int, int] | None) -> tuple[int, int]:
    if known is not None:
        return known
    if image_file is None:
        problem = f"no image image_2/{path.stem}.* for it"
        raise FormatError(str(path), 0, problem, "Add the image or remove the file.")
    return image_size(image_file)


def _read_labels(path: Path) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        values = finite_numbers(fields[1:]) if len(fields) in (15, 16) else None
        if values is None:
            problem = f"{line.strip()[:80]!r}, expected a type, 14 numbers and an optional score"
            raise FormatError(str(path), number, problem, "Export it again.")
        box = dict(zip(BOX_COLUMNS, values[3:7], strict=True))
        if box["x1"] > box["x2"] or box["y1"] > box["y2"]:
            problem = "a box whose right or bottom edge comes before its left or top edge"
            raise FormatError(str(path), number, problem, "Correct the line.")
        rows.append({"class_name": fields[0], **box, "attributes": _attributes(values)})
    return rows


def _attributes(values: list[float]) -> str:
    truncation, occlusion, alpha = values[:3]
    attributes: dict[str, object] = {}
    for value, flag, degree in (
        (truncation, "truncated", "truncation"),
        (occlusion, "occluded", "occlusion"),
    ):
        if value != _UNKNOWN:
            attributes[flag] = int(value > 0)
        if value not in (_UNKNOWN, 0, 1):
            attributes[degree] = value
    if alpha != _NO_ALPHA:
        attributes["alpha"] = alpha
    if tuple(values[7:14]) != _NO_CUBOID:
        attributes["cuboid"] = values[7:14]
    if len(values) > 14:
        attributes["score"] = values[14]
    return json.dumps(attributes, sort_keys=True) if attributes else ""
