"""YOLO detection folders: ``data.yaml``, ``images/`` and one text file of boxes per image.

A line is ``class x_centre y_centre width height``, in shares of the picture. Class numbers are
positions in ``data.yaml``; its ``class_ids`` keeps the ontology's ids, which may have gaps.
Writing loses the ontology's colours, guidelines and order.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    class_ids,
    finite_numbers,
    make_dataset,
    make_ontology,
    picture_size,
    read_text,
    split_names,
    write_files,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import SPLITS

# A billionth of a 30,000 pixel side is 0.00003 pixels: even a one-pixel box survives.
_UNITS = 10**9


def write_yolo(dataset: Dataset, folder: Path) -> None:
    """Write ``data.yaml`` and ``labels/`` under ``folder``; pictures are the caller's to place."""
    write_files(render_yolo(dataset), folder)


def render_yolo(dataset: Dataset) -> dict[str, bytes]:
    """Return the YOLO files of ``dataset`` by relative path: ``data.yaml`` and one per image.

    An image without boxes has an empty file. Boxes are cut at the edges of the picture, so that
    no number and no edge lies outside ``[0, 1]``. Equal datasets give equal bytes, whatever the
    order of their rows.
    """
    lines = _lines(dataset)
    files = {"data.yaml": _data_yaml(dataset)}
    dataset = dataset.boxes()
    names = zip(dataset.images["image_id"], dataset.images["split"], strict=True)
    for image_id, split in sorted(names):
        path = PurePosixPath("labels", split, f"{image_id}.txt")
        if path.is_absolute() or ".." in path.parts:
            raise DataError(f"image id {image_id!r} is no file name. Rename the image.")
        files[path.as_posix()] = "".join(lines.get(image_id, [])).encode()
    return files


def _lines(dataset: Dataset) -> dict[str, list[str]]:
    ids = sorted(dataset.ontology.id_of.values())
    position = class_ids(dataset).map({key: number for number, key in enumerate(ids)})
    labels = dataset.labels.assign(position=position).merge(
        dataset.images[["image_id", "width", "height"]], on="image_id"
    )
    left, right = _shares(labels, "x1", "width"), _shares(labels, "x2", "width")
    top, bottom = _shares(labels, "y1", "height"), _shares(labels, "y2", "height")
    # Sums of whole billionths halve to ten decimals exactly: centre and size give back the
    # very edges, and an edge at 1 never comes out above it.
    columns = (
        labels["image_id"].tolist(),
        labels["position"].tolist(),
        ((left + right) / (2 * _UNITS)).tolist(),
        ((top + bottom) / (2 * _UNITS)).tolist(),
        ((right - left) / _UNITS).tolist(),
        ((bottom - top) / _UNITS).tolist(),
    )
    lines: dict[str, list[str]] = {}
    for image_id, number, x, y, width, height in sorted(zip(*columns, strict=True)):
        line = f"{number} {x:.10f} {y:.10f} {width:.9f} {height:.9f}\n"
        lines.setdefault(image_id, []).append(line)
    return lines


def _shares(labels: pd.DataFrame, edge: str, side: str) -> npt.NDArray[np.int64]:
    shares = (labels[edge] / labels[side]).to_numpy(dtype=np.float64)
    return np.asarray(np.rint(np.clip(shares, 0.0, 1.0) * _UNITS), dtype=np.int64)


