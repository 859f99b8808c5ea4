"""Backtest: quality and cost of another policy, estimated from the annotations of past rounds.

``docs/algorithms/backtest.md`` describes the draws, the ground truth, and the measured accuracy.
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
"""Draws of annotations: their error is small compared with that of the sample of images."""

AMOUNTS = (ANNOTATIONS, SECONDS)
COST = "cost"

_REPLAYED = {"annotations_per_task", "annotations_by_class", "vote_margin", "maximum_annotations"}
"""Settings of ``labeling`` that a backtest can change."""


@dataclass(frozen=True)
class Backtest:
    """Both policies on the same images; ``figures`` by name.

    Annotations, seconds and cost are sums over ``images``; the other figures are shares.
    """

    rounds: list[str]
    images: int  # images of labelling tasks, counted once per round
    truth: dict[str, int]  # images with ground truth, by source
    iou_threshold: float  # least overlap at which an object counts as found, for both policies
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
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Backtest:
    """Return the figures of another policy on recorded annotations, and those of the recorded one.

    The same record, policies and seed give the same figures. The recorded policy has all recorded
    annotations; they are resolved and reviewed by today's rules.

    Args:
        record: the record of past rounds.
        today: policy that resolves and reviews the recorded annotations, and sets the IoU of hits.
        other: the policy to replay; differences that cannot be replayed are in the notes.
        method: method by which the other policy decides classes; empty: as in a merge.
        draws: number of draws of its annotations, at least 1.
        seed: seed of the draws, and of the intervals.
        progress: called with the number of finished draws, and of all draws.

    Raises:
        DataError: there is no ground truth, or the record has too few annotations for the policy.
    """
    require_truth(record)
    rng = np.random.default_rng(seed)
    record, sampler, drawn = _drawn(record, other, draws, rng)
    scorer = Scorer(record, iou_threshold=today.consensus.iou_threshold)
    recorded = scorer.score(_counting(record.labels, today), today)
    scores: list[FloatArray] = []
    # All draws that choose every annotation have the same score.
    whole: FloatArray | None = None
    for chosen in drawn:
        rows = sampler.rows(chosen)
        is_whole = len(rows) == len(record.labels)
        known = whole if is_whole else None
        scores.append(scorer.score(rows, other, method=method) if known is None else known)
        whole = scores[-1] if is_whole else whole
        progress(len(scores), len(drawn))
    found = compare(
        recorded[None],
        np.stack(scores),
        shares=tuple(name not in AMOUNTS for name in FIGURES),
        rng=rng,
    )
    images = int(recorded[1, FIGURES.index(ANNOTATIONS)].sum())
    figures = {name: each for name, each in zip(FIGURES, found, strict=True) if each is not None}

    return Backtest(
        rounds=record.rounds,
        images=images,
        truth=_images_by_source(record),
        iou_threshold=today.consensus.iou_threshold,
        draws=draws,
        figures=_in_all(figures, images),
        notes=[*record.notes, *_not_replayed(today, other), *_untimed(record, today, other)],
    )


def _images_by_source(record: Record) -> dict[str, int]:
    counts = record.truth.drop_duplicates(["round_id", "image_id"])["source"].value_counts()
    return {str(source): int(count) for source, count in counts.items()}


def require_truth(record: Record) -> None:
    """Raise a DataError if the record has no ground truth."""
    if record.truth.empty:
        notes = "".join(f" {note[0].upper()}{note[1:]}." for note in record.notes)
        raise DataError(
            f"{', '.join(record.rounds)}: no image has ground truth that is independent of the"
            f" annotations under test.{notes} Add gold tasks (labeling.gold_share), or have a"
            " random share reviewed (review.sample_share)."
        )


def _drawn(
    record: Record, other: Policy, draws: int, rng: np.random.Generator
) -> tuple[Record, Draws, list[BoolArray]]:
    """Return the record of the tasks that can be replayed, the sampler, and its draws."""
    record = replace(record, labels=_with_times(record.labels))
    sampler = Draws(_counting(record.labels, other), other.labeling, record.predicted)
    each = [sampler.draw(rng) for _ in range(draws)]
    short = np.any([draw.short for draw in each], axis=0)
    tasks = sampler.annotations.drop_duplicates("task_id")
    note = require_support(short, sampler.have, record.has_truth(tasks), other.labeling)
    alone = record.labels["task_id"].nunique() - len(sampler.tasks)
    if alone:
        reason = f"{alone} tasks with annotations of disregarded annotators only are left out"
        note = "; ".join(filter(None, (note, reason)))
    supported = record.of_tasks(sampler.tasks[~short], note)
    require_truth(supported)
    return supported, sampler, [draw.chosen & ~short[sampler.task] for draw in each]


def _counting(labels: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Return the labels of the annotators who count under a policy."""
    counts = ~labels["annotator"].isin(policy.consensus.disregarded)
    return labels[counts].reset_index(drop=True)


def _with_times(labels: pd.DataFrame) -> pd.DataFrame:
    """Return the labels with missing times replaced by the mean time, if any is known."""
    times = labels.drop_duplicates("annotation_id")["lead_time_seconds"]
    return labels.assign(lead_time_seconds=labels["lead_time_seconds"].fillna(times.mean()))


def with_cost(found: Backtest, price_per_hour: float) -> Backtest:
    """Return a backtest with the figure ``cost`` as well, if seconds are known.

    Args:
        found: the backtest.
        price_per_hour: price of an hour of work; 0: the cost is not computed.
    """
    if price_per_hour <= 0 or SECONDS not in found.figures:
        return found
    cost = _times(found.figures[SECONDS], price_per_hour / 3600.0)
    return replace(found, figures={**found.figures, COST: cost})


def _in_all(figures: dict[str, Figure], images: int) -> dict[str, Figure]:
    """Return the figures with amounts of all images instead of one."""
    return {
        name: _times(each, images) if name in AMOUNTS else each for name, each in figures.items()
    }


def _times(figure: Figure, factor: float) -> Figure:
    return Figure(*(each.times(factor) for each in vars(figure).values()))


def _not_replayed(today: Policy, other: Policy) -> list[str]:
    """Return a note on the differences of two policies that would have changed annotations."""
    differing = [
        f"{section}.{key}"
        for section in ("ontology", "labeling", "masking")
        for key, was in getattr(today, section)
        if key not in _REPLAYED and was != getattr(getattr(other, section), key)
    ]
    if not differing:
        return []
    return [f"not replayed, because they would change annotations: {', '.join(differing)}"]


def _untimed(record: Record, today: Policy, other: Policy) -> list[str]:
    if record.review_seconds or "manual" not in (today.review.gate, other.review.gate):
        return []
    return ["no review was recorded, so the seconds are those of the annotations alone"]
