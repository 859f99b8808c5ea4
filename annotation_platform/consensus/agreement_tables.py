"""Agreement of the annotators of a round: overall and by class.

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


def agreement(human_labels: pd.DataFrame) -> OverallAgreement:
    """Return the overall agreement; ``unsure`` annotations do not vote."""
    labelled = _read_labels(human_labels)
    same = _same_class(labelled.marks)
    ratings = labelled.ratings
    named = ratings.assign(label=ratings["label"].where(ratings["label"] != NOT_DRAWN))
    return OverallAgreement(
        units=int(ratings["task"].nunique()),
        f1=_share(2.0 * len(same), float(_compared_labels(labelled).sum())),
        mean_iou=float(same["iou"].mean()),
        alpha=krippendorff_alpha(ratings),
        class_alpha=krippendorff_alpha(named),
        fleiss_kappa=fleiss_kappa(ratings),
    )


def agreement_by_class(human_labels: pd.DataFrame) -> pd.DataFrame:
    """Return the agreement on each class in use, in the order of the class names.

    Args:
        human_labels: a ``human_labels`` table; ``unsure`` annotations do not vote.

    Returns:
        Columns ``class_name``; ``labels`` (regions or choices of the class); ``f1`` over the pairs
        of annotators of the same image: twice the objects to which both gave the class, divided
        by all their labels of it; ``mean_iou`` of those objects' boxes; ``alpha``, Krippendorff's,
        of the class against all other labels, "not drawn" included.
    """
    labelled = _read_labels(human_labels)
    same = _same_class(labelled.marks).groupby("class_name")
    hits, overlap = same.size(), same["iou"].mean()
    compared = _compared_labels(labelled)
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


@dataclass(frozen=True)
class _Labels:
    ratings: pd.DataFrame  # task (a unit), worker, label: one row per unit and annotator asked
    marks: pd.DataFrame  # unit, annotator, class_name, box: one row per label


def _read_labels(human_labels: pd.DataFrame) -> _Labels:
    """Return regions and choices together, with consecutive unit numbers."""
    votes = voting_rows(human_labels)
    regions = region_units(votes)
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


def _compared_labels(labelled: _Labels) -> pd.Series:
    """Return by class the number of labels that the pairs of annotators compare, both counted."""
    annotators = labelled.ratings.groupby("task").size()
    others = labelled.marks["unit"].map(annotators).astype(np.float64) - 1.0
    return others.groupby(labelled.marks["class_name"]).sum()


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


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
