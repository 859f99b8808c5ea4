"""Agreement of the annotators of a round: overall, by class, and by annotator.

Units are those of ``units.py``. ``f1`` and ``mean_iou`` are over pairs of annotators of the same
image; the coefficients beyond chance treat "not drawn" as a label like the others. Agreement about
an object that no annotator drew is not observed, so these coefficients are low for boxes, and
below 0 if there is a single class: read them together with ``f1`` and ``class_alpha``.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.kappa import (
    alpha_of_counts,
    beyond_chance,
    cohen_kappa_pairs,
    fleiss_kappa,
    krippendorff_alpha,
)
from annotation_platform.consensus.units import (
    NOT_DRAWN,
    classification_units,
    paired_iou,
    region_units,
    voting_rows,
)
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.shapes import CLASSIFICATIONS
from annotation_platform.schema.tables import HumanLabels


@dataclass(frozen=True)
class OverallAgreement:
    """The overall agreement; a number is NaN if there are no data to compute it from."""

    units: int  # objects that at least one annotator drew, and choices
    f1: float  # over all pairs of annotators of an image, class included, 0 to 1
    mean_iou: float  # of the pairs of regions around one object with the same class, 0 to 1
    alpha: float  # Krippendorff's, with "not drawn" as a label
    class_alpha: float  # Krippendorff's of the classes alone, among those who drew the object
    fleiss_kappa: float  # with "not drawn" as a label


def agreement(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> OverallAgreement:
    """Return the overall agreement; ``unsure`` annotations do not vote.

    Args:
        human_labels: a ``human_labels`` table.
        iou_threshold: least overlap of two regions around the same object, in ``(0, 1]``.
    """
    labelled = _read_labels(human_labels, iou_threshold)
    same = _same_class(labelled.marks)
    ratings = labelled.ratings
    named = ratings.assign(label=ratings["label"].where(ratings["label"] != NOT_DRAWN))
    return OverallAgreement(
        units=int(ratings["task"].nunique()),
        f1=_share(2.0 * len(same), float(_compared_labels(labelled, "class_name").sum())),
        mean_iou=float(same["iou"].mean()),
        alpha=krippendorff_alpha(ratings),
        class_alpha=krippendorff_alpha(named),
        fleiss_kappa=fleiss_kappa(ratings),
    )


def agreement_by_class(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> pd.DataFrame:
    """Return the agreement on each class in use, in the order of the class names.

    Args:
        human_labels: a ``human_labels`` table; ``unsure`` annotations do not vote.
        iou_threshold: least overlap of two regions around the same object, in ``(0, 1]``.

    Returns:
        Columns ``class_name``; ``labels`` (regions or choices of the class); ``f1`` over the pairs
        of annotators of the same image: twice the objects to which both gave the class, divided
        by all their labels of it; ``mean_iou`` of those objects' boxes; ``alpha``, Krippendorff's,
        of the class against all other labels, "not drawn" included.
    """
    labelled = _read_labels(human_labels, iou_threshold)
    same = _same_class(labelled.marks).groupby("class_name")
    hits, overlap = same.size(), same["iou"].mean()
    compared = _compared_labels(labelled, "class_name")
    annotated = labelled.ratings.groupby("task").size()
    rows = []
    for name, marks in labelled.marks.groupby("class_name", sort=True):
        yes = marks.groupby("unit").size().reindex(annotated.index, fill_value=0)
        rows.append(
            {
                "class_name": name,
                "labels": len(marks),
                "f1": _share(2.0 * hits.get(name, 0), float(compared.get(name, 0.0))),
                "mean_iou": float(overlap.get(name, float("nan"))),
                "alpha": _alpha_of_yes(_floats(yes), _floats(annotated)),
            }
        )
    return pd.DataFrame(rows, columns=["class_name", "labels", "f1", "mean_iou", "alpha"])


def agreement_by_person(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> pd.DataFrame:
    """Return the agreement of each annotator with the others, in the order of their names.

    Args:
        human_labels: a ``human_labels`` table; ``unsure`` annotations do not vote.
        iou_threshold: least overlap of two regions around the same object, in ``(0, 1]``.

    Returns:
        Columns ``annotator``; ``others`` (annotators with a unit in common); ``labels`` given;
        ``f1`` and ``mean_iou`` as by class, over the pairs that include the annotator; ``kappa``,
        the mean of Cohen's kappas with the others, weighted by units in common; ``alpha``: one
        minus the annotator's disagreement with the others divided by the disagreement expected
        over all annotators, so that its mean, weighted by units annotated, is Krippendorff's
        alpha.
    """
    labelled = _read_labels(human_labels, iou_threshold)
    pairs = _same_class(labelled.marks)
    # Each pair counts for both of its annotators.
    same = pd.concat([pairs, pairs.assign(annotator=pairs["annotator_other"])])
    hits, overlap = same.groupby("annotator").size(), same.groupby("annotator")["iou"].mean()
    labels = labelled.marks.groupby("annotator").size()
    compared = _compared_labels(labelled, "annotator")
    kappas, alphas = _kappa_by_person(labelled.ratings), _alpha_by_person(labelled.ratings)
    rows = [
        {
            "annotator": person,
            "others": int(kappas["others"].get(person, 0)),
            "labels": int(labels.get(person, 0)),
            "f1": _share(2.0 * hits.get(person, 0), float(compared.get(person, 0.0))),
            "mean_iou": float(overlap.get(person, float("nan"))),
            "kappa": float(kappas["kappa"].get(person, float("nan"))),
            "alpha": float(alphas.get(person, float("nan"))),
        }
        for person in sorted(set(voting_rows(human_labels)["annotator"]))
    ]
    columns = ["annotator", "others", "labels", "f1", "mean_iou", "kappa", "alpha"]
    return pd.DataFrame(rows, columns=columns)


@dataclass(frozen=True)
class _Labels:
    ratings: pd.DataFrame  # task (a unit), worker, label: one row per unit and annotator asked
    marks: pd.DataFrame  # unit, annotator, class_name, box: one row per label


def _read_labels(human_labels: pd.DataFrame, iou_threshold: float) -> _Labels:
    """Return regions and choices together, with consecutive unit numbers."""
    votes = voting_rows(human_labels)
    regions = region_units(votes, iou_threshold=iou_threshold)
    choices = classification_units(votes)
    choices["unit"] += int(regions["unit"].max()) + 1 if len(regions) else 0
    units = pd.concat([part for part in (regions, choices) if len(part)] or [regions])
    unit_of = choices.drop_duplicates("task_id").set_index("task_id")["unit"]
    chosen = votes[votes[HumanLabels.shape].isin(CLASSIFICATIONS)]
    chosen = chosen.assign(unit=chosen["task_id"].map(unit_of))
    chosen = chosen.drop_duplicates(["unit", "annotator", "class_name"])
    drawn = regions[regions["label"] != NOT_DRAWN].assign(class_name=lambda rows: rows["label"])
    columns = ["unit", "annotator", "class_name", *BOX_COLUMNS]
    marks = [part.reindex(columns=columns) for part in (drawn, chosen) if len(part)]
    ratings = units.rename(columns={"unit": "task", "annotator": "worker"})
    return _Labels(
        ratings=ratings[["task", "worker", "label"]].reset_index(drop=True),
        marks=pd.concat(marks, ignore_index=True) if marks else drawn.reindex(columns=columns),
    )


def _same_class(marks: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of annotators who gave a unit the same class, with the boxes' ``iou``.

    Columns ``unit``, ``class_name``, ``annotator`` (the first by name), ``annotator_other``.
    """
    pairs = marks.merge(marks, on=["unit", "class_name"], suffixes=("", "_other"))
    pairs = pairs[pairs["annotator"] < pairs["annotator_other"]]
    iou = paired_iou(pairs[BOX_COLUMNS], pairs[[f"{name}_other" for name in BOX_COLUMNS]])
    return pairs[["unit", "class_name", "annotator", "annotator_other"]].assign(iou=iou)


