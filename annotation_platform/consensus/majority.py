"""Majority voting, with ties broken by the reliability of the voters.

A class with more votes than every other is never overruled. If several have the most, the one
whose voters weigh more wins: a worker weighs the log odds that belong to the worker's agreement
with the others beyond chance, shrunk by six annotations of the crowd's mean. If the weights are
tied as well, the task stays tied.

Chance is the frequency of the given label among the annotations of all others. Raw agreement is
not used: a worker who always gives the most frequent label agrees often without any skill.
Measurements are in ``docs/algorithms/consensus.md``.
"""

from dataclasses import dataclass

import numpy as np

from annotation_platform.consensus.annotations import TIED, BoolArray, IntArray, Votes, by_code
from annotation_platform.schema.geometry import FloatArray

SHRINKAGE = 6.0
"""Number of annotations with the crowd's mean that are added to each worker's own."""

_CERTAIN = 4.0
"""Standard errors by which a crowd must agree beyond chance before its members can be weighed."""

_LARGEST = 0.98
"""Largest and, negated, smallest reliability of a worker."""

_USUAL = 2 / 3
"""Reliability if no worker can be compared: right three times out of four between two classes."""

LEVEL = 1e-9
"""Sums of weights that differ by less are tied."""


@dataclass(frozen=True)
class Majority:
    """The outcome by task, and the weights of the voters."""

    label: IntArray  # (T,) class codes; TIED if votes and weights are tied
    by_weight: BoolArray  # (T,) the votes were tied and the weights were not
    leading: BoolArray  # (M,) by cell: the leading classes, one unless tied
    posterior: FloatArray  # (T,) of the label, or of each of the tied labels
    reliability: FloatArray  # (W,) agreement beyond chance, shrunk: 1 always, 0 by chance
    weighable: bool  # the crowd agrees enough to be weighed


def majority(votes: Votes) -> Majority:
    """Return the most frequent class of each task; a single annotation is accepted as it is.

    ``posterior`` is the probability of the label if workers err independently, skill equals
    agreement beyond chance, and the prior of all classes is equal. Two workers agree less often
    than each is right, which compensates for some of the errors that they share; it is
    overconfident nevertheless. It can be below that of another class: votes have equal weight, and
    the posterior shows where that is doubtful.

    Workers are weighed only if the crowd agrees beyond chance by more than four standard errors;
    otherwise ties stay. Below that, weights pick the wrong side half of the time.
    """
    certainty, reliability = _reliability(votes)
    weighable = certainty >= _CERTAIN
    skill = reliability if weighable else np.full_like(reliability, _USUAL)
    weight = np.log((1 + reliability) / (1 - reliability)) * weighable
    most = votes.cell_votes == votes.most_in_task(votes.cell_votes)[votes.cell_task]
    total = by_code(votes.cell, weight[votes.worker], len(most))
    total = np.where(most, total, -np.inf)
    leading = most & (total >= votes.most_in_task(total)[votes.cell_task] - LEVEL)
    alone = votes.sum_in_task(leading) == 1
    return Majority(
        label=decided(votes, leading),
        by_weight=alone & (votes.sum_in_task(most) > 1),
        leading=leading,
        posterior=_posterior(votes, leading, skill),
        reliability=reliability,
        weighable=weighable,
    )


def decided(votes: Votes, leading: BoolArray) -> IntArray:
    """Return the leading class of each task, ``TIED`` if there are several."""
    label = np.full(len(votes.tasks), TIED, dtype=np.int64)
    alone = np.flatnonzero(leading & (votes.sum_in_task(leading) == 1)[votes.cell_task])
    label[votes.cell_task[alone]] = votes.cell_label[alone]
    return label


