"""Shapes that a few numbers define: they are fused number by number."""

import sys
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes.shape import Label, Shape

_NEAR = 3.0
"""A value further than this many deviations from the median is treated as an outlier."""


class Numbered(Shape):
    """A shape that is a fixed count of numbers, the same for each of its labels."""

    @abstractmethod
    def numbers(self, labels: Sequence[Label], *, first: int) -> FloatArray:
        """Return the ``(n, d)`` numbers of labels of this shape.

        If a region has several notations, each label uses the one nearest to that of the label at
        the position ``first``.
        """

    @abstractmethod
    def from_numbers(self, numbers: FloatArray, values: FloatArray) -> Label:
        """Return the label, without a class, of ``(d,)`` numbers fused from ``(n, d)`` values."""

    def fuse(
        self,
        labels: Sequence[Label],
        weights: Sequence[float],
        *,
        middle: Label,
        deviation: FloatArray | None,
    ) -> Label:
        """Return the label of the weighted means of the numbers near their median."""
        values = self.numbers(labels, first=labels.index(middle))
        return self.from_numbers(near_mean(values, weights, deviation), values)


def near_mean(
    values: FloatArray, weights: Sequence[float], deviation: FloatArray | None
) -> FloatArray:
    """Return the ``(d,)`` weighted means of those ``(n, d)`` values that are near their median.

    Near is within three deviations. Without deviations, or with nothing near, it is the median.
    """
    middle = median_of(values)
    if deviation is None:
        return middle
    near = np.abs(values - middle) <= _NEAR * deviation
    share = np.asarray(weights)[:, None] * near
    total = share.sum(axis=0)
    mean = (share * values).sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.asarray(np.where(total > 0, mean, middle), dtype=np.float64)


def median_of(values: FloatArray) -> FloatArray:
    """Return the ``(d,)`` medians of ``(n, d)`` values, ten times as fast as ``numpy.median``."""
    ordered = np.sort(values, axis=0)
    middle = ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]
    return np.asarray(middle / 2, dtype=np.float64)


def are_numbers(value: Any, *, count: int | None = None) -> bool:
    """Return whether parsed JSON is a list of finite numbers, ``count`` of them if given."""
    return (
        isinstance(value, list)
        and (count is None or len(value) == count)
        and all(type(each) in (int, float) and abs(each) <= sys.float_info.max for each in value)
    )
