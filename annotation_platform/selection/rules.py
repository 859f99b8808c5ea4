"""The selection rules, and the coverage of each group of near-duplicates."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.selection.balance import rarest_first
from annotation_platform.selection.diversity import Positions, Vectors, farthest_first
from annotation_platform.selection.outliers import FLAGGED
from annotation_platform.selection.pool import Candidates

_CANDIDATES = 3
"""Uncertain candidates per wanted image, among which their vectors decide."""
UNLIKE = "unlike those before it"
AT_RANDOM = "drawn at random"


@dataclass(frozen=True)
class Pick:
    """An image chosen by a rule, with the reason and the score of the rule, if any."""

    row: int
    rule: str
    reason: str
    score: float = float("nan")


class SelectionState:
    """The images chosen so far, in order, and the images that can still be chosen.

    Open images are those of the groups with the fewest members selected before or chosen now: no
    group gets a second member before every group has its first.
    """

    def __init__(self, candidates: Candidates, closed: Positions) -> None:
        self.candidates = candidates
        self.picks: list[Pick] = []
        self._members = candidates.selected_of_group.copy()
        self._free = np.ones(len(candidates), dtype=bool)
        self._free[closed] = False

    def take(self, picks: Sequence[Pick]) -> int:
        """Choose these images; return their number."""
        for pick in picks:
            self.picks.append(pick)
            self._free[pick.row] = False
            self._members[self.candidates.groups[pick.row]] += 1
        return len(picks)

    def close(self, rows: Positions) -> None:
        """Exclude rows from further choice; chosen rows stay chosen."""
        self._free[rows] = False

    def free(self) -> Positions:
        """Return the rows that can still be chosen."""
        return np.flatnonzero(self._free)

    def open(self) -> Positions:
        """Return the free rows of the least covered groups."""
        rows = self.free()
        covered = self._members[self.candidates.groups[rows]]
        return rows[covered == covered.min()] if len(rows) else rows

    def room(self) -> int:
        """Return the number of open groups, each of which can get one image in this turn."""
        return len(np.unique(self.candidates.groups[self.open()]))

    def best_of_groups(self, rows: Positions, values: FloatArray) -> Positions:
        """Return the row of the highest value of each group, ascending; ties go by row."""
        order = rows[np.lexsort((rows, -values))]
        _, first = np.unique(self.candidates.groups[order], return_index=True)
        return np.sort(order[first])

    def covered(self) -> Vectors:
        """Return the vectors of the images selected before or chosen so far, ``(K, D)``."""
        rows = [pick.row for pick in self.picks if self.candidates.usable[pick.row]]
        return np.concatenate([self.candidates.selected_vectors, self.candidates.vectors[rows]])


def rare(state: SelectionState, wanted: int) -> list[Pick]:
    """Return the images expected to show most objects of classes with few labels."""
    candidates, rows = state.candidates, state.open()
    known = candidates.known + candidates.expected[[pick.row for pick in state.picks]].sum(axis=0)
    values = (candidates.expected[rows] / (known + 1)).sum(axis=1)
    rows = state.best_of_groups(rows, values)
    picks = []
    for one in rarest_first(candidates.expected[rows], known, wanted):
        row, name = int(rows[one.row]), candidates.classes[one.class_number]
        expected = candidates.expected[row, one.class_number]
        labels = candidates.known[one.class_number]
        reason = f"expected to show {expected:.1f} {name}, a class with {labels} labels so far"
        picks.append(Pick(row, "rare", reason, one.gain))
    return picks


def uncertain(state: SelectionState, wanted: int, measure: str, *, unlike: bool) -> list[Pick]:
    """Return the images with the most uncertain predictions, the most uncertain first.

    With ``unlike`` they are the most diverse ones among three times as many; images without a
    vector come after those with one.
    """
    candidates, rows = state.candidates, state.open()
    values = candidates.uncertainty(measure)
    rows = rows[values[rows] > 0]
    rows = state.best_of_groups(rows, values[rows])
    order = rows[np.lexsort((rows, -values[rows]))]
    if unlike:
        order = order[: _CANDIDATES * wanted]
        seen = np.sort(order[candidates.usable[order]])
        chosen = farthest_first(candidates.vectors[seen], wanted, known=state.covered())
        others = order[~candidates.usable[order]]
        order = np.concatenate([seen[chosen], others])[:wanted]
        order = order[np.lexsort((order, -values[order]))]
    return [
        Pick(int(row), "uncertain", _uncertainty(measure, values[row]), float(values[row]))
        for row in order[:wanted]
    ]


def diverse(state: SelectionState, wanted: int) -> list[Pick]:
    """Return the images farthest from each other and from all images selected before."""
    candidates, rows = state.candidates, state.open()
    rows = rows[candidates.usable[rows]]
    rows = state.best_of_groups(rows, np.zeros(len(rows)))
    # A pool without near-duplicates is not copied.
    vectors = candidates.vectors if len(rows) == len(candidates) else candidates.vectors[rows]
    chosen = farthest_first(vectors, wanted, known=state.covered())
    return [Pick(int(rows[one]), "diverse", UNLIKE) for one in chosen]


def outlying(state: SelectionState, wanted: int, scores: FloatArray) -> list[Pick]:
    """Return flagged outliers, the farthest first."""
    rows = state.open()
    rows = rows[scores[rows] >= FLAGGED]
    rows = state.best_of_groups(rows, scores[rows])
    order = rows[np.lexsort((rows, -scores[rows]))][:wanted]
    return [
        Pick(int(row), "outlier", f"unlike the rest of the pool by {scores[row]:.1f} deviations",
             float(scores[row])) for row in order
    ]  # fmt: skip


def at_random(state: SelectionState, wanted: int, rng: np.random.Generator) -> list[Pick]:
    """Return images drawn at random, one per group."""
    rows = rng.permutation(state.open())
    _, first = np.unique(state.candidates.groups[rows], return_index=True)
    return [Pick(int(row), "random", AT_RANDOM) for row in rows[np.sort(first)][:wanted]]


def remaining(state: SelectionState, wanted: int) -> list[Pick]:
    """Return the remaining images, which have no vector, in the order of their ids."""
    rows = state.open()
    rows = state.best_of_groups(rows, np.zeros(len(rows)))[:wanted]
    return [Pick(int(row), "remaining", "remaining image without a vector") for row in rows]


def _uncertainty(measure: str, value: float) -> str:
    if measure == "expected_errors":
        return f"about {value:.1f} of its predictions are expected to be wrong"
    return f"its predictions are uncertain: {measure.replace('_', ' ')} {value:.2f}"
