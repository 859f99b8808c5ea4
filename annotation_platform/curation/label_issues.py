"""Labels that are probably wrong, and objects that probably lack a label.

Boxes are judged image by image, against the predictions of a model that was not trained on these
labels. A score is the probability of an error, and does not depend on the other images.
``classification_issues.py`` has the issues of classifications. ``docs/algorithms/label-issues.md``
has the formulas and the measurements against other methods.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.units import need_columns
from annotation_platform.curation.certificates import BoolArray
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray, as_boxes, iou_matrix
from annotation_platform.schema.tables import (
    Conflicts,
    ConsensusLabels,
    Frame,
    LabelIssues,
    records,
)

SAME = 0.5
"""Least IoU of two boxes of the same object."""

NEAR = 0.1
"""Least IoU at which a box may belong to the same object and be badly located."""

_CERTAIN = 1e-4
_LEAST_UNSEEN = 0.005


@dataclass(frozen=True)
class Trust:
    """Prior knowledge about a model and about the labels.

    Attributes:
        unseen: by class, the share of true objects without a prediction: no box of the class near
            them and no box of another class on them.
        unseen_otherwise: that share for classes that are not in ``unseen``.
        error_rate: assumed share of wrong labels, split equally between the four kinds.
    """

    unseen: Mapping[str, float]
    unseen_otherwise: float
    error_rate: float

    def chance_unseen(self, class_name: str) -> float:
        """Return the probability that an object of the class has no prediction, above 0."""
        return max(self.unseen.get(class_name, self.unseen_otherwise), _LEAST_UNSEEN)

    @property
    def odds(self) -> float:
        """The prior odds of one kind of error."""
        return self.error_rate / 4.0 / (1.0 - self.error_rate)


def measure_trust(predictions: pd.DataFrame, truth: pd.DataFrame, *, error_rate: float) -> Trust:
    """Return how often a model overlooks objects, from images with trusted labels.

    The share of each class is shrunk towards the overall share, with the weight of ten objects.

    Args:
        predictions: ``image_id, class_name, x1, y1, x2, y2`` of these images.
        truth: the same columns of their labels, which the calibration was fitted to.
        error_rate: see ``Trust``, in ``(0, 1)``.
    """
    predicted = dict(iter(predictions.groupby("image_id")))
    counts: dict[str, list[int]] = {}
    for image_id, rows in truth.groupby("image_id"):
        matches = _match(rows, predicted.get(image_id, predictions.iloc[:0]))
        seen = [bool(each.any()) for each in matches.seen]
        for name, found in zip(rows["class_name"], seen, strict=True):
            count = counts.setdefault(str(name), [0, 0])
            count[0] += not found
            count[1] += 1
    lost, total = (sum(count[side] for count in counts.values()) for side in (0, 1))
    overall = lost / total if total else 1.0
    unseen = {name: (own + 10 * overall) / (all_ + 10) for name, (own, all_) in counts.items()}
    return Trust(unseen, overall, error_rate)


def box_issues(
    labels: pd.DataFrame,
    predictions: pd.DataFrame,
    trust: Trust,
    *,
    round_id: str,
    minimum_probability: float = 0.3,
) -> Frame[LabelIssues]:
    """Return the ``label_issues`` of boxes, most suspected first.

    The kinds are those of Tkachenko, Thyagarajan and Mueller, "ObjectLab: Automated Diagnosis of
    Mislabeled Images in Object Detection Data", 2023: *swapped* (another class), *badly located*,
    *overlooked* (no label), and *spurious* (no object). ObjectLab's scores are similarities; these
    are probabilities by Bayes' rule, from the calibrated probability ``p`` of a prediction and the
    prior in ``trust``:

    - swapped: odds of ``p`` times those of an error, for a prediction of another class on the box;
    - badly_located: the same, for a prediction of the same class near the box but not on it;
    - overlooked: the same, for a prediction without a label;
    - spurious: odds of an error by the probability that an object has no prediction, for a label
      without a prediction.

    If a prediction of the label's class confirms it with probability ``q``, the probability that
    the label is swapped or badly located is multiplied by ``1 - q``. Each label and each
    prediction is part of one issue at most.

    Args:
        labels: ``image_id, label_id, class_name, x1, y1, x2, y2`` of boxes.
        predictions: ``image_id, class_name, x1, y1, x2, y2, score`` of every image of ``labels``,
            also of images without labels; ``score`` is a calibrated probability, of a model that
            was not trained on these labels. A row whose score is NaN is ignored.
        trust: prior knowledge about the model and the labels.
        round_id: written into every row.
        minimum_probability: issues below it are left out, in ``[0, 1]``.

    Raises:
        TableError: a column is missing.
    """
    need_columns(labels, ["image_id", "label_id", "class_name", *BOX_COLUMNS])
    need_columns(predictions, ["image_id", "class_name", *BOX_COLUMNS, "score"])
    usable = predictions[predictions["score"].notna()]
    predicted = {str(image): its for image, its in usable.groupby("image_id")}
    labelled = {str(image): its for image, its in labels.groupby("image_id")}
    rows: list[dict[str, object]] = []
    for image_id in sorted({*predicted, *labelled}):
        given = labelled.get(image_id, labels.iloc[:0])
        found = _judge(given, predicted.get(image_id, usable.iloc[:0]), trust)
        likely = [issue for issue in found if float(str(issue["score"])) >= minimum_probability]
        for number, issue in enumerate(likely):
            name = f"{image_id}:{issue['kind']}:{number:04d}"
            rows.append({"round_id": round_id, "image_id": image_id, "issue_id": name, **issue})
    rows.sort(key=lambda row: (-float(str(row["score"])), str(row["issue_id"])))
    return LabelIssues.from_rows(rows)


def mistake_risk(issues: pd.DataFrame) -> pd.Series:
    """Return by image the probability that some label of it is wrong or missing.

    It is one minus the product of ``1 - score`` over the issues of the image, so ``issues`` must
    hold all of them, even the least likely ones (``minimum_probability`` 0). Images without issues
    are not in the result.
    """
    scores, images = issues[LabelIssues.score], issues[LabelIssues.image_id]
    correct = np.log1p(-np.minimum(scores, 1.0 - _CERTAIN))
    return pd.Series(1.0 - np.exp(correct.groupby(images).sum()), name="mistake_risk")


def issues_as_conflicts(issues: pd.DataFrame, consensus: pd.DataFrame) -> Frame[Conflicts]:
    """Return suspected labels as unsettled ``conflicts``, for reviewers to decide.

    Added to a round's own conflicts, they make its images review tasks, with the suggestion as the
    note. Use it only where ``review.gate`` is manual: without a reviewer, an image with an
    unsettled conflict is left out of the release. Issues of images that the round has no task for
    are left out.

    Args:
        issues: ``label_issues`` of the round.
        consensus: its ``consensus_labels``.
    """
    images, task_ids = consensus[ConsensusLabels.image_id], consensus[ConsensusLabels.task_id]
    tasks = dict(zip(images, task_ids, strict=True))
    rows: list[dict[str, object]] = [
        {
            **row,
            "task_id": tasks[row["image_id"]],
            "conflict_id": row["issue_id"],
            "kind": f"suspected {row['kind']}",
            "shape": "box" if has_box else "choice",
            "geometry": "",
            "annotators": "",
            "detail": f"{row['suggestion']} ({row['score']:.0%} by the model)",
            "settled": False,
        }
        for row, has_box in zip(records(issues), issues[LabelIssues.x1].notna(), strict=True)
        if row["image_id"] in tasks
    ]
    return Conflicts.from_rows(rows)


def with_suspects(
    conflicts: pd.DataFrame, issues: pd.DataFrame, consensus: pd.DataFrame
) -> Frame[Conflicts]:
    """Return a round's ``conflicts`` with its suspected labels, which replace earlier ones."""
    others = conflicts[~conflicts[Conflicts.kind].str.startswith("suspected ")]
    suspects = issues_as_conflicts(issues, consensus)
    if suspects.empty:
        return others
    return suspects if others.empty else pd.concat([others, suspects], ignore_index=True)


