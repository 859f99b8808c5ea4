"""The registry of selection strategies; ``docs/how-to/add-a-selection-strategy.md`` adds one."""

from typing import Protocol

import numpy as np

from annotation_platform.policy import SelectionPolicy
from annotation_platform.selection import rules
from annotation_platform.selection.rules import SelectionState


class Strategy(Protocol):
    """Chooses images among those that are still open in a selection."""

    def __call__(
        self,
        state: SelectionState,
        wanted: int,
        policy: SelectionPolicy,
        rng: np.random.Generator,
        /,
    ) -> int:
        """Choose at most ``wanted`` images with ``state.take``; return their number.

        The images are rows of ``state.open()``, no two of a group, the best first. The remaining
        budget goes to diversity. The same state and generator give the same images; ties go by row,
        that is by image id.

        Args:
            state: the candidates, with predictions and vectors, and the images chosen so far.
            wanted: at least 1, at most the number of open groups.
            policy: measure and shares.
            rng: the generator of random strategies.
        """


def _combined(
    state: SelectionState, wanted: int, policy: SelectionPolicy, _: np.random.Generator
) -> int:
    taken = state.take(rules.rare(state, round(policy.rare_share * wanted)))
    unsure = max(0, wanted - taken - round(policy.diverse_share * wanted))
    return taken + state.take(rules.uncertain(state, unsure, policy.measure, unlike=True))


def _entropy(
    state: SelectionState, wanted: int, _: SelectionPolicy, __: np.random.Generator
) -> int:
    return state.take(rules.uncertain(state, wanted, "sum_entropy", unlike=False))


def _uncertainty(
    state: SelectionState, wanted: int, policy: SelectionPolicy, _: np.random.Generator
) -> int:
    return state.take(rules.uncertain(state, wanted, policy.measure, unlike=True))


STRATEGIES: dict[str, Strategy] = {
    "combined": _combined,
    "uncertainty": _uncertainty,
    "entropy": _entropy,
    "diversity": lambda state, wanted, _, __: state.take(rules.diverse(state, wanted)),
    "balance": lambda state, wanted, _, __: state.take(rules.rare(state, wanted)),
    "random": lambda state, wanted, _, rng: state.take(rules.at_random(state, wanted, rng)),
}
"""Every strategy, by its name in the policy (``SelectionPolicy.strategy``)."""