def agreement_with_others(votes: Votes, known: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return by worker the number of right annotations, and of annotations that can be judged.

    An annotation is right if it equals the gold label of the task or, without gold, the majority of
    the others; if these are tied, an annotation among the tied labels counts by its share.

    Args:
        votes: the annotations.
        known: ``(T,)`` classes from ``annotations.code_gold``.
    """
    have = votes.cell_votes.astype(np.float64)
    top = votes.most_in_task(have)
    is_top = have == top[votes.cell_task]
    tops = votes.sum_in_task(is_top)
    below = np.where(is_top, 0.0, have)
    second = votes.most_in_task(below)
    seconds = votes.sum_in_task(~is_top & (have == second[votes.cell_task]))
    task, own, mine_top = votes.task, have[votes.cell], is_top[votes.cell]
    only_top = mine_top & (tops[task] == 1)
    # The largest count of a class other than the annotation's own, and how many classes have it.
    rival = np.where(only_top, second[task], top[task])
    rivals = np.where(only_top, seconds[task], tops[task] - mine_top)
    right = np.where(own - 1 > rival, 1.0, np.where(own - 1 == rival, 1 / (rivals + 1), 0.0))
    compared = votes.annotations[task] > 1
    is_known = known[task] != TIED
    right = np.where(is_known, votes.label == known[task], right * compared)
    workers = len(votes.workers)
    return (
        by_code(votes.worker, right, workers),
        by_code(votes.worker, is_known | compared, workers),
    )


def _reliability(votes: Votes) -> tuple[float, FloatArray]:
    """Return the crowd's agreement beyond chance in standard errors, and that of each worker."""
    others = votes.annotations[votes.task] - 1
    compared = others > 0
    same = (votes.cell_votes[votes.cell] - 1) / np.maximum(others, 1)
    chance = _chance(votes)
    gain, room = np.where(compared, same - chance, 0.0), np.where(compared, 1 - chance, 0.0)
    # Annotations of one task are not independent, so tasks are counted.
    by_task = by_code(votes.task, gain, len(votes.tasks))
    spread = float(np.sqrt((by_task**2).sum()))
    certainty = float(by_task.sum()) / spread if spread > 0 else 0.0
    if room.sum() <= 0:
        return 0.0, np.full(len(votes.workers), _USUAL)
    crowd = float(gain.sum() / room.sum())
    usual_room = float(room.sum() / compared.sum())
    own_gain = by_code(votes.worker, gain, len(votes.workers))
    own_room = by_code(votes.worker, room, len(votes.workers))
    added = SHRINKAGE * usual_room
    shrunk = (own_gain + added * crowd) / (own_room + added)
    return certainty, np.clip(shrunk, -_LARGEST, _LARGEST)


def _chance(votes: Votes) -> FloatArray:
    """Return for each annotation the frequency of its label among those of all other workers."""
    given = np.bincount(votes.label, minlength=len(votes.classes))
    _, pair, own = np.unique(
        votes.worker * len(votes.classes) + votes.label, return_inverse=True, return_counts=True
    )
    others = len(votes.label) - np.bincount(votes.worker)[votes.worker]
    return np.asarray((given[votes.label] - own[pair]) / np.maximum(others, 1), dtype=np.float64)


def _posterior(votes: Votes, leading: BoolArray, skill: FloatArray) -> FloatArray:
    """Return the probability of the leading class, or of each of them."""
    classes = max(len(votes.classes), 2)
    right = np.clip(1 / classes + (1 - 1 / classes) * skill, 1 - _LARGEST, _LARGEST)
    weight = np.log(right * (classes - 1) / (1 - right))
    score = by_code(votes.cell, weight[votes.worker], len(leading))
    share = cell_shares(votes, score, classes)
    return votes.most_in_task(np.where(leading, share, 0.0))


def cell_shares(votes: Votes, score: FloatArray, classes: int) -> FloatArray:
    """Return ``exp(score)`` of each cell divided by the sum over all classes of its task.

    Classes without a vote on the task have the score 0.
    """
    unvoted = classes - votes.sum_in_task(np.ones(len(score)))
    highest = np.maximum(votes.most_in_task(score), 0.0)
    share = np.exp(score - highest[votes.cell_task])
    total = votes.sum_in_task(share) + unvoted * np.exp(-highest)
    return np.asarray(share / total[votes.cell_task], dtype=np.float64)
