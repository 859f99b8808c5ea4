"""Diverse images: farthest-first traversal of their vectors, exact and fast."""

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]

_FOCUS = 4096
"""Rows that are evaluated in each step: few enough to stay in the processor's cache."""
_AT_ONCE = 1 << 22
"""Numbers in memory at once."""
_DIGITS = 12
"""Squared distances, relative to the longest vector's square, are equal if they agree to this
number of digits."""


def farthest_first(vectors: Vectors, wanted: int, *, known: Vectors | None = None) -> list[int]:
    """Return positions of ``wanted`` rows, each the farthest from all rows before it.

    Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985: at every length the
    chosen rows cover all others at most twice as coarsely as the best choice would. The first is
    the row nearest to the mean, or, with ``known`` rows (Sener and Savarese, "Active Learning for
    Convolutional Neural Networks: A Core-Set Approach", 2018), the farthest from those. Of equally
    distant rows the first is taken, so rows sorted by image id give the same choice for any input
    order. Rows that repeat a chosen one come last, in order.

    The result equals that of a loop over all distances in double precision. Distances only decrease
    as rows are chosen, so an old distance is an upper bound, and a row whose bound is below the
    largest known distance is not evaluated (Minoux, "Accelerated greedy algorithms", 1978). Single
    precision finds the rows that may be farthest; if its error leaves several, double precision
    decides.

    Args:
        vectors: ``(N, D)`` finite values.
        wanted: number of rows, at most N.
        known: ``(K, D)`` rows that are already covered.
    """
    wanted = min(wanted, len(vectors))
    if wanted <= 0:
        return []
    known = vectors[:0] if known is None else known
    walk = _Traversal(np.ascontiguousarray(vectors, dtype=np.float32), known, wanted)
    if not len(known):
        walk.take(_nearest_to_mean(walk.vectors))
    while len(walk.chosen) < wanted:
        farthest = walk.farthest()
        if farthest is None:
            rest = np.setdiff1d(np.arange(len(vectors)), walk.chosen)
            return walk.chosen + [int(row) for row in rest[: wanted - len(walk.chosen)]]
        walk.take(farthest)
    return walk.chosen


