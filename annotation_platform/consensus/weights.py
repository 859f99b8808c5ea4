"""The weight of each annotator, learned from how the others annotated the same tasks.

Two numbers per annotator: the log odds of being right about the presence of an object, and the
precision of the drawn regions. Neither uses ground truth: the others of the round are the
reference, so a majority that errs together is believed. ``docs/algorithms/fusion.md`` derives both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.objects import Candidate
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import CLASSIFICATIONS

_PSEUDO_ANNOTATIONS = 6.0
"""Number of decisions with the crowd's mean that are added to each annotator's own."""

_LOG_ODDS = (0.1, 4.6)
"""Every annotator counts for something and errs at least once in 100 decisions."""

_PRECISION = (0.25, 4.0)
"""Smallest and largest precision of an annotator, relative to the usual one."""

_LEAST = 1e-3
"""Shares are clipped to the range from this value to one minus it."""

_UNKNOWN = 0.1
"""Error rate of an annotator without data, in a round without data."""


@dataclass(frozen=True)
class Weights:
    """The weights of the annotators of a round."""

    reliability: dict[str, float]  # log odds of being right about an object's presence
    precision: dict[str, float]  # inverse variance of the drawn regions, 1 is usual

    def of(self, owners: Sequence[str]) -> float:
        """Return the sum of the log odds of these annotators."""
        return float(sum(self.reliability[owner] for owner in owners))


def weigh_people(
    candidates: Sequence[Candidate], people: Sequence[str], quality: pd.DataFrame | None = None
) -> Weights:
    """Return the weights of these annotators.

    Args:
        candidates: every object and choice of the round.
        people: every annotator of the round.
        quality: quality measured elsewhere: ``annotator``, ``quality`` (the share of right
            decisions, missing if unknown) and optionally ``annotations``, the number that it was
            measured on. From an ``annotator_quality`` table ``gold_quality`` and
            ``gold_annotations`` are read instead: its other columns come from this round.
    """
    reliability = _from_round(candidates, people)
    if quality is not None:
        reliability |= _corrected(reliability, quality)
    return Weights(reliability, precision=_precision(candidates, people))


def _corrected(reliability: dict[str, float], quality: pd.DataFrame) -> dict[str, float]:
    """Return the log odds of the annotators whose quality is known.

    Their differences come from their quality, their mean from the round: a share of right
    decisions also counts wrong classes, and measures overlooked objects poorly.
    """
    share_of, count_of = ("quality", "annotations")
    if "gold_quality" in quality.columns:
        share_of, count_of = ("gold_quality", "gold_annotations")
    known = quality.dropna(subset=[share_of]).set_index("annotator")
    known = known[known.index.isin(list(reliability))]
    if known.empty:
        return {}
    share = known[share_of].astype("float64")
    if count_of in known.columns:
        count = known[count_of].astype("float64")
        share = (share * count + share.mean() * _PSEUDO_ANNOTATIONS) / (count + _PSEUDO_ANNOTATIONS)
    odds = _log_odds(np.asarray(share, dtype=np.float64))
    level = np.mean([reliability[person] for person in known.index])
    corrected = np.clip(level + odds - odds.mean(), *_LOG_ODDS)
    return dict(zip(known.index, corrected.tolist(), strict=True))


def _from_round(candidates: Sequence[Candidate], people: Sequence[str]) -> dict[str, float]:
    """Return the mean of the log odds of not overlooking objects and of not inventing them."""
    wrong, asked = _errors(candidates, people)
    every = asked.sum(axis=0)
    usual = np.where(every > 0, wrong.sum(axis=0) / np.maximum(every, 1.0), _UNKNOWN)
    rates = (wrong + _PSEUDO_ANNOTATIONS * usual) / (asked + _PSEUDO_ANNOTATIONS)
    odds = np.clip(_log_odds(1.0 - rates), *_LOG_ODDS).mean(axis=1)
    return dict(zip(people, odds.tolist(), strict=True))


def _errors(
    candidates: Sequence[Candidate], people: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Return the number of errors and of decisions of each annotator; ``(people, 2)`` each.

    The first column counts objects that the others see, with an error if the annotator does not;
    the second counts objects that the annotator sees, with an error if the others do not. Objects
    on which the others are evenly split do not count.
    """
    number = {person: at for at, person in enumerate(people)}
    wrong, asked = np.zeros((len(people), 2)), np.zeros((len(people), 2))
    for candidate in candidates:
        others = len(candidate.task.voters) - 1
        for seen, group in ((True, candidate.owners), (False, candidate.absent)):
            lead = 2 * (len(candidate.owners) - seen) - others
            rows = [number[person] for person in group]
            if lead > 0:
                asked[rows, 0] += 1
                wrong[rows, 0] += not seen
            if seen and lead != 0:
                asked[rows, 1] += 1
                wrong[rows, 1] += lead < 0
    return wrong, asked


def _log_odds(share: FloatArray) -> FloatArray:
    within = np.clip(share, _LEAST, 1.0 - _LEAST)
    return np.asarray(np.log(within / (1.0 - within)), dtype=np.float64)


def _precision(candidates: Sequence[Candidate], people: Sequence[str]) -> dict[str, float]:
    """Return the precision of each annotator: 1 / variance, where the usual annotator has 1.

    The deviation of two annotators' regions of one object is modelled as the sum of their
    deviations from the truth: (1 - overlap)² = v_a + v_b on average over the objects that both
    drew. Least squares over all pairs, shrunk towards the mean by some pseudo-objects, gives v.
    """
    number = {person: at for at, person in enumerate(people)}
    gap = np.zeros((len(people), len(people)))
    count = np.zeros_like(gap)
    for candidate in candidates:
        rows = [number[owner] for owner in candidate.owners]
        if len(rows) > 1 and candidate.labels[0].shape not in CLASSIFICATIONS:
            at = np.ix_(rows, rows)
            gap[at] += (1.0 - candidate.overlap) ** 2
            count[at] += 1.0
    for each in (gap, count):
        np.fill_diagonal(each, 0.0)
    if gap.sum() <= 0:
        return dict.fromkeys(people, 1.0)
    usual = gap.sum() / count.sum() / 2
    own = np.diag(count.sum(axis=1) + _PSEUDO_ANNOTATIONS)
    variance = np.linalg.solve(own + count, gap.sum(axis=1) + _PSEUDO_ANNOTATIONS * usual)
    weight = usual / np.maximum(variance, usual / _PRECISION[1])
    return dict(zip(people, np.clip(weight, *_PRECISION).tolist(), strict=True))
