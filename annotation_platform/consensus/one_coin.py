"""One accuracy per worker, independent of the class: Dawid and Skene's model with one number.

Known as one-coin or ZenCrowd: Demartini, Difallah and Cudré-Mauroux, "ZenCrowd", 2012. It departs
from that in a uniform class prior, because a learned one reinforced itself in measurements, and in
shrinking each worker's rate by six annotations of the crowd's mean.
"""

from dataclasses import dataclass

import numpy as np

from annotation_platform.consensus.annotations import IntArray, Votes, by_code
from annotation_platform.consensus.majority import SHRINKAGE, cell_shares, decided
from annotation_platform.schema.geometry import FloatArray

_LEVEL = 1e-9
_BEFOREHAND = 0.75
"""Prior of the crowd's mean, worth six annotations as well."""


@dataclass(frozen=True)
class OneCoin:
    """A fitted model. All probabilities are finite for any annotations."""

    label: IntArray  # (T,) class codes; TIED if two are equally likely
    posterior: FloatArray  # (T,) of the label
    accuracy: FloatArray  # (W,) below 1 / K for workers who are wrong more often than by chance
    iterations: int
    converged: bool


def one_coin(votes: Votes, *, iterations: int = 200, tolerance: float = 1e-5) -> OneCoin:
    """Return the model of the annotations, fitted by expectation maximisation in log space.

    Only classes with a vote on a task are stored, so time and memory grow with the number of
    annotations alone.

    Args:
        votes: ``N`` annotations, at least one.
        iterations: largest number of iterations, at least 1.
        tolerance: the fit ends when the mean change of probability per task is at most this.
    """
    classes = max(len(votes.classes), 2)
    workers = len(votes.workers)
    asked = np.bincount(votes.worker, minlength=workers)
    share = votes.cell_votes / votes.annotations[votes.cell_task]
    made, moved = 0, np.inf
    while made < iterations and moved > tolerance:
        right = by_code(votes.worker, share[votes.cell], workers)
        usual = (right.sum() + SHRINKAGE * _BEFOREHAND) / (asked.sum() + SHRINKAGE)
        accuracy = (right + SHRINKAGE * usual) / (asked + SHRINKAGE)
        weight = np.log(accuracy * (classes - 1) / (1 - accuracy))
        score = by_code(votes.cell, weight[votes.worker], len(share))
        before, share = share, cell_shares(votes, score, classes)
        moved, made = float(np.abs(share - before).sum()) / len(votes.tasks), made + 1
    posterior = votes.most_in_task(share)
    leading = share >= posterior[votes.cell_task] - _LEVEL
    return OneCoin(
        label=decided(votes, leading),
        posterior=posterior,
        accuracy=accuracy,
        iterations=made,
        converged=moved <= tolerance,
    )