class _Traversal:
    """The rows, an upper bound of each row's distance to the centres, and the rows in focus.

    A centre is a known or chosen row. All distances are squared. The ``bound`` of a row includes
    the first ``age`` centres; for the rows in focus it includes all centres.
    """

    def __init__(self, vectors: Vectors, known: Vectors, wanted: int) -> None:
        self.vectors = vectors
        self.chosen: list[int] = []
        rows, width = vectors.shape
        self._squares = np.einsum("ij,ij->i", vectors, vectors)
        self._centres = np.empty((len(known) + wanted, width), dtype=np.float32)
        self._centres[: len(known)] = known
        self._centre_squares = np.einsum("ij,ij->i", self._centres, self._centres)
        self._count = len(known)
        self._bound = np.full(rows, np.inf, dtype=np.float32)
        self._age = np.zeros(rows, dtype=np.int64)
        largest = max([self._squares.max(), *self._centre_squares[: len(known)]])
        self._scale = max(float(largest), float(np.finfo(np.float32).tiny))
        # Twice the largest error of a distance in single precision: of the dot product of two
        # rows (Higham, "Accuracy and Stability of Numerical Algorithms", 2002, §3.1) and two sums.
        self._window = 2 * (width + 8) * float(np.finfo(np.float32).eps) * self._scale
        self._exact = np.full(rows, np.inf)
        self._exact_age = np.zeros(rows, dtype=np.int64)
        self._size = _FOCUS
        self._focus: Positions = np.empty(0, dtype=np.int64)
        self._near = self._bound[self._focus]
        self._seen = vectors[:0]
        self._floor = np.float32(np.inf)

    def take(self, row: int) -> None:
        """Choose a row as a further centre."""
        self.chosen.append(row)
        centre, square = self.vectors[row], self._squares[row]
        self._centres[self._count], self._centre_squares[self._count] = centre, square
        self._count += 1
        self._bound[row] = -np.inf
        self._near[self._focus == row] = -np.inf
        np.minimum(
            self._near, self._squares[self._focus] + square - 2 * (self._seen @ centre),
            out=self._near,
        )  # fmt: skip

    def farthest(self) -> int | None:
        """Return the row farthest from all centres; None if all remaining rows repeat a centre."""
        if not len(self._near) or self._near.max() <= self._floor + self._window:
            self._refocus()
        rows = self._focus[self._near >= self._near.max() - self._window]
        row, distance = self._first_of(np.sort(rows))
        return row if distance > 0 else None

    def _refocus(self) -> None:
        """Put the rows that may be farthest into focus, with up-to-date bounds."""
        if not len(self._focus):
            self._update_bounds(np.arange(len(self._bound)))
        self._bound[self._focus] = self._near
        self._age[self._focus] = self._count
        while True:
            size = min(self._size, len(self._bound))
            order = np.argpartition(-self._bound, size - 1)
            focus, others = np.sort(order[:size]), order[size:]
            stale = focus[self._age[focus] < self._count]
            self._update_bounds(stale)
            self._floor = self._bound[others].max() if len(others) else np.float32(-np.inf)
            if not len(others) or self._bound[focus].max() > self._floor + self._window:
                break
            if not len(stale):
                # More rows are equally far than fit into the focus, so it is enlarged.
                self._size *= 4
        self._focus = focus
        self._near = self._bound[self._focus]
        self._seen = self.vectors[self._focus]

    def _update_bounds(self, rows: Positions) -> None:
        """Include the centres that these rows' bounds do not include yet."""
        for age in np.unique(self._age[rows]):
            same = rows[self._age[rows] == age]
            centres = self._centres[age : self._count]
            step = max(1, _AT_ONCE // max(centres.shape))
            for start in range(0, len(same), step):
                part = same[start : start + step]
                products = self.vectors[part] @ centres.T
                distances = self._centre_squares[age : self._count] - 2 * products
                nearest = distances.min(axis=1) + self._squares[part]
                self._bound[part] = np.minimum(self._bound[part], nearest)
            self._age[same] = self._count

    def _first_of(self, rows: Positions) -> tuple[int, float]:
        """Return the first of the farthest rows in double precision, and its distance."""
        best, farthest = -1, -1.0
        order = rows[np.argsort(-self._exact[rows], kind="stable")]
        start, step = 0, 1
        while start < len(order):
            row, bound = int(order[start]), float(self._exact[order[start]])
            if bound < farthest or (bound == farthest and row > best):
                break
            part = order[start : start + step]
            self._measure(part)
            for one, distance in zip(part.tolist(), self._exact[part].tolist(), strict=True):
                if distance > farthest or (distance == farthest and one < best):
                    best, farthest = one, distance
            start, step = start + step, min(2 * step, 1024)
        return best, farthest

    def _measure(self, rows: Positions) -> None:
        for row in rows.tolist():
            age = self._exact_age[row]
            away = self._centres[age : self._count].astype(np.float64) - self.vectors[row]
            if len(away):
                nearest = float(np.einsum("ij,ij->i", away, away).min())
                rounded = round(nearest / self._scale, _DIGITS)
                self._exact[row] = min(self._exact[row], rounded)
                self._exact_age[row] = self._count


def _nearest_to_mean(vectors: Vectors) -> int:
    mean = vectors.mean(axis=0, dtype=np.float64)
    step = max(1, _AT_ONCE // max(1, vectors.shape[1]))
    distances = np.empty(len(vectors))
    for start in range(0, len(vectors), step):
        away = vectors[start : start + step] - mean
        distances[start : start + step] = np.einsum("ij,ij->i", away, away)
    scale = max(float(distances.max()), float(np.finfo(np.float64).tiny))
    return int(np.argmin(np.round(distances / scale, _DIGITS)))
