"""How far people take over what the model proposes, measured against answers without proposals.

Model: before a proposal a person takes it as it is with probability ``a``, the anchoring, and
otherwise answers as without it. Then
``P(agrees with it | shown) = a + (1 - a) P(agrees with it | blind)``, so that ``1 - a`` is the
ratio of the two rates of disagreement. Limits are in ``docs/algorithms/agreement.md``.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from annotation_platform.consensus.intervals import clustered_share, ratio_interval
from annotation_platform.consensus.units import need_columns, paired_iou, voting_rows
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS

_COLUMNS = ["annotator", "image_id", "annotation_id", "class_name", "shown", "agreed"]
_NAN = float("nan")


@dataclass(frozen=True)
class Anchoring:
    """How far answers are drawn to the proposals; a note says why it could not be measured."""

    shown: int  # decisions about proposals that were seen
    blind: int  # decisions about proposals that were not
    shown_rate: float = _NAN  # share of the former that agree with the proposal, 0 to 1
    blind_rate: float = _NAN  # share of the latter
    anchoring: float = _NAN  # the probability ``a``, 0 to 1; NaN if it cannot be measured
    low: float = _NAN  # lower end of its interval, 0 to 1; NaN if it cannot be measured
    high: float = _NAN  # upper end
    note: str = ""  # empty if it was measured


def crowd_anchoring(decisions: pd.DataFrame, *, level: float = 0.95) -> Anchoring:
    """Return the anchoring of all people together.

    People differ in skill and in how often they were asked blind, so rates are means over people,
    each weighing as in Mantel and Haenszel's ratio of risks (1959; for risks Nurminen, 1981):
    shown times blind by all decisions. Whoever has only one kind of decisions weighs nothing.

    The interval is Koopman's for a ratio of shares, at sizes reduced to what decisions on the same
    image are worth. An estimate below 0, which chance gives where there is no anchoring, is 0.

    Args:
        decisions: one row per person and proposal, as ``pre_annotation_decisions`` makes them:
        columns
            ``annotator``, ``shown`` and ``agreed`` (bool) and, unless all decisions are
            independent, ``image_id``.
        level: of the interval, in ``(0, 1)``.

    Raises:
        TableError: a column is missing.
    """
    need_columns(decisions, ["annotator", "shown", "agreed"])
    shown = decisions["shown"].to_numpy(dtype=bool)
    person, people = pd.factorize(decisions["annotator"])
    seen = np.bincount(person[shown], minlength=len(people))
    blind = np.bincount(person[~shown], minlength=len(people))
    weight = seen * blind / np.maximum(seen + blind, 1)
    own = np.where(shown, seen[person], blind[person])
    return _measure(decisions, weight[person] / np.maximum(own, 1), level=level)


def anchoring_by_person(decisions: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Return the anchoring of each person, in the order of their names.

    Args:
        decisions: as for ``crowd_anchoring``.
        level: of the intervals, in ``(0, 1)``.

    Returns:
        Column ``annotator`` and the fields of ``Anchoring``.

    Raises:
        TableError: a column is missing.
    """
    need_columns(decisions, ["annotator", "shown", "agreed"])
    rows = [
        {"annotator": person, **asdict(_measure(own, np.ones(len(own)), level=level))}
        for person, own in decisions.groupby("annotator", sort=True)
    ]
    return pd.DataFrame(rows, columns=["annotator", *Anchoring.__annotations__])


