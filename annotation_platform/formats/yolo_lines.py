"""Objects of a dataset as lines of YOLO label files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.formats.files import class_ids
from annotation_platform.formats.yolo_classes import YoloTask
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.shapes import AREAS, POINTS, Label

# A billionth of a 30,000 pixel side is 0.00003 pixels: even a one-pixel box survives.
UNITS = 10**9
DIGITS = 9
"""Resolution of numbers in a file: billionths of a side, nine decimals."""

UnitArray = npt.NDArray[np.int64]
"""Numbers in billionths."""


def object_classes(dataset: Dataset, task: YoloTask) -> dict[str, int]:
    """Return the classes of objects, name to id, sorted by id."""
    areas = dataset.labels.loc[dataset.labels["shape"].isin(AREAS), "class_name"]
    points = keypoint_classes(dataset).keys() - set(areas) if task == "pose" else set()
    ids = dataset.ontology.id_of
    return {name: ids[name] for name in sorted(ids, key=ids.__getitem__) if name not in points}


def keypoint_classes(dataset: Dataset) -> dict[str, int]:
    """Return the classes of keypoints, name to id, sorted by id."""
    used = set(dataset.labels.loc[dataset.labels["shape"].isin(POINTS), "class_name"])
    classes = sorted(dataset.ontology.classes, key=lambda one: one.id)
    return {one.name: one.id for one in classes if one.shape in POINTS or one.name in used}


@dataclass(frozen=True)
class YoloObjects:
    """The areas of a dataset: their labels, and the positions of each label's image and class."""

    labels: pd.DataFrame
    image_names: list[str]  # sorted
    image: npt.NDArray[np.intp]
    sides: FloatArray  # (N, 2): width and height of each label's image, in pixels
    position: npt.NDArray[np.intp]

    @classmethod
    def of(cls, dataset: Dataset, task: YoloTask) -> "YoloObjects":
        """Return the areas of ``dataset``; an unknown class or image is a DataError."""
        class_ids(dataset)
        labels = dataset.labels[dataset.labels["shape"].isin(AREAS)].reset_index(drop=True)
        images = dataset.images.sort_values("image_id", ignore_index=True)
        image = pd.Index(images["image_id"]).get_indexer(pd.Index(labels["image_id"]))
        return cls(
            labels=labels,
            image_names=images["image_id"].tolist(),
            image=image,
            sides=images[["width", "height"]].to_numpy(dtype=np.float64)[image],
            position=pd.Index(list(object_classes(dataset, task))).get_indexer(
                pd.Index(labels["class_name"])
            ),
        )

    def lines(self, columns: Sequence[tuple[UnitArray, int]]) -> dict[str, bytes]:
        """Return the lines of each image; a column is fixed-point numbers and their decimals."""
        order = self._order([values for values, _ in columns])
        text, ends = _text(
            self.position[order], [(values[order], decimals) for values, decimals in columns]
        )
        numbers = np.bincount(self.image, minlength=len(self.image_names))
        bounds = np.concatenate([[0], ends])[np.concatenate([[0], np.cumsum(numbers)])].tolist()
        cuts = zip(self.image_names, bounds[:-1], bounds[1:], strict=True)
        return {name: text[start:end] for name, start, end in cuts if start < end}

    def _order(self, columns: list[UnitArray]) -> npt.NDArray[np.intp]:
        """Return the order by image, class and columns."""
        first = self.image * (self.position.max(initial=0) + 1) + self.position
        order = np.lexsort([columns[0], first])
        # Few objects have the same class and first number, so the other columns are rarely needed.
        steps = np.diff(first[order]) | np.diff(columns[0][order])
        return np.asarray(order if steps.all() else np.lexsort([*columns[::-1], first]))


def _text(
    position: npt.NDArray[np.intp], columns: Sequence[tuple[UnitArray, int]]
) -> tuple[bytes, npt.NDArray[np.intp]]:
    """Return lines of a class number and of columns with a one-digit whole part; and their ends.

    Digits are computed for all lines at once: a third of the time of formatting each number.
    """
    rows = len(position)
    width = len(str(position.max(initial=0)))
    parts = [_digits(position, width)]
    for values, decimals in columns:
        whole, rest = np.divmod(values, 10**decimals)
        parts += [np.full((rows, 1), ord(" "), np.uint8), _digits(whole, 1)]
        if decimals:
            parts += [np.full((rows, 1), ord("."), np.uint8), _digits(rest, decimals)]
    parts.append(np.full((rows, 1), ord("\n"), np.uint8))
    letters = np.hstack(parts)
    # Leading zeros of the class number are left out.
    is_written = np.ones(letters.shape, dtype=bool)
    for digit in range(width - 1):
        is_written[:, digit] = position >= 10 ** (width - 1 - digit)
    return letters[is_written].tobytes(), np.cumsum(is_written.sum(axis=1))


def _digits(values: npt.NDArray[Any], width: int) -> npt.NDArray[np.uint8]:
    """Return ``(N, width)`` decimal digits as ASCII characters, with leading zeros."""
    digits = np.empty((len(values), width), np.uint8)
    rest = values
    for digit in reversed(range(width)):
        rest, digits[:, digit] = np.divmod(rest, 10)
    return digits + np.uint8(ord("0"))


def fractions_of(pixels: FloatArray, sides: FloatArray) -> UnitArray:
    """Return pixels as billionths of the sides, clipped to the image."""
    fractions = np.clip(np.asarray(pixels, dtype=np.float64) / sides, 0.0, 1.0)
    return np.asarray(np.rint(fractions * UNITS), dtype=np.int64)


def labels_in(rows: pd.DataFrame) -> list[Label]:
    """Return the labels of rows of ``Dataset.labels``, in order."""
    names = ["shape", "class_name", "geometry", *BOX_COLUMNS]
    return [Label(*row) for row in zip(*(rows[name].tolist() for name in names), strict=True)]
