"""Reading of YOLO folders; ``yolo.py`` describes the format."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    files_by_key,
    finite_numbers,
    image_row,
    image_size,
    make_dataset,
    read_text,
)
from annotation_platform.formats.yolo_classes import YoloClasses, YoloTask, read_yolo_classes
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables.shared import SPLITS

_ROUNDING = 1e-5
"""Tolerance outside 0 to 1: other tools round to five decimals, or write 1.0000001 (float32)."""

_FORM = {
    "detect": "`class x y width height`",
    "segment": "`class x y x y x y …`",
    "obb": "`class x y x y x y x y`",
    "pose": "`class x y width height`, then each keypoint",
}


def read_yolo(
    folder: Path,
    *,
    sizes: Mapping[str, tuple[int, int]] | None = None,
    task: YoloTask | None = None,
) -> Dataset:
    """Return the dataset of a YOLO folder.

    Labels are ``labels/<split>/<image_id>.txt`` or, without splits, ``labels/<image_id>.txt``;
    an image without a label file has no objects. ``Images/`` and ``Annotations/``, and Darknet's
    ``obj_train_data/``, are read too; without ``data.yaml``, class names are those of
    ``classes.txt`` or ``obj.names``. Lists of file names are not read. Numbers outside 0 to 1
    within the tolerance of rounding are clipped.

    ``segment`` gives polygons (and boxes, for lines of four numbers), ``obb`` the smallest rotated
    boxes around the four corners, ``pose`` boxes and their keypoints as one ``instance``.

    Args:
        folder: The folder of ``data.yaml``.
        sizes: Width and height in pixels by image id, for images that are not available:
            ``file_name`` is then empty. Other sizes are read from the image's header.
        task: The task of all lines. By default it is taken from ``data.yaml``: ``kpt_shape`` means
            ``pose``, otherwise the key ``task``. Without these, the number of values on all lines
            decides: 5 ``detect``, 9 ``obb``, else ``segment``.

    Raises:
        FormatError: a line does not fit the task or has an unknown class; two images share a label
            file; a file is a link out of the folder; a number is outside 0 to 1.
    """
    classes = read_yolo_classes(folder)
    image_files, texts = _find(folder)
    lines = {key: _read_lines(path) for key, path in texts.items()}
    task = task or classes.task or _guess(lines.values())
    images: list[dict[str, object]] = []
    labels: list[dict[str, object]] = []
    for key in sorted(image_files.keys() | texts.keys()):
        split, image_id = _split_and_id(key)
        size = _size(key, image_id, image_files, texts, sizes)
        image_file = image_files.get(key)
        file_name = image_file.relative_to(folder).as_posix() if image_file else ""
        images.append(image_row(image_id, file_name, split, size))
        for number, fields in lines.get(key, []):
            line = _Line(texts[key], number, fields)
            position, values = _values(line, task, classes)
            found = _READERS[task](values, position, size, classes)
            instance = str(number) if len(found) > 1 else ""
            labels += [{"image_id": image_id, "instance": instance, **row} for row in found]
    return make_dataset(images, labels, classes.ontology(task))


def _size(
    key: str,
    image_id: str,
    image_files: Mapping[str, Path],
    texts: Mapping[str, Path],
    sizes: Mapping[str, tuple[int, int]] | None,
) -> tuple[int, int]:
    if sizes is not None and image_id in sizes:
        return sizes[image_id]
    if key in image_files:
        return image_size(image_files[key])
    problem = f"no image images/{key}.* for it"
    raise FormatError(str(texts[key]), 0, problem, "Add the image or remove the file.")


def _find(folder: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images and label files by the path that both share, without extension."""
    darknet = {"train": "train", "valid": "val", "val": "val", "test": "test"}
    folders = [("", folder / "images", folder / "labels")]
    if (folder / "Annotations").is_dir():
        folders = [("", folder / "Images", folder / "Annotations")]
    elif not any(each.is_dir() for each in folders[0][1:]):
        names = [(f"{split}/", folder / f"obj_{name}_data") for name, split in darknet.items()]
        folders = [(split, each, each) for split, each in names]
    image_files: dict[str, Path] = {}
    texts: dict[str, Path] = {}
    for prefix, images, labels in folders:
        found = files_by_key(images, folder, IMAGE_SUFFIXES)
        image_files |= {f"{prefix}{key}": path for key, path in found.items()}
        found = files_by_key(labels, folder, {".txt"})
        texts |= {f"{prefix}{key}": path for key, path in found.items()}
    return image_files, texts


def _split_and_id(key: str) -> tuple[str, str]:
    first, _, rest = key.partition("/")
    return (first, rest) if first in SPLITS and rest else ("", key)


def _read_lines(path: Path) -> list[tuple[int, list[str]]]:
    texts = enumerate(read_text(path).splitlines(), start=1)
    return [(number, fields) for number, text in texts if (fields := text.split())]


def _guess(files: Iterable[list[tuple[int, list[str]]]]) -> YoloTask:
    found = {len(fields) for lines in files for _, fields in lines}
    found = {length for length in found if length >= 5 and length % 2}
    if found <= {5}:
        return "detect"
    return "obb" if found == {9} else "segment"


