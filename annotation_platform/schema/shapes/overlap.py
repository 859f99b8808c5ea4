"""Overlap of labels, from 0 (disjoint) to 1 (identical)."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import SHAPES, Label


def labels_of(frame: pd.DataFrame) -> list[Label]:
    """Return the rows of a labels table as labels, in their order.

    Without a ``shape`` column every row is a box; without ``geometry`` it is empty.
    """
    blank = {"shape": "box", "geometry": ""}
    columns = ["shape", "class_name", "geometry", "x1", "y1", "x2", "y2"]
    values: list[Iterable[Any]] = [
        _plain(frame[name]) if name in frame.columns else [blank.get(name)] * len(frame)
        for name in columns
    ]
    return [Label(*row) for row in zip(*values, strict=True)]


def _plain(column: pd.Series) -> list[Any]:
    return [
        None if missing else value for value, missing in zip(column, column.isna(), strict=True)
    ]


def overlap_matrix(
    a: Sequence[Label], b: Sequence[Label], *, image_size: tuple[float, float]
) -> FloatArray:
    """Return the overlap of every label of ``a`` with every label of ``b``.

    For areas it is the intersection over union: exact for boxes, rotated boxes and polygons, in
    pixels for masks. For keypoints it falls with their distance; each shape documents its own
    ``overlap``. Labels of different shapes, and labels without a region, do not overlap; classes
    are not compared. An area of zero overlaps nothing, itself included.

    Args:
        a: ``N`` labels of one image.
        b: ``M`` labels of the same image.
        image_size: width and height in pixels; only the distance of keypoints needs it.

    Returns:
        ``(N, M)`` values in ``[0, 1]``; an empty side gives an empty matrix.
    """
    overlap = np.zeros((len(a), len(b)))
    for shape in {label.shape for label in a} & {label.shape for label in b}:
        rows = [at for at, label in enumerate(a) if label.shape == shape]
        columns = [at for at, label in enumerate(b) if label.shape == shape]
        ours, theirs = [a[at] for at in rows], [b[at] for at in columns]
        found = SHAPES[shape].overlap(ours, theirs, image_size=image_size)
        if found is not None:
            overlap[np.ix_(rows, columns)] = found
    return overlap


@lru_cache(maxsize=64)
def pairs_of(count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the two positions of each pair among ``count`` items, the smaller one first."""
    one, other = np.triu_indices(count, k=1)
    return one, other
