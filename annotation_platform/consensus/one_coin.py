"""Each worker is right at one rate, whatever the class: Dawid and Skene's model with one number.

Known as one-coin or ZenCrowd: Demartini, Difallah and Cudré-Mauroux, "ZenCrowd", 2012. It departs
from that in an even class prior, because a learned one was seen to feed on itself, and in shrinking
each worker's rate by six answers of the crowd's mean.
"""

from dataclasses import dataclass

import numpy as np

from annotation_platform.consensus.annotations import IntArray, Votes, by_code
from annotation_platform.consensus.majority import SHRINKAGE, cell_shares, decided
from annotation_platform.schema.geometry import FloatArray

_LEVEL = 1e-9
_BEFOREHAND = 0.75
"""The crowd's mean before it is seen, worth six answers as well."""


@dataclass(frozen=True)
class OneCoin:
    """A fitted model. All probabilities are finite, whatever the answers."""

    label: IntArray  # (T,) class codes; TIED where two are equally likely
    posterior: FloatArray  # (T,) of the label
    accuracy: FloatArray  # (W,) below 1 / K for who is wrong more often than by chance
    iterations: int
    converged: bool


def one_coin(votes: Votes, *, iterations: int = 200, tolerance: float = 1e-5) -> OneCoin:
    """Return the model of the answers, found by expectation and maximisation in log space.

    Only classes that somebody gave a task are looked at one by one, so time and memory grow with
    the number of answers alone.

    Args:
        votes: ``N`` answers, at least one.
        iterations: at most so many, at least 1.
        tolerance: it ends when an iteration moves less than this probability a task, in the mean.
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