@dataclass(frozen=True)
class _Line:
    """A line of a label file, split at blanks; ``number`` counts from 1."""

    path: Path
    number: int
    fields: list[str]

    def error(self, problem: str, remedy: str) -> FormatError:
        return FormatError(str(self.path), self.number, problem, remedy)


def _values(line: _Line, task: YoloTask, classes: YoloClasses) -> tuple[int, list[float]]:
    """Return class number and fractions of a line, checked and clipped to 0 to 1."""
    count = len(line.fields) - 1
    expected = {
        "detect": count == 4,
        "segment": count == 4 or (count >= 6 and count % 2 == 0),
        "obb": count == 8,
        "pose": count == 4 + classes.number_of_points * classes.per_point,
    }
    numbers = finite_numbers(line.fields[1:]) if expected[task] else None
    if numbers is None:
        shown = " ".join(line.fields)[:80]
        remedy = "Export boxes, not outlines." if task == "detect" else "Export it again."
        raise line.error(f"{shown!r}, expected {_FORM[task]}", remedy)
    name = line.fields[0]
    if not (name.isdecimal() and len(name) < 10) or int(name) >= len(classes.names):
        raise line.error(
            f"class {name}, but data.yaml has 0–{len(classes.names) - 1}",
            "Correct the line or add the class.",
        )
    visible = numbers[6::3] if task == "pose" and classes.per_point == 3 else []
    if any(value not in (0, 1, 2) for value in visible):
        raise line.error("a keypoint whose visibility is not 0, 1 or 2", "Correct the line.")
    if visible:
        numbers[6::3] = [0.0] * len(visible)
    if not all(-_ROUNDING <= number <= 1 + _ROUNDING for number in numbers):
        raise line.error("a coordinate outside 0 to 1", "Divide pixels by width and height.")
    fractions = [min(max(number, 0.0), 1.0) for number in numbers]
    if visible:
        fractions[6::3] = visible
    return int(name), fractions


def _read_box(
    values: list[float], position: int, size: tuple[int, int], classes: YoloClasses
) -> list[dict[str, object]]:
    x, y, w, h = values
    width, height = size
    # Halving and adding may exceed an edge by the last bit of a double.
    return [
        {
            "class_name": classes.names[position],
            "x1": max((x - w / 2) * width, 0.0),
            "y1": max((y - h / 2) * height, 0.0),
            "x2": min((x + w / 2) * width, float(width)),
            "y2": min((y + h / 2) * height, float(height)),
        }
    ]


def _read_outline(
    values: list[float], position: int, size: tuple[int, int], classes: YoloClasses
) -> list[dict[str, object]]:
    if len(values) == 4:
        return _read_box(values, position, size, classes)
    points = np.reshape(values, (-1, 2)) * size
    return [_row(Label.polygon(classes.names[position], [points.ravel().tolist()]))]


def _read_rotated(
    values: list[float], position: int, size: tuple[int, int], classes: YoloClasses
) -> list[dict[str, object]]:
    box = _around(np.reshape(values, (4, 2)) * size)
    return [_row(Label.rotated_box(classes.names[position], *box))]


def _around(corners: FloatArray) -> tuple[float, float, float, float, float]:
    """Return the smallest rotated box around four points; of several, the one along the first side.

    The smallest rectangle around points has a side along one side of their hull, which is among the
    six lines through two of the four points. Freeman and Shapira, "Determining the Minimum-Area
    Encasing Rectangle for an Arbitrary Closed Curve", 1975.
    """
    boxes: list[tuple[float, float, float, float, float]] = []
    for start, end in ((0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (1, 3)):
        dx, dy = (corners[end] - corners[start]).tolist()
        angle = float(np.arctan2(dy, dx))
        axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        rotated = corners @ axes
        low, high = rotated.min(axis=0), rotated.max(axis=0)
        x, y = (((low + high) / 2) @ axes.T).tolist()
        width, height = (high - low).tolist()
        boxes.append((x, y, width, height, float(np.degrees(angle))))
    # The four sides of a rectangle differ by rounding; the first is its top.
    smallest = min(box[2] * box[3] for box in boxes) * (1 + 1e-6)
    return next(box for box in boxes if box[2] * box[3] <= smallest)


def _read_pose(
    values: list[float], position: int, size: tuple[int, int], classes: YoloClasses
) -> list[dict[str, object]]:
    rows = _read_box(values[:4], position, size, classes)
    each = classes.per_point
    for number, name in enumerate(classes.points.get(position, [])):
        x, y, visible = [*values[4 + number * each : 4 + (number + 1) * each], 2.0][:3]
        # Without visibility, other tools write 0 0 for a keypoint that is not labelled.
        if visible == 0 or (each == 2 and x == 0 and y == 0):
            continue
        row = _row(Label.keypoint(name, x * size[0], y * size[1]))
        rows.append({**row, "attributes": '{"hidden": 1}' if visible == 1 else ""})
    return rows


def _row(label: Label) -> dict[str, object]:
    names = ["shape", "class_name", "geometry", *BOX_COLUMNS]
    return {name: getattr(label, name) for name in names}


_READERS: dict[
    YoloTask,
    Callable[[list[float], int, tuple[int, int], YoloClasses], list[dict[str, object]]],
] = {"detect": _read_box, "segment": _read_outline, "obb": _read_rotated, "pose": _read_pose}
