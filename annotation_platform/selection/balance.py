"""Selection of images that are expected to show rare classes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray

_FOCUS = 512
"""Rows that are evaluated in each step."""


@dataclass(frozen=True)
class RarePick:
    """An image chosen for its rare classes: its row, the class it serves most, and the gain."""

    row: int
    class_number: int
    gain: float


def rarest_first(
    expected: FloatArray, known: npt.NDArray[np.int64], wanted: int
) -> Sequence[RarePick]:
    """Return at most ``wanted`` rows that bring the classes rarer than the mean nearer to it.

    Each row is the one that adds most to the sum over classes of ``log(1 + n)``, where ``n`` counts
    the labels so far and the objects expected on the rows taken, up to the mean count of all
    classes: one more object counts for about ``1 / n``, so the rarest class comes first, and a
    class stops counting once it is common. The sum is submodular, so the greedy choice has at least
    63 % of the best possible gain (Nemhauser, Wolsey and Fisher, "An analysis of approximations for
    maximizing submodular set functions", 1978), and a row's gain only decreases: only the best rows
    are evaluated until they are no better than the previous bounds of the others. Ties go by row.
    Rows that add nothing are not taken.

    Args:
        expected: ``(N, C)`` objects of each class that each row is expected to show, at least 0.
        known: ``(C,)`` labels of each class so far.
        wanted: number of rows.
    """
    if not expected.size or wanted <= 0:
        return []
    counts = known.astype(np.float64)
    # A class is common from the mean count on, including what an average choice of rows adds.
    target = float((counts + wanted * expected.mean(axis=0)).mean())
    taken: list[RarePick] = []
    left = np.arange(len(expected))
    focus, floor = left[:0], np.inf
    while len(taken) < wanted:
        gains = _gains(expected[focus], counts, target).sum(axis=1)
        if not len(focus) or gains.max() <= floor:
            bounds = _gains(expected[left], counts, target).sum(axis=1)
            # Of equal rows the first ones are in focus, so no row outside it takes precedence.
            order = np.argsort(-bounds, kind="stable")
            floor = bounds[order[_FOCUS]] if len(order) > _FOCUS else -np.inf
            focus = np.sort(left[order[:_FOCUS]])
            gains = _gains(expected[focus], counts, target).sum(axis=1)
        if not len(focus) or gains.max() <= 0:
            break
        row = int(focus[np.argmax(gains)])
        parts = _gains(expected[row], counts, target)
        taken.append(RarePick(row, int(np.argmax(parts)), float(parts.sum())))
        counts = counts + expected[row]
        left, focus = left[left != row], focus[focus != row]
    return taken


def _gains(expected: FloatArray, counts: FloatArray, target: float) -> FloatArray:
    """Return the increase of each class's ``log(1 + n)`` by each row, with ``n`` capped."""
    before = np.log1p(np.minimum(counts, target))
    return np.asarray(np.log1p(np.minimum(counts + expected, target)) - before)
