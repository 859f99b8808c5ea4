"""Anchoring: how far annotators adopt pre-annotations, measured against annotations without them.

Model: an annotator accepts a prediction that is shown unchanged with probability ``a``, the
anchoring, and otherwise annotates as without it. Then
``P(agrees with it | shown) = a + (1 - a) P(agrees with it | not shown)``, so that ``1 - a`` is the
ratio of the two rates of disagreement. Limits are in ``docs/algorithms/agreement.md``.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from annotation_platform.consensus.intervals import clustered_share, ratio_interval
from annotation_platform.consensus.units import need_columns, paired_iou, voting_rows
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS
from annotation_platform.schema.tables import HumanLabels

_COLUMNS = ["annotator", "image_id", "annotation_id", "class_name", "shown", "agreed"]
_NAN = float("nan")


@dataclass(frozen=True)
class Anchoring:
    """The anchoring of annotators to pre-annotations; ``note`` is the reason if it is missing."""

    shown: int  # decisions about predictions that were shown
    hidden: int  # decisions about predictions that were hidden
    shown_rate: float = _NAN  # share of the former that agree with the prediction, 0 to 1
    hidden_rate: float = _NAN  # share of the latter
    anchoring: float = _NAN  # the probability ``a``, 0 to 1; NaN if it cannot be measured
    low: float = _NAN  # lower end of its interval, 0 to 1; NaN if it cannot be measured
    high: float = _NAN  # upper end
    note: str = ""  # why it could not be measured; empty if it was


def crowd_anchoring(decisions: pd.DataFrame) -> Anchoring:
    """Return the anchoring of all annotators together.

    Annotators differ in skill and in their share of tasks without predictions, so rates are means
    over annotators, weighed as in Mantel and Haenszel's ratio of risks (1959; for risks Nurminen,
    1981): the decisions with predictions times those without, divided by all decisions. An
    annotator with only one kind of decisions has no weight.

    The interval is Koopman's for a ratio of shares, at effective sizes that account for several
    decisions on the same image. A negative estimate, which chance produces without anchoring, is 0.

    Args:
        decisions: one row per annotator and prediction, from ``pre_annotation_decisions``: columns
            ``annotator``, ``shown`` and ``agreed`` (bool) and, unless all decisions are
            independent, ``image_id``.

    Raises:
        TableError: a column is missing.
    """
    need_columns(decisions, ["annotator", "shown", "agreed"])
    shown = decisions["shown"].to_numpy(dtype=bool)
    person, people = pd.factorize(decisions["annotator"])
    seen = np.bincount(person[shown], minlength=len(people))
    hidden = np.bincount(person[~shown], minlength=len(people))
    weight = seen * hidden / np.maximum(seen + hidden, 1)
    own = np.where(shown, seen[person], hidden[person])
    return _measure(decisions, weight[person] / np.maximum(own, 1))


def anchoring_by_person(decisions: pd.DataFrame) -> pd.DataFrame:
    """Return the anchoring of each annotator, in the order of their names.

    Args:
        decisions: as for ``crowd_anchoring``.

    Returns:
        Column ``annotator`` and the fields of ``Anchoring``.

    Raises:
        TableError: a column is missing.
    """
    need_columns(decisions, ["annotator", "shown", "agreed"])
    rows = [
        {"annotator": person, **asdict(_measure(own, np.ones(len(own))))}
        for person, own in decisions.groupby("annotator", sort=True)
    ]
    return pd.DataFrame(rows, columns=["annotator", *Anchoring.__annotations__])


def pre_annotation_decisions(
    human_labels: pd.DataFrame, predictions: pd.DataFrame, *, agreement_iou: float = 0.95
) -> pd.DataFrame:
    """Return whether each annotation agrees with each prediction of its image, shown or hidden.

    An annotation agrees with a prediction if it has a region of the same class that overlaps it by
    at least ``agreement_iou`` (a region of any shape by its enclosing box), or the same choice.
    So a false prediction that was left unchanged counts as agreement; one that was moved, renamed
    or deleted does not. At 0.95 only nearly unchanged regions agree, and an annotator who accepts
    a good prediction counts as anchored by it; at 0.5 honest annotations agree with every correct
    prediction without seeing it, and the measure is how far wrong predictions are accepted.

    Args:
        human_labels: columns ``task_id``, ``image_id``, ``annotation_id``, ``annotator``,
            ``shape``, ``class_name``, the box and ``without_predictions``: whether
            the predictions were hidden. ``unsure`` annotations are left out.
        predictions: the predictions that were shown, and no others: columns ``image_id``,
            ``class_name`` and the box, which is missing for a predicted choice.
        agreement_iou: in ``(0, 1]``.

    Returns:
        Columns ``annotator``, ``image_id``, ``annotation_id``, ``class_name`` (of the prediction),
        ``shown`` and ``agreed``. An image without predictions gives no row.

    Raises:
        TableError: a column is missing.
    """
    need_columns(human_labels, ["annotation_id", "without_predictions", *BOX_COLUMNS])
    need_columns(predictions, ["image_id", "class_name", *BOX_COLUMNS])
    votes = voting_rows(human_labels)
    offered = predictions[["image_id", "class_name", *BOX_COLUMNS]]
    offered = offered.assign(prediction=np.arange(len(offered)))
    annotations = votes[
        [
            *(HumanLabels.annotator, HumanLabels.image_id),
            *(HumanLabels.annotation_id, HumanLabels.without_predictions),
        ]
    ].drop_duplicates("annotation_id")
    decisions = annotations.merge(offered, on="image_id")
    decisions = decisions.sort_values(["annotation_id", "prediction"])
    # Each label of an annotation, paired with each prediction of the same class and image.
    labels = votes[
        [
            *(HumanLabels.image_id, HumanLabels.annotation_id),
            *(HumanLabels.shape, HumanLabels.class_name, *BOX_COLUMNS),
        ]
    ]
    pairs = labels.merge(offered, on=["image_id", "class_name"], suffixes=("", "_offered"))
    predicted = pairs[[f"{name}_offered" for name in BOX_COLUMNS]]
    near = paired_iou(pairs[BOX_COLUMNS], predicted) >= agreement_iou
    # A point has no area to overlap, but it can be left exactly where it was predicted.
    near |= (pairs[BOX_COLUMNS].to_numpy() == predicted.to_numpy()).all(axis=1)
    chosen = pairs["shape"].isin(CLASSIFICATIONS) & predicted.isna().any(axis=1)
    agreeing = pairs[(near & pairs["shape"].isin(REGIONS)) | chosen]
    key = ["annotation_id", "prediction"]
    agreed = pd.MultiIndex.from_frame(decisions[key]).isin(pd.MultiIndex.from_frame(agreeing[key]))
    shown = ~decisions["without_predictions"].astype(bool)
    decisions = decisions.assign(shown=shown, agreed=agreed)
    return decisions[_COLUMNS].reset_index(drop=True)


def _measure(decisions: pd.DataFrame, weights: FloatArray) -> Anchoring:
    """Return the anchoring from decisions with these weights, one value per decision."""
    shown = decisions["shown"].to_numpy(dtype=bool)
    weighs = weights > 0
    result = Anchoring(shown=int(shown.sum()), hidden=int((~shown).sum()))
    missing = [
        f"no decisions {kind} predictions"
        for kind, count in (("with", result.shown), ("without", result.hidden))
        if not count
    ]
    if missing:
        return replace(result, note=f"not measured: {' and '.join(missing)}")
    if not weighs.any():
        reason = "no annotator has decisions both with and without predictions"
        return replace(result, note=f"not measured: {reason}")
    differs = ~decisions["agreed"].to_numpy(dtype=bool)
    image = (
        pd.factorize(decisions["image_id"])[0]
        if "image_id" in decisions.columns
        else np.arange(len(decisions))
    )
    seen, hidden = (
        clustered_share(differs[kind], image[kind], weights=weights[kind])
        for kind in (shown & weighs, ~shown & weighs)
    )
    result = replace(result, shown_rate=1.0 - seen.share, hidden_rate=1.0 - hidden.share)
    if seen.share == hidden.share == 0:
        reason = "every annotation agrees with its predictions even without seeing them"
        return replace(result, note=f"not measured: {reason}")
    ratio = ratio_interval(seen, hidden)
    low, high = np.clip([1.0 - ratio.high, 1.0 - ratio.low], 0.0, 1.0).tolist()
    estimate = 1.0 - seen.share / hidden.share if hidden.share > 0 else 0.0
    return replace(result, anchoring=max(estimate, 0.0), low=low, high=high, note="")
