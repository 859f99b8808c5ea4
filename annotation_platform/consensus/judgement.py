"""How often a reference confirms an annotator, and whether chance alone would explain it."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.decisions import Objects, compare
from annotation_platform.consensus.intervals import clustered_share, share_interval
from annotation_platform.consensus.kappa import beyond_chance
from annotation_platform.consensus.units import NOT_DRAWN

SPAMMER, ADVERSARY = "spammer", "adversary"

_COMPARISONS = 100
"""Annotations of an annotator compared with another image's reference, to estimate chance."""

_NAN = float("nan")

ObjectsBy = dict[tuple[Hashable, ...], Objects]


@dataclass(frozen=True)
class Judgement:
    """The judgement of one annotator by one reference."""

    share: float = _NAN  # of decisions that it confirms
    low: float = _NAN  # ends of its interval
    high: float = _NAN
    beyond_chance: float = _NAN  # the share, scaled so that other images' references give 0
    verdict: str | None = None  # ADVERSARY, SPAMMER, empty if clearly neither; None: undecided


@dataclass(frozen=True)
class Judge:
    """Judges annotators by one reference."""

    iou_threshold: float
    level: float
    chance: float  # agreement beyond chance up to this value counts as none
    useful: float  # least agreement beyond chance of an annotator who is no spammer

    def judge_all(
        self,
        decisions: pd.DataFrame,
        annotations: ObjectsBy,
        references: ObjectsBy,
        *,
        rng: np.random.Generator,
    ) -> dict[Hashable, Judgement]:
        """Return the judgement of each annotator with a decision.

        Args:
            decisions: a table of ``decisions.py``.
            annotations: regions by annotator and by the key of ``references``.
            references: regions by task or by image.
            rng: draws the other images that annotations are compared with.
        """
        pairs: dict[Hashable, list[tuple[Objects, Objects]]] = {}
        for (person, where), annotation in annotations.items():
            if (where,) in references:
                pairs.setdefault(person, []).append((annotation, references[where,]))
        return {
            person: self._judge(
                own, self._by_chance([] if own["choice"].all() else pairs.get(person, []), rng)
            )
            for person, own in decisions.groupby("annotator", sort=True)
        }

    def _by_chance(
        self, pairs: Sequence[tuple[Objects, Objects]], rng: np.random.Generator
    ) -> tuple[float, float]:
        """Return the shares of right and of found objects against references of other images."""
        if len(pairs) < 2:
            return _NAN, _NAN
        mine = np.arange(_COMPARISONS) % len(pairs)
        other = (mine + rng.integers(1, len(pairs), len(mine))) % len(pairs)
        decided = [
            decision
            for one, two in zip(mine.tolist(), other.tolist(), strict=True)
            for decision in compare(pairs[one][0], pairs[two][1], iou_threshold=self.iou_threshold)
        ]
        right = [given == reference for given, reference in decided]
        found = [(given == NOT_DRAWN) == (reference == NOT_DRAWN) for given, reference in decided]
        return float(np.mean(right)), float(np.mean(found))

    def _judge(self, own: pd.DataFrame, by_chance: tuple[float, float]) -> Judgement:
        right = (own["given"] == own["reference"]).to_numpy()
        drawn = (own["given"] != NOT_DRAWN).to_numpy()
        there = (own["reference"] != NOT_DRAWN).to_numpy()
        choice = own["choice"].to_numpy(dtype=bool)
        measured = clustered_share(right, own["image_id"], level=self.level)
        expected = np.where(choice, _names_by_chance(own[choice]), by_chance[0]).mean()
        named = drawn & there
        verdicts = [
            # First classes, of objects that both drew and of choices; then presence of objects.
            # Finding fewer objects than chance is carelessness; naming worse than chance is intent.
            self._verdict(own[named], right[named], _names_by_chance(own[named]), adversarial=True),
            self._verdict(own[~choice], (drawn == there)[~choice], by_chance[1]),
        ]
        interval = share_interval(measured, level=self.level)
        return Judgement(
            share=measured.share,
            low=interval.low,
            high=interval.high,
            beyond_chance=float(beyond_chance(measured.share, float(expected))),
            verdict=_worst([each for each in verdicts if each != _NO_DECISIONS]),
        )

    def _verdict(
        self,
        own: pd.DataFrame,
        hits: npt.NDArray[np.bool_],
        expected: float,
        *,
        adversarial: bool = False,
    ) -> str | None:
        if not len(own) or not expected < 1.0 - 1e-12:
            return _NO_DECISIONS
        measured = clustered_share(hits, own["image_id"], level=self.level)
        ends = share_interval(measured, level=self.level)
        low, high = (float(beyond_chance(end, expected)) for end in (ends.low, ends.high))
        if high < 0 and adversarial:
            return ADVERSARY
        if low <= self.chance:
            return SPAMMER if high < self.useful else None
        return ""


_NO_DECISIONS = "no decisions"


def _worst(verdicts: Sequence[str | None]) -> str | None:
    for verdict in (ADVERSARY, SPAMMER):
        if verdict in verdicts:
            return verdict
    return None if not verdicts or None in verdicts else ""


def _names_by_chance(own: pd.DataFrame) -> float:
    """Return how often names agree by chance, given each side's frequencies; NaN without names."""
    if own.empty:
        return _NAN
    given, reference = (own[side].value_counts(normalize=True) for side in ("given", "reference"))
    return float((given * reference.reindex(given.index, fill_value=0.0)).sum())
