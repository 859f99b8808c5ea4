"""Quality of each annotator, from gold tasks and from the others, with flags for a manual check.

``docs/algorithms/agreement.md`` explains the numbers and their limits.
"""

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.consensus.anchoring import anchoring_by_person
from annotation_platform.consensus.anomalies import label_anomalies
from annotation_platform.consensus.decisions import (
    against_gold,
    against_others,
    consensus_objects,
    objects_by,
)
from annotation_platform.consensus.judgement import Judge, Judgement
from annotation_platform.consensus.units import need_columns, region_units, voting_rows
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import CLASSIFICATIONS
from annotation_platform.schema.tables import AnnotatorQuality, records

TOO_FAST, RUBBER_STAMP = "too-fast", "rubber-stamp"

COLUMNS = [
    "annotator",
    "annotations",
    "images",
    "quality",
    "low",
    "high",
    "gold_annotations",
    "gold_quality",
    "gold_low",
    "gold_high",
    "agreement_with_others",
    "seconds_per_annotation",
    "unchanged_share",
    "flags",
]

_GOLD = ["image_id", "shape", "class_name", *BOX_COLUMNS]


_SAME = 0.5
"""Least overlap of two regions around the same object."""
_LEVEL = 0.95
"""Confidence level of the intervals."""
_CHANCE = 0.1
"""Agreement beyond chance up to this value counts as none."""
_USEFUL = 0.4
"""Least agreement beyond chance of an annotator who is no spammer."""
_FAST_SHARE = 0.2
"""Least share of annotations that were too fast, of at least three."""
_UNCHANGED = 0.3
"""An annotator is flagged if the interval of the anchoring is above this value."""


def quality_table(
    round_id: str, human_labels: pd.DataFrame, gold: pd.DataFrame, decisions: pd.DataFrame
) -> pd.DataFrame:
    """Return the ``annotator_quality`` table of a round.

    Args:
        round_id: the round.
        human_labels: its ``human_labels``.
        gold: ground truth of gold tasks; see ``annotator_quality``.
        decisions: the result of ``anchoring.pre_annotation_decisions``.
    """
    anchoring = anchoring_by_person(decisions)
    measured = annotator_quality(human_labels, gold, anchoring=anchoring)
    return AnnotatorQuality.from_rows(records(measured.assign(round_id=round_id)))