@dataclass(frozen=True)
class _Matches:
    """How ``N`` labels and ``M`` predictions of one image match, each array ``(N, M)``."""

    overlap: FloatArray
    same: BoolArray  # of the same class
    confirms: BoolArray  # of the same class, with an IoU of at least SAME
    seen: BoolArray  # the prediction may belong to the object of the label


def _match(labels: pd.DataFrame, predicted: pd.DataFrame) -> _Matches:
    names = labels["class_name"].to_numpy(dtype=object)
    predicted_names = predicted["class_name"].to_numpy(dtype=object)
    overlap = iou_matrix(as_boxes(labels[BOX_COLUMNS]), as_boxes(predicted[BOX_COLUMNS]))
    same = np.asarray(names[:, None] == predicted_names[None, :], dtype=bool)
    on_it = overlap >= SAME
    return _Matches(overlap, same, same & on_it, on_it | (same & (overlap >= NEAR)))


def _judge(labels: pd.DataFrame, predicted: pd.DataFrame, trust: Trust) -> list[dict[str, object]]:
    """Return the issues of one image, each label and each prediction once at most."""
    sure = np.clip(predicted["score"].to_numpy(dtype=np.float64), _CERTAIN, 1.0 - _CERTAIN)
    matches = _match(labels, predicted)
    # Iterating over the rows of a frame is slow.
    ids, names = labels["label_id"].tolist(), labels["class_name"].tolist()
    label_boxes = as_boxes(labels[BOX_COLUMNS])
    predicted_names = predicted["class_name"].tolist()
    boxes = as_boxes(predicted[BOX_COLUMNS])
    # A prediction that confirms a label of its class is not used against other labels.
    free: BoolArray = np.asarray(~matches.confirms.any(axis=0), dtype=np.bool_)
    issues: list[dict[str, object]] = []
    for row, name in enumerate(names):
        seen = matches.seen[row]
        if not seen.any():
            odds = trust.odds / trust.chance_unseen(name)
            score = odds / (1.0 + odds)
            issues.append(_issue("spurious", name, label_boxes[row], score, label=ids[row]))
            continue
        against = np.where(free & seen, sure, 0.0)
        if not against.any():
            continue
        at = int(against.argmax())
        kind = "badly_located" if matches.same[row, at] else "swapped"
        own = float(np.where(matches.confirms[row], sure, 0.0).max(initial=0.0))
        score = _probability(sure[at], trust.odds) * (1.0 - own)
        issues.append(
            _issue(kind, predicted_names[at], boxes[at], score, label=ids[row], given=name)
        )
        free[at] = False
    alone = np.flatnonzero(free & ~(matches.overlap >= SAME).any(axis=0))
    for at in _one_an_object(alone, boxes, sure):
        score = _probability(sure[at], trust.odds)
        issues.append(_issue("overlooked", predicted_names[at], boxes[at], score))
    return issues


