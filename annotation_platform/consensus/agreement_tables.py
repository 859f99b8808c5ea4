"""How far the people of a round agree: in all, by class, and by person.

Units are those of ``units.py``. ``f1`` and ``mean_iou`` are over pairs of people who answered the
same image; the coefficients beyond chance treat "did not draw it" as a label like the others. As
nobody can agree about an object that nobody drew, those coefficients are low for boxes, and below
0 where there is a single class: read them beside ``f1`` and ``class_alpha``.
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


@dataclass(frozen=True)
class Agreement:
    """How far people agree in all; every number is NaN where there is nothing to tell it from."""

    units: int  # objects that somebody drew, and choices
    f1: float  # over all pairs of people on an image, class included, 0 to 1
    mean_iou: float  # of the pairs of regions round one object with the same class, 0 to 1
    alpha: float  # Krippendorff's, "not drawn" being a label
    class_alpha: float  # Krippendorff's of the classes alone, among those who drew the object
    fleiss_kappa: float  # "not drawn" being a label


def agreement(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> Agreement:
    """Return how far all people agree; ``unsure`` answers are no votes.

    Args:
        human_labels: a ``human_labels`` table.
        iou_threshold: least overlap of two regions round the same object, in ``(0, 1]``.
    """
    said = _said(human_labels, iou_threshold)
    same = _same_class(said.marks)
    ratings = said.ratings
    named = ratings.assign(label=ratings["label"].where(ratings["label"] != NOT_DRAWN))
    return Agreement(
        units=int(ratings["task"].nunique()),
        f1=_share(2.0 * len(same), float(_compared_labels(said, "class_name").sum())),
        mean_iou=float(same["iou"].mean()),
        alpha=krippendorff_alpha(ratings),
        class_alpha=krippendorff_alpha(named),
        fleiss_kappa=fleiss_kappa(ratings),
    )


def agreement_by_class(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> pd.DataFrame:
    """Return how far people agree on each class that somebody used, in the order of their names.

    Args:
        human_labels: a ``human_labels`` table; ``unsure`` answers are no votes.
        iou_threshold: least overlap of two regions round the same object, in ``(0, 1]``.

    Returns:
        Columns ``class_name``; ``labels`` (regions or choices of it); ``f1`` over the pairs of
        people who answered the same image: twice the objects to which both gave the class, by
        all their labels of it; ``mean_iou`` of those objects' boxes; ``alpha``, Krippendorff's,
        of the class against everything else, "not drawn" included.
    """
    said = _said(human_labels, iou_threshold)
    same = _same_class(said.marks).groupby("class_name")
    hits, overlap = same.size(), same["iou"].mean()
    compared = _compared_labels(said, "class_name")
    annotated = said.ratings.groupby("task").size()
    rows = []
    for name, marks in said.marks.groupby("class_name", sort=True):
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
    """Return how far each annotator agrees with the others, in the order of their names.

    Args:
        human_labels: a ``human_labels`` table; ``unsure`` answers are no votes.
        iou_threshold: least overlap of two regions round the same object, in ``(0, 1]``.

    Returns:
        Columns ``annotator``; ``others`` (people with a unit in common); ``labels`` given; ``f1``
        and ``mean_iou`` as by class, over the pairs that the person is one of; ``kappa``, the mean
        of Cohen's with each other, weighted by units in common; ``alpha``: one minus the person's
        disagreement with the others by the disagreement expected of everybody, so that its mean,
        weighted by units answered, is Krippendorff's alpha.
    """
    said = _said(human_labels, iou_threshold)
    pairs = _same_class(said.marks)
    # Either of a pair may be the person.
    same = pd.concat([pairs, pairs.assign(annotator=pairs["annotator_other"])])
    hits, overlap = same.groupby("annotator").size(), same.groupby("annotator")["iou"].mean()
    labels = said.marks.groupby("annotator").size()
    compared = _compared_labels(said, "annotator")
    kappas, alphas = _kappa_by_person(said.ratings), _alpha_by_person(said.ratings)
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
class _Said:
    ratings: pd.DataFrame  # task (a unit), worker, label: one row per unit and annotator asked
    marks: pd.DataFrame  # unit, annotator, class_name, box: one row per label that was given


def _said(human_labels: pd.DataFrame, iou_threshold: float) -> _Said:
    """Return regions and choices together, their units numbered on."""
    votes = voting_rows(human_labels)
    regions = region_units(votes, iou_threshold=iou_threshold)
    choices = classification_units(votes)
    choices["unit"] += int(regions["unit"].max()) + 1 if len(regions) else 0
    units = pd.concat([part for part in (regions, choices) if len(part)] or [regions])
    unit_of = choices.drop_duplicates("task_id").set_index("task_id")["unit"]
    chosen = votes[votes["shape"].isin(CLASSIFICATIONS)]
    chosen = chosen.assign(unit=chosen["task_id"].map(unit_of))
    chosen = chosen.drop_duplicates(["unit", "annotator", "class_name"])
    drawn = regions[regions["label"] != NOT_DRAWN].assign(class_name=lambda rows: rows["label"])
    columns = ["unit", "annotator", "class_name", *BOX_COLUMNS]
    marks = [part.reindex(columns=columns) for part in (drawn, chosen) if len(part)]
    ratings = units.rename(columns={"unit": "task", "annotator": "worker"})
    return _Said(
        ratings=ratings[["task", "worker", "label"]].reset_index(drop=True),
        marks=pd.concat(marks, ignore_index=True) if marks else drawn.reindex(columns=columns),
    )


def _same_class(marks: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of people who gave one unit the same class, with the ``iou`` of the boxes.

    Columns ``unit``, ``class_name``, ``annotator`` (the first by name), ``annotator_other``.
    """
    pairs = marks.merge(marks, on=["unit", "class_name"], suffixes=("", "_other"))
    pairs = pairs[pairs["annotator"] < pairs["annotator_other"]]
    iou = paired_iou(pairs[BOX_COLUMNS], pairs[[f"{name}_other" for name in BOX_COLUMNS]])
    return pairs[["unit", "class_name", "annotator", "annotator_other"]].assign(iou=iou)


def _compared_labels(said: _Said, by: str) -> pd.Series:
    """Return how many labels the pairs of people compare: each pair counts those of both.

    By ``class_name`` they are the labels of the class in all pairs; by ``annotator`` those of both
    in the pairs that the person is one of.
    """
    people = said.ratings.groupby("task").size()
    others = said.marks["unit"].map(people).astype(np.float64) - 1.0
    own = others.groupby(said.marks[by]).sum()
    if by == "class_name":
        return own
    # Everybody on a unit also meets the labels that the others gave it.
    given = said.marks.groupby("unit").size()
    met = said.ratings["task"].map(given).fillna(0.0).groupby(said.ratings["worker"]).sum()
    kept = said.marks.groupby(by).size()
    return met.sub(kept, fill_value=0.0).add(own, fill_value=0.0)


def _floats(values: pd.Series) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _alpha_of_yes(yes: FloatArray, annotated: FloatArray) -> float:
    """Return Krippendorff's alpha of a yes-or-no label from the counts of each unit."""
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
    """Return each worker's part in Krippendorff's alpha."""
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