def annotator_quality(
    human_labels: pd.DataFrame,
    gold: pd.DataFrame | None = None,
    *,
    anchoring: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return one row per annotator, in the order of their names.

    ``quality`` is the share of an annotator's decisions (``decisions.py``) that the consensus of
    the others confirms; ``gold_quality`` the share that the gold tasks confirm. Their intervals
    are Korn and Graubard's, with images as clusters. ``agreement_with_others`` is ``quality``
    beyond chance, where chance compares the annotator's annotations with the consensus of other
    images. Values that cannot be measured are missing: with one annotation per task and no gold
    there is no quality.

    ``flags`` are separated by commas. A flag is a reason for a manual check, never a verdict. The
    flags are ``adversary`` (agrees less than by chance), ``spammer`` (no more than by chance),
    ``too-fast`` and ``rubber-stamp``. The first two are judged by gold tasks if there are enough of
    them, otherwise by the others, separately for finding objects and for naming them: an annotator
    is a spammer if the interval of the agreement beyond chance reaches down to ``_CHANCE`` and not
    up to ``_USEFUL``, an adversary if the interval for naming is below 0. So a few annotations give
    no flag.

    Args:
        human_labels: a ``human_labels`` table. ``unsure`` annotations do not vote.
        gold: ground truth: ``image_id``, ``shape``, ``class_name`` and the box; shape ``none``
            for an image without objects.
        anchoring: the result of ``anchoring_by_person``; without it ``rubber-stamp`` is not set.

    Returns:
        The columns ``COLUMNS``: those of the table ``annotator_quality`` except the round.

    Raises:
        TableError: a column is missing.
    """
    need_columns(human_labels, ["annotation_id", "lead_time_seconds", "weights_sha256", "changed"])
    known = pd.DataFrame({name: [] for name in _GOLD}) if gold is None else gold
    need_columns(known, _GOLD)
    by_others, by_gold = _judgements(
        voting_rows(human_labels),
        known,
        Judge(_SAME, _LEVEL, _CHANCE, _USEFUL),
        # Other images are drawn for the agreement by chance.
        np.random.default_rng(0),
    )
    flagged = _flagged(human_labels, anchoring)
    annotations = human_labels.drop_duplicates("annotation_id")
    annotations = annotations.assign(known=annotations["image_id"].isin(known["image_id"]))
    rows = [
        _row(
            own,
            by_others.get(person, Judgement()),
            by_gold.get(person, Judgement()),
            flags=[flag for flag, people in flagged.items() if person in people],
        )
        for person, own in annotations.groupby("annotator", sort=True)
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _judgements(
    votes: pd.DataFrame, gold: pd.DataFrame, judge: Judge, rng: np.random.Generator
) -> tuple[dict[Hashable, Judgement], dict[Hashable, Judgement]]:
    """Return the judgement of each annotator by the others, and by gold tasks."""
    regions = region_units(votes, iou_threshold=judge.iou_threshold)
    by_others = judge.judge_all(
        against_others(votes, regions),
        objects_by(votes, ["annotator", "task_id"]),
        consensus_objects(votes, regions),
        rng=rng,
    )
    by_gold = judge.judge_all(
        against_gold(votes, gold, iou_threshold=judge.iou_threshold),
        objects_by(votes, ["annotator", "image_id"]),
        objects_by(gold[~gold["shape"].isin(CLASSIFICATIONS)], ["image_id"]),
        rng=rng,
    )
    return by_others, by_gold


def _row(
    own: pd.DataFrame, others: Judgement, gold: Judgement, *, flags: list[str]
) -> dict[str, Any]:
    """Return the row of an annotator; ``own`` has one row per annotation, ``known`` for gold."""
    # Gold tasks decide if there are enough of them: the others may all be wrong.
    verdict = others.verdict if gold.verdict is None else gold.verdict
    began = own.loc[own["weights_sha256"] != "", "changed"]
    return {
        "annotator": own["annotator"].iloc[0],
        "annotations": len(own),
        "images": own["image_id"].nunique(),
        "quality": others.share,
        "low": others.low,
        "high": others.high,
        "gold_annotations": int(own["known"].sum()),
        "gold_quality": gold.share,
        "gold_low": gold.low,
        "gold_high": gold.high,
        "agreement_with_others": others.beyond_chance,
        "seconds_per_annotation": float(own["lead_time_seconds"].median()),
        "unchanged_share": float((~began.astype(bool)).mean()) if len(began) else float("nan"),
        "flags": ",".join([verdict, *flags] if verdict else flags),
    }


def _flagged(
    human_labels: pd.DataFrame, anchoring: pd.DataFrame | None
) -> dict[str, set[Hashable]]:
    """Return the annotators with each flag that does not depend on a reference."""
    return {
        TOO_FAST: _too_fast_people(human_labels),
        RUBBER_STAMP: _rubber_stamps(anchoring),
    }


def _too_fast_people(human_labels: pd.DataFrame) -> set[Hashable]:
    findings = label_anomalies(human_labels)
    fast = findings[findings["kind"] == "too-fast"].groupby("annotator").size()
    annotations = human_labels.groupby("annotator")["annotation_id"].nunique()
    return set(fast[(fast >= 3) & (fast >= _FAST_SHARE * annotations.reindex(fast.index))].index)


def _rubber_stamps(anchoring: pd.DataFrame | None) -> set[Hashable]:
    if anchoring is None:
        return set()
    need_columns(anchoring, ["annotator", "low"])
    return set(anchoring.loc[anchoring["low"] > _UNCHANGED, "annotator"])