def _one_an_object(rows: npt.NDArray[np.intp], boxes: FloatArray, sure: FloatArray) -> list[int]:
    """Return the most probable of the predictions for each object."""
    order = rows[np.argsort(-sure[rows], kind="stable")]
    overlaps = iou_matrix(boxes[order], boxes[order]) >= SAME
    best: list[int] = []
    for at in range(len(order)):
        if not overlaps[at, best].any():
            best.append(at)
    return [int(row) for row in order[best]]


def _probability(sure: float, prior_odds: float) -> float:
    """Return the probability whose odds are those of a prediction times the prior odds."""
    odds = prior_odds * sure / (1.0 - sure)
    return odds / (1.0 + odds)


def _issue(
    kind: str,
    name: str,
    box: FloatArray,
    score: float,
    *,
    label: str | None = None,
    given: str = "",
) -> dict[str, object]:
    """Return an issue about a class and a box; ``label`` is the suspected label, if any."""
    suggestions = {
        "spurious": f"Is there {name} here at all? The model predicts nothing.",
        "swapped": f"Is it {name} instead of {given}?",
        "badly_located": f"Does {name} reach as far as the predicted box?",
        "overlooked": f"Is there {name} without a label here?",
    }
    return {
        "kind": kind,
        "label_id": label,
        "score": float(score),
        "class_name": name,
        **dict(zip(BOX_COLUMNS, box.tolist(), strict=True)),
        "suggestion": suggestions[kind],
    }