def pre_annotation_decisions(
    human_labels: pd.DataFrame, predictions: pd.DataFrame, *, agreement_iou: float = 0.95
) -> pd.DataFrame:
    """Return what each answer made of each proposal on its image, whether it saw it or not.

    An answer agrees with a proposal if it holds a region of its class that overlaps it by at least
    ``agreement_iou`` (a region of any shape by its enclosing box), or the choice that it names.
    So a false proposal that was left standing is agreed with, and one that was moved, renamed or
    deleted is not. At 0.95 only what was hardly touched agrees, and whoever finds a proposal good
    enough counts as anchored by it; at 0.5 honest answers agree with every sound proposal without
    seeing it, and what remains is how far unsound ones are waved through.

    Args:
        human_labels: columns ``task_id``, ``image_id``, ``annotation_id``, ``annotator``,
        ``shape``,
            ``class_name``, the box and ``blind``: whether the proposals were hidden. Answers with
            ``unsure`` in them are left out.
        predictions: the proposals that were shown, and no others: columns ``image_id``,
            ``class_name`` and the box, which is missing where a choice is proposed.
        agreement_iou: in ``(0, 1]``.

    Returns:
        Columns ``annotator``, ``image_id``, ``annotation_id``, ``class_name`` (of the proposal),
        ``shown`` and ``agreed``. An image without proposals gives no row.

    Raises:
        TableError: a column is missing.
    """
    need_columns(human_labels, ["annotation_id", "blind", *BOX_COLUMNS])
    need_columns(predictions, ["image_id", "class_name", *BOX_COLUMNS])
    votes = voting_rows(human_labels)
    offered = predictions[["image_id", "class_name", *BOX_COLUMNS]]
    offered = offered.assign(proposal=np.arange(len(offered)))
    annotations = votes[["annotator", "image_id", "annotation_id", "blind"]].drop_duplicates(
        "annotation_id"
    )
    decisions = annotations.merge(offered, on="image_id").sort_values(["annotation_id", "proposal"])
    # What each answer says of the same class, beside the proposal.
    said = votes[["image_id", "annotation_id", "shape", "class_name", *BOX_COLUMNS]]
    beside = said.merge(offered, on=["image_id", "class_name"], suffixes=("", "_offered"))
    theirs = beside[[f"{name}_offered" for name in BOX_COLUMNS]]
    near = paired_iou(beside[BOX_COLUMNS], theirs) >= agreement_iou
    # A point has no area to overlap, but it can be left exactly where it was proposed.
    near |= (beside[BOX_COLUMNS].to_numpy() == theirs.to_numpy()).all(axis=1)
    chosen = beside["shape"].isin(CLASSIFICATIONS) & theirs.isna().any(axis=1)
    kept = beside[(near & beside["shape"].isin(REGIONS)) | chosen]
    key = ["annotation_id", "proposal"]
    agreed = pd.MultiIndex.from_frame(decisions[key]).isin(pd.MultiIndex.from_frame(kept[key]))
    decisions = decisions.assign(shown=~decisions["blind"].astype(bool), agreed=agreed)
    return decisions[_COLUMNS].reset_index(drop=True)


def _measure(decisions: pd.DataFrame, weights: FloatArray, *, level: float) -> Anchoring:
    """Return the anchoring from decisions that weigh ``weights``, a value each."""
    shown = decisions["shown"].to_numpy(dtype=bool)
    weighty = weights > 0
    result = Anchoring(shown=int(shown.sum()), blind=int((~shown).sum()))
    missing = [name for name in ("shown", "blind") if not getattr(result, name)]
    if missing:
        why = f"no {' and no '.join(missing)} decisions about proposals"
        return replace(result, note=f"not measured: {why}")
    if not weighty.any():
        why = "nobody has both shown and blind decisions about proposals"
        return replace(result, note=f"not measured: {why}")
    differs = ~decisions["agreed"].to_numpy(dtype=bool)
    image = (
        pd.factorize(decisions["image_id"])[0]
        if "image_id" in decisions.columns
        else np.arange(len(decisions))
    )
    seen, blind = (
        clustered_share(differs[kind], image[kind], weights=weights[kind], level=level)
        for kind in (shown & weighty, ~shown & weighty)
    )
    result = replace(result, shown_rate=1.0 - seen.share, blind_rate=1.0 - blind.share)
    if seen.share == blind.share == 0:
        why = "every blind answer agrees with its proposal anyway"
        return replace(result, note=f"not measured: {why}")
    ratio = ratio_interval(seen, blind, level=level)
    low, high = np.clip([1.0 - ratio.high, 1.0 - ratio.low], 0.0, 1.0).tolist()
    estimate = 1.0 - seen.share / blind.share if blind.share > 0 else 0.0
    return replace(result, anchoring=max(estimate, 0.0), low=low, high=high, note="")