def _compared_labels(labelled: _Labels, by: str) -> pd.Series:
    """Return the number of labels that the pairs of annotators compare, those of both counted.

    By ``class_name`` they are the labels of the class in all pairs; by ``annotator`` the labels of
    both in the pairs that include the annotator.
    """
    annotators = labelled.ratings.groupby("task").size()
    others = labelled.marks["unit"].map(annotators).astype(np.float64) - 1.0
    own = others.groupby(labelled.marks[by]).sum()
    if by == "class_name":
        return own
    # Each annotator of a unit is also compared with the labels of the others.
    given = labelled.marks.groupby("unit").size()
    all_labels = labelled.ratings["task"].map(given).fillna(0.0)
    all_labels = all_labels.groupby(labelled.ratings["worker"]).sum()
    own_labels = labelled.marks.groupby(by).size()
    return all_labels.sub(own_labels, fill_value=0.0).add(own, fill_value=0.0)


def _floats(values: pd.Series) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _alpha_of_yes(yes: FloatArray, annotated: FloatArray) -> float:
    """Return Krippendorff's alpha of a binary label from the counts of each unit."""
    unit = np.arange(len(yes), dtype=np.intp)
    return alpha_of_counts(
        np.concatenate([yes, annotated - yes]),
        np.concatenate([unit, unit]),
        np.repeat(np.array([1, 0], dtype=np.intp), len(yes)),
        annotated,
    )


def _kappa_by_person(ratings: pd.DataFrame) -> pd.DataFrame:
    """Return ``others`` and ``kappa`` by worker."""
    pairs = cohen_kappa_pairs(ratings)
    turned = pairs.rename(columns={"first": "second", "second": "first"})
    both = pd.concat([pairs, turned[pairs.columns]])
    known = both[both["kappa"].notna()]
    weighted = (known["kappa"] * known["tasks"]).groupby(known["first"]).sum()
    kappa = weighted / known.groupby("first")["tasks"].sum()
    return pd.DataFrame({"others": both.groupby("first").size(), "kappa": kappa})


def _alpha_by_person(ratings: pd.DataFrame) -> pd.Series:
    """Return each worker's contribution to Krippendorff's alpha."""
    annotated = ratings.groupby("task")["worker"].transform("size")
    pairable = ratings[annotated >= 2]
    values = len(pairable)
    if values == 0:
        return pd.Series([], dtype=np.float64)
    like = pairable.groupby(["task", "label"])["worker"].transform("size") - 1.0
    same = like / (annotated[annotated >= 2] - 1.0)
    totals = pairable.groupby("label").size().to_numpy(dtype=np.float64)
    expected = float((totals * (totals - 1.0)).sum()) / (values * (values - 1.0))
    observed = same.groupby(pairable["worker"]).mean()
    return pd.Series(beyond_chance(observed.to_numpy(), expected), index=observed.index)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
