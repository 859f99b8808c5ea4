"""The rules by which images are chosen, and how far each group of near-duplicates is covered."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.selection.balance import rarest_first
from annotation_platform.selection.diversity import Positions, Vectors, farthest_first
from annotation_platform.selection.outliers import FLAGGED
from annotation_platform.selection.pool import Candidates

_CANDIDATES = 3
"""So many times the number wanted are unsure enough to be told apart by their vectors."""
UNLIKE = "unlike those before it"
BY_LOT = "drawn by lot"


@dataclass(frozen=True)
class Pick:
    """An image that a rule chose, why, and the number the rule went by, if any."""

    row: int
    rule: str
    reason: str
    score: float = float("nan")


class Board:
    """The images chosen so far, in order, and those still open.

    Open are the images of the groups of which fewest members were asked about or chosen: no group
    has a second member taken before every group has its first.
    """

    def __init__(self, candidates: Candidates, closed: Positions) -> None:
        self.candidates = candidates
        self.picks: list[Pick] = []
        self._members = candidates.asked_of_group.copy()
        self._free = np.ones(len(candidates), dtype=bool)
        self._free[closed] = False

    def take(self, picks: Sequence[Pick]) -> int:
        """Choose these; return how many they are."""
        for pick in picks:
            self.picks.append(pick)
            self._free[pick.row] = False
            self._members[self.candidates.groups[pick.row]] += 1
        return len(picks)

    def close(self, rows: Positions) -> None:
        """Take rows out of the choice; those chosen already stay."""
        self._free[rows] = False

    def free(self) -> Positions:
        """Return the rows that nothing speaks against choosing."""
        return np.flatnonzero(self._free)

    def open(self) -> Positions:
        """Return the free rows of the groups that are covered least."""
        rows = self.free()
        covered = self._members[self.candidates.groups[rows]]
        return rows[covered == covered.min()] if len(rows) else rows

    def room(self) -> int:
        """Return how many images can be chosen until a group gets its next member."""
        return len(np.unique(self.candidates.groups[self.open()]))

    def best_of_groups(self, rows: Positions, values: FloatArray) -> Positions:
        """Return the row of the highest value of each group, ascending; ties go by row."""
        order = rows[np.lexsort((rows, -values))]
        _, first = np.unique(self.candidates.groups[order], return_index=True)
        return np.sort(order[first])

    def covered(self) -> Vectors:
        """Return the vectors of what was asked about before or is chosen by now, ``(K, D)``."""
        rows = [pick.row for pick in self.picks if self.candidates.usable[pick.row]]
        return np.concatenate([self.candidates.asked_vectors, self.candidates.vectors[rows]])


def rare(board: Board, wanted: int) -> list[Pick]:
    """Return the images expected to show most of what is rare in the labels so far."""
    candidates, rows = board.candidates, board.open()
    known = candidates.known + candidates.expected[[pick.row for pick in board.picks]].sum(axis=0)
    values = (candidates.expected[rows] / (known + 1)).sum(axis=1)
    rows = board.best_of_groups(rows, values)
    picks = []
    for one in rarest_first(candidates.expected[rows], known, wanted):
        row, name = int(rows[one.row]), candidates.classes[one.class_number]
        expected = candidates.expected[row, one.class_number]
        labels = candidates.known[one.class_number]
        reason = f"expected to show {expected:.1f} {name}, of which {labels} labels are known"
        picks.append(Pick(row, "rare", reason, one.gain))
    return picks


def uncertain(board: Board, wanted: int, measure: str, *, unlike: bool) -> list[Pick]:
    """Return the images whose proposals are least sure, most unsure first.

    With ``unlike`` they are the most unlike ones among three times as many; images without a
    vector come after those with one.
    """
    candidates, rows = board.candidates, board.open()
    values = candidates.uncertainty(measure)
    rows = rows[values[rows] > 0]
    rows = board.best_of_groups(rows, values[rows])
    order = rows[np.lexsort((rows, -values[rows]))]
    if unlike:
        order = order[: _CANDIDATES * wanted]
        seen = np.sort(order[candidates.usable[order]])
        chosen = farthest_first(candidates.vectors[seen], wanted, known=board.covered())
        others = order[~candidates.usable[order]]
        order = np.concatenate([seen[chosen], others])[:wanted]
        order = order[np.lexsort((order, -values[order]))]
    return [
        Pick(int(row), "uncertain", _unsure(measure, values[row]), float(values[row]))
        for row in order[:wanted]
    ]


def diverse(board: Board, wanted: int) -> list[Pick]:
    """Return the images most unlike each other and all that were asked about before."""
    candidates, rows = board.candidates, board.open()
    rows = rows[candidates.usable[rows]]
    rows = board.best_of_groups(rows, np.zeros(len(rows)))
    # A pool without near-duplicates is not copied.
    vectors = candidates.vectors if len(rows) == len(candidates) else candidates.vectors[rows]
    chosen = farthest_first(vectors, wanted, known=board.covered())
    return [Pick(int(rows[one]), "diverse", UNLIKE) for one in chosen]


def outlying(board: Board, wanted: int, scores: FloatArray) -> list[Pick]:
    """Return flagged outliers, the farthest first."""
    rows = board.open()
    rows = rows[scores[rows] >= FLAGGED]
    rows = board.best_of_groups(rows, scores[rows])
    order = rows[np.lexsort((rows, -scores[rows]))][:wanted]
    return [
        Pick(int(row), "outlier", f"unlike the rest of the pool by {scores[row]:.1f} deviations",
             float(scores[row])) for row in order
    ]  # fmt: skip


def at_random(board: Board, wanted: int, rng: np.random.Generator) -> list[Pick]:
    """Return images drawn by lot, one of a group."""
    rows = rng.permutation(board.open())
    _, first = np.unique(board.candidates.groups[rows], return_index=True)
    return [Pick(int(row), "random", BY_LOT) for row in rows[np.sort(first)][:wanted]]


def rest(board: Board, wanted: int) -> list[Pick]:
    """Return images that no rule can tell apart, in order: they have no vector."""
    rows = board.open()
    rows = board.best_of_groups(rows, np.zeros(len(rows)))[:wanted]
    return [Pick(int(row), "rest", "nothing is known of it but that it is there") for row in rows]


def _unsure(measure: str, value: float) -> str:
    if measure == "expected_errors":
        return f"about {value:.1f} of its proposals are expected to be wrong"
    return f"its proposals are unsure: {measure.replace('_', ' ')} {value:.2f}"
