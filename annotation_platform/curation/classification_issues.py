"""Classifications that are probably wrong, judged together by confident learning."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.units import need_columns
from annotation_platform.curation.certificates import BoolArray
from annotation_platform.errors import TableError
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.tables import Frame, LabelIssues
from annotation_platform.schema.tables.shared import IssueKind

SURE = 0.95
"""A class of at least this probability counts as possible, whatever the mean of its images.

About half of the images that a model classifies well are slightly below the mean probability: a
wrong label on one of them would be overlooked.
"""


def class_issues(
    labels: pd.DataFrame,
    probabilities: FloatArray,
    class_names: list[str],
    *,
    round_id: str,
) -> Frame[LabelIssues]:
    """Return the ``label_issues`` of images with exactly one class each, most suspected first.

    Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
    Dataset Labels", 2021), by cleanlab: images off the diagonal of the confident joint, for each
    pair of classes as many as the joint estimates to be wrong. A class counts as possible above
    the mean probability of its own images, and always above ``SURE``. The score is one minus the
    probability of the given label: it orders the issues and is not a probability of an error.

    Args:
        labels: ``image_id, label_id, class_name``, one row for each image.
        probabilities: ``(N, K)``, of a model that was not trained on these labels.
        class_names: the ``K`` classes, in the order of the columns.
        round_id: written into every row.

    Raises:
        TableError: a column is missing, or the class of a label is not in ``class_names``.
    """
    need_columns(labels, ["image_id", "label_id", "class_name"])
    given = pd.Index(class_names).get_indexer(pd.Index(labels["class_name"]))
    if (given < 0).any():
        unknown = labels["class_name"].iloc[int((given < 0).argmax())]
        raise TableError(f"label of class {unknown!r}, which the probabilities lack. Leave it out.")
    suspected = _off_the_diagonal(given, probabilities)
    own = probabilities[np.arange(len(given)), given]
    rows: list[dict[str, object]] = []
    for at in np.flatnonzero(suspected)[np.argsort(own[suspected], kind="stable")].tolist():
        row, name = labels.iloc[at], class_names[int(probabilities[at].argmax())]
        rows.append(
            {
                "round_id": round_id,
                "image_id": row["image_id"],
                "issue_id": f"{row['label_id']}:swapped",
                "kind": "swapped",
                "label_id": row["label_id"],
                "score": float(1.0 - own[at]),
                "class_name": name,
                **dict.fromkeys(BOX_COLUMNS),
                "suggestion": f"Is it {name} instead of {row['class_name']}?",
            }
        )
    return LabelIssues.from_rows(rows)


def classification_issues(
    labels: pd.DataFrame,
    probabilities: pd.DataFrame,
    *,
    round_id: str,
) -> Frame[LabelIssues]:
    """Return the ``label_issues`` of images with any number of classes, most suspected first.

    Each class is judged by itself as in ``class_issues``, present or absent: a class that was
    chosen may be ``spurious``, one that was not may be ``overlooked``. A class that was chosen for
    every image, or for none, is left out: its errors cannot be estimated. The score is one minus
    the probability of the given state.

    Args:
        labels: ``image_id, label_id, class_name``, a row for every class that was chosen.
        probabilities: by image id, for every class a column with the probability that it is
            present, by a model that was not trained on these labels. Images for which no class
            was chosen are included.
        round_id: written into every row.
    """
    need_columns(labels, ["image_id", "label_id", "class_name"])
    rows: list[dict[str, object]] = []
    for name in probabilities.columns:
        own = labels[labels["class_name"] == name].set_index("image_id")["label_id"]
        given = probabilities.index.isin(own.index).astype(np.int64)
        if given.min() == given.max():
            continue
        present = probabilities[name].to_numpy(dtype=np.float64)
        chances = np.stack([1.0 - present, present], axis=1)
        suspected = _off_the_diagonal(given, chances)
        for at in np.flatnonzero(suspected).tolist():
            image, chosen = str(probabilities.index[at]), bool(given[at])
            kind = IssueKind.SPURIOUS if chosen else IssueKind.OVERLOOKED
            rows.append(
                {
                    "round_id": round_id,
                    "image_id": image,
                    "issue_id": f"{image}:{kind}:{name}",
                    "kind": kind,
                    "label_id": own[image] if chosen else None,
                    "score": float(1.0 - chances[at, given[at]]),
                    "class_name": name,
                    **dict.fromkeys(BOX_COLUMNS),
                    "suggestion": f"Is it not {name}?" if chosen else f"Is it {name} as well?",
                }
            )
    rows.sort(key=lambda row: (-float(str(row["score"])), str(row["issue_id"])))
    return LabelIssues.from_rows(rows)


def _off_the_diagonal(given: npt.NDArray[np.int64], probabilities: FloatArray) -> BoolArray:
    """Return which of ``(N,)`` given classes confident learning suspects."""
    from cleanlab.count import compute_confident_joint, get_confident_thresholds
    from cleanlab.filter import find_label_issues

    thresholds = get_confident_thresholds(given, probabilities)
    # A class that no label has keeps its threshold above 1.
    thresholds[thresholds <= 1.0] = thresholds[thresholds <= 1.0].clip(max=SURE)
    joint = compute_confident_joint(given, probabilities, thresholds=thresholds)
    found = find_label_issues(
        given, probabilities, filter_by="both", confident_joint=joint, n_jobs=1
    )
    return np.asarray(found, dtype=bool)
