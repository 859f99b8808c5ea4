"""The registry of selection strategies; ``docs/how-to/add-a-selection-strategy.md`` adds one."""

from typing import Protocol

import numpy as np

from annotation_platform.policy import SelectionPolicy
from annotation_platform.selection import rules
from annotation_platform.selection.rules import Board


class Strategy(Protocol):
    """Chooses images among those that are open on a board."""

    def __call__(
        self, board: Board, wanted: int, policy: SelectionPolicy, rng: np.random.Generator, /
    ) -> int:
        """Choose at most ``wanted`` images with ``board.take``; return their number.

        The images are rows of ``board.open()``, no two of a group, the best first. The remaining
        budget goes to diversity. The same board and generator give the same images; ties go by row,
        that is by image id.

        Args:
            board: the candidates, with predictions and vectors, and the images chosen so far.
            wanted: at least 1, at most the number of open groups.
            policy: measure and shares.
            rng: the generator of random strategies.
        """


def _combined(board: Board, wanted: int, policy: SelectionPolicy, _: np.random.Generator) -> int:
    taken = board.take(rules.rare(board, round(policy.rare_share * wanted)))
    unsure = max(0, wanted - taken - round(policy.diverse_share * wanted))
    return taken + board.take(rules.uncertain(board, unsure, policy.measure, unlike=True))


def _entropy(board: Board, wanted: int, _: SelectionPolicy, __: np.random.Generator) -> int:
    return board.take(rules.uncertain(board, wanted, "sum_entropy", unlike=False))


def _uncertainty(board: Board, wanted: int, policy: SelectionPolicy, _: np.random.Generator) -> int:
    return board.take(rules.uncertain(board, wanted, policy.measure, unlike=True))


STRATEGIES: dict[str, Strategy] = {
    "combined": _combined,
    "uncertainty": _uncertainty,
    "entropy": _entropy,
    "diversity": lambda board, wanted, _, __: board.take(rules.diverse(board, wanted)),
    "balance": lambda board, wanted, _, __: board.take(rules.rare(board, wanted)),
    "random": lambda board, wanted, _, rng: board.take(rules.at_random(board, wanted, rng)),
}
"""Every strategy, by its name in the policy (``SelectionPolicy.strategy``)."""
