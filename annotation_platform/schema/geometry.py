"""Boxes: ``x1 y1 x2 y2`` in absolute pixels of the stored image, origin at the top left."""

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Boxes = FloatArray

BOX_COLUMNS = ["x1", "y1", "x2", "y2"]


def as_boxes(values: Any) -> Boxes:
    """Return ``values`` as an ``(N, 4)`` array of floats; no values give ``(0, 4)``."""
    array = np.asarray(values, dtype=np.float64)
    return array.reshape(-1, 4)


def box_areas(boxes: Boxes) -> FloatArray:
    """Return the ``(N,)`` areas in square pixels; a box turned inside out has area zero."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0.0, None)
    return np.asarray(sides[:, 0] * sides[:, 1], dtype=np.float64)


def iou_matrix(a: Boxes, b: Boxes) -> FloatArray:
    """Return the intersection over union of every box in ``a`` with every box in ``b``.

    A box with no area overlaps nothing, itself included, so its row or column is zero.

    Args:
        a: ``(N, 4)`` boxes, absolute pixels, ``x1 <= x2`` and ``y1 <= y2``.
        b: ``(M, 4)`` boxes, same convention.

    Returns:
        ``(N, M)`` values in ``[0, 1]``; an empty side gives an empty matrix.
    """
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = np.clip(bottom_right - top_left, 0.0, None)
    shared = sides[..., 0] * sides[..., 1]
    union = box_areas(a)[:, None] + box_areas(b)[None, :] - shared
    overlap = np.zeros_like(shared)
    np.divide(shared, union, out=overlap, where=(union > 0) & (shared > 0))
    return np.asarray(overlap, dtype=np.float64)


def clip_boxes(boxes: Boxes, *, width: float, height: float) -> Boxes:
    """Return the boxes cut at the edges of a ``width`` × ``height`` image."""
    edges = np.array([width, height, width, height], dtype=np.float64)
    return np.clip(boxes, 0.0, edges)
