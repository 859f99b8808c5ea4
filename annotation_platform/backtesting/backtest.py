"""What another policy would have reached with the answers of past rounds, and what it would cost.

``docs/algorithms/backtest.md`` says what is drawn, which truth counts, and how well it predicts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from annotation_platform.backtesting.draws import BoolArray, Draws
from annotation_platform.backtesting.figures import Figure, compare
from annotation_platform.backtesting.record import Record, require_support
from annotation_platform.backtesting.scores import ANNOTATIONS, FIGURES, SECONDS, Scorer
from annotation_platform.errors import DataError
from annotation_platform.policy import Policy
from annotation_platform.schema.geometry import FloatArray

DRAWS = 20
"""Draws of answers: what another 20 would change is small beside what other images would."""

AMOUNTS = (ANNOTATIONS, SECONDS)
COST = "cost"

_REPLAYED = {"annotations_per_task", "annotations_by_class", "stop_at_lead", "most_annotations"}
"""Settings of ``labeling`` that the record can be replayed under."""


@dataclass(frozen=True)
class Backtest:
    """Both policies on the same images; ``figures`` by name.

    Answers, seconds and cost are sums over ``images``; the other figures are shares.
    """

    rounds: list[str]
    images: int  # that were to be labelled, counted once for each round
    truth: dict[str, int]  # images whose truth is known, by where it is known from
    iou_threshold: float  # from which on an object counts as found, under both policies
    draws: int
    figures: dict[str, Figure]
    notes: list[str]


def backtest(
    record: Record,
    today: Policy,
    other: Policy,
    *,
    method: str = "",
    draws: int = DRAWS,
    seed: int = 0,
    price_per_hour: float = 0.0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Backtest:
    """Return what a policy would have made of recorded answers, beside what was made of them.

    The same record, policies and seed give the same figures. The policy as it was recorded has all
    recorded answers; they are resolved and reviewed by today's rules.

    Args:
        record: of past rounds.
        today: says how the recorded answers are resolved and reviewed, and from which overlap on
            an object counts as found.
        other: the other policy: how many answers it asks for, how it makes one of them, and what
            it has reviewed. What else differs is in the notes.
        method: by which the other policy decides classes; empty: as a merge decides.
        draws: how often its answers are drawn, at least 1.
        seed: of the draws, and of the intervals.
        price_per_hour: of people; 0: no cost is told.
        progress: called with the draws that are done, and all of them.

    Raises:
        DataError: no truth is known, or the record has too few answers for the policy.
    """
    require_truth(record)
    rng = np.random.default_rng(seed)
    record, lots, drawn = _drawn(record, other, draws, rng)
    scorer = Scorer(record, iou_threshold=today.consensus.iou_threshold)
    recorded = scorer.score(_counting(record.labels, today), today)
    scores = []
    # With all the answers there are, every draw comes to the same.
    whole: FloatArray | None = None
    for number, chosen in enumerate(drawn):
        rows = lots.rows(chosen)
        everything = len(rows) == len(record.labels)
        if not everything or whole is None:
            scores.append(scorer.score(rows, other, method=method))
        else:
            scores.append(whole)
        if everything:
            whole = scores[-1]
        progress(number + 1, len(drawn))
    found = compare(
        recorded[None],
        np.stack(scores),
        shares=tuple(name not in AMOUNTS for name in FIGURES),
        rng=rng,
    )
    images = int(recorded[1, FIGURES.index(ANNOTATIONS)].sum())
    figures = {name: each for name, each in zip(FIGURES, found, strict=True) if each is not None}
    truth = record.truth.drop_duplicates(["round_id", "image_id"])["source"].value_counts()
    return Backtest(
        rounds=record.rounds,
        images=images,
        truth={str(source): int(count) for source, count in truth.items()},
        iou_threshold=today.consensus.iou_threshold,
        draws=draws,
        figures=_in_all(figures, images, price_per_hour),
        notes=[*record.notes, *_not_replayed(today, other), *_untimed(record, today, other)],
    )


def require_truth(record: Record) -> None:
    """Raise a DataError where the record knows of no image what is true."""
    if record.truth.empty:
        why = "".join(f" {note[0].upper()}{note[1:]}." for note in record.notes)
        raise DataError(
            f"{', '.join(record.rounds)}: of no image is it known what is true, save from the"
            f" answers that are to be judged.{why} Ask about images whose answer is known"
            " (labeling.gold_share), or have a random share reviewed (review.sample_share)."
        )


def _drawn(
    record: Record, other: Policy, draws: int, rng: np.random.Generator
) -> tuple[Record, Draws, list[BoolArray]]:
    """Return the tasks a policy can be replayed on, what draws its answers, and those chosen."""
    record = replace(record, labels=_with_times(record.labels))
    lots = Draws(_counting(record.labels, other), other.labeling, record.proposed)
    each = [lots.draw(rng) for _ in range(draws)]
    short = np.any([draw.short for draw in each], axis=0)
    tasks = lots.annotations.drop_duplicates("task_id")
    note = require_support(short, lots.have, record.has_truth(tasks), other.labeling)
    alone = record.labels["task_id"].nunique() - len(lots.tasks)
    if alone:
        said = f"{alone} tasks that nobody else answered than the disregarded are left out"
        note = "; ".join(filter(None, (note, said)))
    kept = record.of_tasks(lots.tasks[~short], note)
    require_truth(kept)
    return kept, lots, [draw.chosen & ~short[lots.task] for draw in each]


def _counting(labels: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Return the labels of those whose answers count under a policy."""
    counts = ~labels["annotator"].isin(policy.consensus.disregarded)
    return labels[counts].reset_index(drop=True)


def _with_times(labels: pd.DataFrame) -> pd.DataFrame:
    """Return labels of which each has a time, if any has: that of an answer without is the mean."""
    times = labels.drop_duplicates("annotation_id")["lead_time_seconds"]
    return labels.assign(lead_time_seconds=labels["lead_time_seconds"].fillna(times.mean()))


def _in_all(figures: dict[str, Figure], images: int, price_per_hour: float) -> dict[str, Figure]:
    """Return the figures with amounts of all images instead of one, and the cost if it is asked."""
    whole = {
        name: _times(each, images) if name in AMOUNTS else each for name, each in figures.items()
    }
    if price_per_hour > 0 and SECONDS in whole:
        whole[COST] = _times(whole[SECONDS], price_per_hour / 3600.0)
    return whole


def _times(figure: Figure, factor: float) -> Figure:
    return Figure(*(each.times(factor) for each in vars(figure).values()))


def _not_replayed(today: Policy, other: Policy) -> list[str]:
    """Return what differs between two policies and would have changed what people said."""
    differing = [
        f"{section}.{key}"
        for section in ("ontology", "labeling", "masking")
        for key, was in getattr(today, section)
        if key not in _REPLAYED and was != getattr(getattr(other, section), key)
    ]
    if not differing:
        return []
    return [f"not replayed, the answers are as they were given: {', '.join(differing)}"]


def _untimed(record: Record, today: Policy, other: Policy) -> list[str]:
    if record.review_seconds or "manual" not in (today.review.gate, other.review.gate):
        return []
    return ["no review was recorded, so the seconds are those of the answers alone"]