def _data_yaml(dataset: Dataset) -> bytes:
    classes = sorted(dataset.ontology.classes, key=lambda one: one.id)
    folders = {
        split or "train": f"images/{split}" for split in split_names(dataset.images["split"])
    }
    content = {
        **folders,
        "names": {number: one.name for number, one in enumerate(classes)},
        "class_ids": [one.id for one in classes],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def read_yolo(folder: Path, *, sizes: Mapping[str, tuple[int, int]] | None = None) -> Dataset:
    """Return the dataset of a YOLO folder.

    Labels are ``labels/<split>/<image_id>.txt`` or, without splits, ``labels/<image_id>.txt``;
    an image without a label file has no boxes. Shares become pixels by the size in each
    picture's header, or by ``sizes`` (image id to width and height) where pictures are not at
    hand: ``file_name`` is then empty. Outlines instead of boxes are a FormatError.
    """
    ontology, names = _read_classes(folder)
    pictures = {
        path.relative_to(folder / "images").with_suffix("").as_posix(): path
        for path in sorted((folder / "images").rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES
    }
    texts = {
        path.relative_to(folder / "labels").with_suffix("").as_posix(): path
        for path in sorted((folder / "labels").rglob("*.txt"))
    }
    images: list[dict[str, object]] = []
    labels: list[dict[str, object]] = []
    for key in sorted(pictures.keys() | texts.keys()):
        split, image_id = _split_and_id(key)
        picture = pictures.get(key)
        if sizes is not None and image_id in sizes:
            width, height = sizes[image_id]
        elif picture is not None:
            width, height = picture_size(picture)
        else:
            raise FormatError(
                str(texts[key]),
                0,
                f"no picture images/{key}.* for it",
                "Add it or remove the file.",
            )
        file_name = picture.relative_to(folder).as_posix() if picture else ""
        images.append(
            {
                "image_id": image_id,
                "file_name": file_name,
                "split": split,
                "width": width,
                "height": height,
            },
        )
        if key in texts:
            labels.extend(_read_labels(texts[key], image_id, width, height, names))
    return make_dataset(images, labels, ontology)


def _split_and_id(key: str) -> tuple[str, str]:
    first, _, rest = key.partition("/")
    return (first, rest) if first in SPLITS and rest else ("", key)


def _read_classes(folder: Path) -> tuple[Ontology, list[str]]:
    path = folder / "data.yaml"
    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise FormatError(str(path), 0, "not YAML", "Correct the file.") from error
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not _are_names(names):
        raise FormatError(
            str(path), 0, "no class names, numbered from 0", "Add `names: {0: first, 1: second}`."
        )
    ordered = [str(names[number]) for number in range(len(names))]
    ids = data.get("class_ids", list(range(len(ordered))))
    if not _are_whole(ids) or len(ids) != len(ordered) or len(set(ids)) != len(ids):
        raise FormatError(
            str(path), 0, "class_ids does not match names", "Give one id per name, or none."
        )
    return make_ontology(dict(zip(ids, ordered, strict=True)), where=path), ordered


def _are_names(names: dict[object, object]) -> bool:
    """Return whether these are names numbered from 0. YAML may nest a billion lists in a name."""
    numbered = sorted(names, key=str) == sorted(range(len(names)), key=str)
    return numbered and not any(isinstance(name, list | dict | set) for name in names.values())


def _are_whole(values: object) -> bool:
    return isinstance(values, list) and all(isinstance(value, int) for value in values)


def _read_labels(
    path: Path, image_id: str, width: int, height: int, names: list[str]
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        fields = text.split()
        if not fields:
            continue
        numbers = finite_numbers(fields[1:]) if len(fields) == 5 else None
        if numbers is None:
            raise FormatError(
                str(path),
                line,
                f"{text.strip()!r}, expected `class x y width height`",
                "Export boxes, not outlines.",
            )
        is_number = fields[0].isdecimal() and len(fields[0]) < 10
        if not is_number or int(fields[0]) >= len(names):
            raise FormatError(
                str(path),
                line,
                f"class {fields[0]}, but data.yaml has 0–{len(names) - 1}",
                "Correct the line or add the class.",
            )
        if not all(0 <= number <= 1 for number in numbers):
            raise FormatError(
                str(path), line, "a coordinate outside 0 to 1", "Divide pixels by width and height."
            )
        x, y, w, h = numbers
        # Halving and adding again may overstep an edge by the last bit of a double.
        rows.append(
            {
                "image_id": image_id,
                "class_name": names[int(fields[0])],
                "x1": max((x - w / 2) * width, 0.0),
                "y1": max((y - h / 2) * height, 0.0),
                "x2": min((x + w / 2) * width, float(width)),
                "y2": min((y + h / 2) * height, float(height)),
            }
        )
    return rows
