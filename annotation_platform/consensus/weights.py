"""How much each person's word counts, learned from how the others answered the same tasks.

Two numbers a person: the log odds of being right about whether an object is there, and how
precisely they draw. Neither looks at who is right: the others of the round are the yardstick, so
a majority that errs together is believed. ``docs/algorithms/fusion.md`` derives both.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.objects import Candidate
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import CLASSIFICATIONS

_PSEUDO_ANNOTATIONS = 6.0
"""So many decisions of the crowd's mean are added to each person's own."""

_LOG_ODDS = (0.1, 4.6)
"""Nobody's word counts for nothing or against itself, and nobody errs less than once in 100."""

_PRECISION = (0.25, 4.0)
"""Nobody's hand counts for less than a quarter, or more than four times, of the usual."""

_LEAST = 1e-3
"""No share is taken for less than this, or for more than all but this."""

_UNKNOWN = 0.1
"""Rate of errors of somebody of whom nothing is known, in a round of which nothing is known."""


@dataclass(frozen=True)
class Weights:
    """What the people of a round weigh; somebody not named weighs as much as the usual one."""

    reliability: dict[str, float]  # log odds that they are right about an object's presence
    precision: dict[str, float]  # one over the variance of what they draw, 1 the usual

    def of(self, owners: Sequence[str]) -> float:
        """Return the sum of the log odds of these people."""
        return float(sum(self.reliability[owner] for owner in owners))


def weigh_people(
    candidates: Sequence[Candidate], people: Sequence[str], quality: pd.DataFrame | None = None
) -> Weights:
    """Return the weights of these people.

    Args:
        candidates: everything that somebody drew or chose in the round.
        people: everybody who answered.
        quality: what is known of people from elsewhere: ``annotator``, ``quality`` (the share of
            their decisions that are right, missing where not known) and, if known, ``answers``,
            on how many it rests. Of an ``annotator_quality`` table ``gold_quality`` and
            ``gold_annotations`` are read instead: the rest of it comes from this round's answers.
    """
    reliability = _from_round(candidates, people)
    if quality is not None:
        reliability |= _corrected(reliability, quality)
    return Weights(reliability, precision=_precision(candidates, people))


def _corrected(reliability: dict[str, float], quality: pd.DataFrame) -> dict[str, float]:
    """Return the log odds of those whose quality is known.

    How far they are apart is taken from their quality, the level from the round: a share of right
    decisions counts wrong classes too, and says little of how often objects are overlooked.
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
    """Return the mean of the log odds of not overlooking and of not seeing what is not there."""
    wrong, asked = _errors(candidates, people)
    every = asked.sum(axis=0)
    usual = np.where(every > 0, wrong.sum(axis=0) / np.maximum(every, 1.0), _UNKNOWN)
    rates = (wrong + _PSEUDO_ANNOTATIONS * usual) / (asked + _PSEUDO_ANNOTATIONS)
    odds = np.clip(_log_odds(1.0 - rates), *_LOG_ODDS).mean(axis=1)
    return dict(zip(people, odds.tolist(), strict=True))


def _errors(
    candidates: Sequence[Candidate], people: Sequence[str]
) -> tuple[FloatArray, FloatArray]:
    """Return how often each errs, and out of how many decisions; ``(people, 2)`` each.

    The first column is of objects that the others see, and wrong is not to see them; the second
    of objects that the person sees, and wrong is that the others do not. Where the others are
    evenly split they say nothing.
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
    """Return how precisely each person draws: 1 / variance, the usual person's being 1.

    What two people's regions of one object lack of covering each other is taken as the sum of
    what each lacks of the truth: (1 - overlap)² = v_a + v_b in the mean over the objects that both
    drew. Least squares over all pairs, drawn towards the mean by some pseudo-objects, gives v.
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
