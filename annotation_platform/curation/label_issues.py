"""Which labels are probably wrong, and which objects probably lack one.

Boxes are judged image by image, from what a model that did not learn from these labels proposes
there: a score is the probability of an error, and is the same whatever else is judged with it.
Classes of whole images are judged together, by confident learning. ``docs/algorithms/
label-issues.md`` has the formulas and what was measured against other ways.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.units import need_columns
from annotation_platform.errors import TableError
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray, as_boxes, iou_matrix
from annotation_platform.schema.tables import Conflicts, LabelIssues, records

BoolArray = npt.NDArray[np.bool_]

SAME = 0.5
"""Least overlap of two boxes round one object."""

NEAR = 0.1
"""A box that overlaps another so much may be meant for its object, and badly placed."""

SURE = 0.95
"""A class of this probability is held possible, though the model be surer of the class elsewhere.

Of images that a model knows well about half are less sure than the mean, by a trifle: one of them
with a wrong label would go unseen.
"""

_CERTAIN = 1e-4
_LEAST_UNSEEN = 0.005


@dataclass(frozen=True)
class Trust:
    """What is known beforehand: of a model, and of the labels.

    ``unseen`` is by class the share of true objects at which nothing is proposed: no box of the
    class near them and none of another class on them. ``error_rate`` is the share of labels taken
    to be wrong, in four ways alike.
    """

    unseen: Mapping[str, float]
    unseen_otherwise: float  # of classes that are not named
    error_rate: float

    def chance_unseen(self, class_name: str) -> float:
        """Return the chance that nothing is proposed at an object of the class, above 0."""
        return max(self.unseen.get(class_name, self.unseen_otherwise), _LEAST_UNSEEN)

    @property
    def odds(self) -> float:
        """The odds of one kind of error against none, before anybody looks."""
        return self.error_rate / 4.0 / (1.0 - self.error_rate)


def measure_trust(predictions: pd.DataFrame, truth: pd.DataFrame, *, error_rate: float) -> Trust:
    """Return what is known of a model, from images whose labels are trusted.

    The share of a class with few objects is drawn towards that of all, as by ten objects more.

    Args:
        predictions: ``image_id, class_name, x1, y1, x2, y2`` of these images.
        truth: the same of their labels: those that the calibration was fitted to.
        error_rate: see ``Trust``, in ``(0, 1)``.
    """
    proposed = dict(iter(predictions.groupby("image_id")))
    counts: dict[str, list[int]] = {}
    for image_id, rows in truth.groupby("image_id"):
        meeting = _meeting(rows, proposed.get(image_id, predictions.iloc[:0]))
        seen = [bool(each.any()) for each in meeting.seen]
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
) -> pd.DataFrame:
    """Return the ``label_issues`` of boxes, most suspected first.

    The kinds are those of Tkachenko, Thyagarajan and Mueller, "ObjectLab: Automated Diagnosis of
    Mislabeled Images in Object Detection Data", 2023: *swapped* (another class), *placed* (badly),
    *missed* (no label), and *wrong* (nothing there). Their scores are similarities; these are
    probabilities by Bayes' rule, from the calibrated probability ``p`` of a proposal and what
    ``trust`` knows:

    - swapped: odds of ``p`` times those of an error, ``p`` of another class in the same place;
    - placed: the same, ``p`` of the same class near by but not there;
    - missed: the same, where a proposal has no label;
    - wrong: odds of an error by the chance that nothing is proposed at an object, where nothing is.

    Where a proposal of a label's class confirms it, with probability ``q``, the suspicion that it
    is swapped or badly placed is multiplied by ``1 - q``. Each label, and each proposal, is
    suspected of one thing at most.

    Args:
        labels: ``image_id, label_id, class_name, x1, y1, x2, y2`` of boxes.
        predictions: ``image_id, class_name, x1, y1, x2, y2, score`` of every image of ``labels``,
            also of images without labels; ``score`` is a calibrated probability, of a model that
            did not learn from these labels. A score that is no number is passed over.
        trust: what is known beforehand.
        round_id: written beside each.
        minimum_probability: less suspected ones are left out, in ``[0, 1]``.

    Raises:
        TableError: a column is missing.
    """
    need_columns(labels, ["image_id", "label_id", "class_name", *BOX_COLUMNS])
    need_columns(predictions, ["image_id", "class_name", *BOX_COLUMNS, "score"])
    usable = predictions[predictions["score"].notna()]
    proposed = {str(image): its for image, its in usable.groupby("image_id")}
    labelled = {str(image): its for image, its in labels.groupby("image_id")}
    rows: list[dict[str, object]] = []
    for image_id in sorted({*proposed, *labelled}):
        given = labelled.get(image_id, labels.iloc[:0])
        found = _judge(given, proposed.get(image_id, usable.iloc[:0]), trust)
        kept = [issue for issue in found if float(str(issue["score"])) >= minimum_probability]
        for number, issue in enumerate(kept):
            name = f"{image_id}:{issue['kind']}:{number:04d}"
            rows.append({"round_id": round_id, "image_id": image_id, "issue_id": name, **issue})
    rows.sort(key=lambda row: (-float(str(row["score"])), str(row["issue_id"])))
    return LabelIssues.from_rows(rows)


def mistake_risk(issues: pd.DataFrame) -> pd.Series:
    """Return by image the probability that some label of it is wrong or missing.

    One minus the product over its issues of the probability that they are none, so ``issues`` is
    to hold all of them, however little suspected (``minimum_probability`` 0). Images without any
    are not in it.
    """
    calm = np.log1p(-np.minimum(issues["score"], 1.0 - _CERTAIN))
    return pd.Series(1.0 - np.exp(calm.groupby(issues["image_id"]).sum()), name="mistake_risk")


def class_issues(
    labels: pd.DataFrame,
    probabilities: FloatArray,
    class_names: list[str],
    *,
    round_id: str,
) -> pd.DataFrame:
    """Return the ``label_issues`` of one class an image, most suspected first.

    Confident learning (Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in
    Dataset Labels", 2021), by cleanlab: images off the diagonal of the confident joint, as many
    of each pair of classes as it estimates are wrong. A class counts as possible from the mean
    probability of its own images on, and from ``SURE`` on in any case. The score is one minus
    the probability of the given label: the order among them, not a probability of an error.

    Args:
        labels: ``image_id, label_id, class_name``, one row an image.
        probabilities: ``(N, K)``, of a model that did not learn from these labels.
        class_names: the ``K`` classes, in the order of the columns.
        round_id: written beside each.

    Raises:
        TableError: a column is missing, or a label is of no class of ``class_names``.
    """
    need_columns(labels, ["image_id", "label_id", "class_name"])
    given = pd.Index(class_names).get_indexer(pd.Index(labels["class_name"]))
    if (given < 0).any():
        foreign = labels["class_name"].iloc[int((given < 0).argmax())]
        raise TableError(f"label of class {foreign!r}, which the probabilities lack. Leave it out.")
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
) -> pd.DataFrame:
    """Return the ``label_issues`` of any number of classes an image, most suspected first.

    Each class is a question of its own, does it hold or not, judged as in ``class_issues``: one
    that was chosen may be ``wrong``, one that was not ``missed``. A class that was chosen of every
    image, or of none, says nothing of what errors of it look like, and is left out. The score is
    one minus the probability of what was said.

    Args:
        labels: ``image_id, label_id, class_name``, a row for every class that was chosen.
        probabilities: by image id, a column for every class: that it holds, 0 to 1, of a model
            that did not learn from these labels. Images of which none was chosen are among them.
        round_id: written beside each.
    """
    need_columns(labels, ["image_id", "label_id", "class_name"])
    rows: list[dict[str, object]] = []
    for name in probabilities.columns:
        own = labels[labels["class_name"] == name].set_index("image_id")["label_id"]
        given = probabilities.index.isin(own.index).astype(np.int64)
        if given.min() == given.max():
            continue
        holds = probabilities[name].to_numpy(dtype=np.float64)
        chances = np.stack([1.0 - holds, holds], axis=1)
        suspected = _off_the_diagonal(given, chances)
        for at in np.flatnonzero(suspected).tolist():
            image, chosen = str(probabilities.index[at]), bool(given[at])
            rows.append(
                {
                    "round_id": round_id,
                    "image_id": image,
                    "issue_id": f"{image}:{'wrong' if chosen else 'missed'}:{name}",
                    "kind": "wrong" if chosen else "missed",
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
    # A class that nobody gave has a threshold above 1, and keeps it.
    thresholds[thresholds <= 1.0] = thresholds[thresholds <= 1.0].clip(max=SURE)
    joint = compute_confident_joint(given, probabilities, thresholds=thresholds)
    found = find_label_issues(
        given, probabilities, filter_by="both", confident_joint=joint, n_jobs=1
    )
    return np.asarray(found, dtype=bool)


def issues_as_conflicts(issues: pd.DataFrame, consensus: pd.DataFrame) -> pd.DataFrame:
    """Return suspected labels as ``conflicts`` that no rule settled, for reviewers to decide.

    Joined to a round's own conflicts they make its images review tasks, with the suggestion as
    the note. Only where ``review.gate`` is manual: without a reviewer, an image with an unsettled
    conflict is left out of the release. Issues of images that the round did not ask about are not
    in it.

    Args:
        issues: ``label_issues`` of the round.
        consensus: its ``consensus_labels``.
    """
    tasks = dict(zip(consensus["image_id"], consensus["task_id"], strict=True))
    rows: list[dict[str, object]] = [
        {
            **row,
            "task_id": tasks[row["image_id"]],
            "conflict_id": row["issue_id"],
            "kind": f"suspected {row['kind']}",
            "shape": "box" if placed else "choice",
            "geometry": "",
            "annotators": "",
            "detail": f"{row['suggestion']} ({row['score']:.0%} by the model)",
            "settled": False,
        }
        for row, placed in zip(records(issues), issues["x1"].notna(), strict=True)
        if row["image_id"] in tasks
    ]
    return Conflicts.from_rows(rows)


def with_suspects(
    conflicts: pd.DataFrame, issues: pd.DataFrame, consensus: pd.DataFrame
) -> pd.DataFrame:
    """Return a round's ``conflicts`` with its suspected labels, in place of those of before."""
    others = conflicts[~conflicts["kind"].str.startswith("suspected ")]
    suspects = issues_as_conflicts(issues, consensus)
    if suspects.empty:
        return others
    return suspects if others.empty else pd.concat([others, suspects], ignore_index=True)


@dataclass(frozen=True)
class _Meeting:
    """How ``N`` labels and ``M`` proposals of one image lie, each ``(N, M)``."""

    overlap: FloatArray
    same: BoolArray  # of the same class
    confirms: BoolArray  # of the same class and in the same place
    seen: BoolArray  # the proposal may be meant for the object of the label


def _meeting(labels: pd.DataFrame, proposed: pd.DataFrame) -> _Meeting:
    names = labels["class_name"].to_numpy(dtype=object)
    said = proposed["class_name"].to_numpy(dtype=object)
    overlap = iou_matrix(as_boxes(labels[BOX_COLUMNS]), as_boxes(proposed[BOX_COLUMNS]))
    same = np.asarray(names[:, None] == said[None, :], dtype=bool)
    on_it = overlap >= SAME
    return _Meeting(overlap, same, same & on_it, on_it | (same & (overlap >= NEAR)))


def _judge(labels: pd.DataFrame, proposed: pd.DataFrame, trust: Trust) -> list[dict[str, object]]:
    """Return what is suspected of one image, each label and each proposal once at most."""
    sure = np.clip(proposed["score"].to_numpy(dtype=np.float64), _CERTAIN, 1.0 - _CERTAIN)
    meeting = _meeting(labels, proposed)
    # Rows of a frame are slow to take one by one.
    ids, names = labels["label_id"].tolist(), labels["class_name"].tolist()
    places = as_boxes(labels[BOX_COLUMNS])
    said, boxes = proposed["class_name"].tolist(), as_boxes(proposed[BOX_COLUMNS])
    # A proposal that confirms a label of its class says nothing of its neighbours.
    free: BoolArray = np.asarray(~meeting.confirms.any(axis=0), dtype=np.bool_)
    issues: list[dict[str, object]] = []
    for row, name in enumerate(names):
        seen = meeting.seen[row]
        if not seen.any():
            odds = trust.odds / trust.chance_unseen(name)
            issues.append(_issue("wrong", name, places[row], odds / (1.0 + odds), label=ids[row]))
            continue
        against = np.where(free & seen, sure, 0.0)
        if not against.any():
            continue
        at = int(against.argmax())
        kind = "placed" if meeting.same[row, at] else "swapped"
        own = float(np.where(meeting.confirms[row], sure, 0.0).max(initial=0.0))
        score = _probability(sure[at], trust.odds) * (1.0 - own)
        issues.append(_issue(kind, said[at], boxes[at], score, label=ids[row], given=name))
        free[at] = False
    alone = np.flatnonzero(free & ~(meeting.overlap >= SAME).any(axis=0))
    for at in _one_an_object(alone, boxes, sure):
        issues.append(_issue("missed", said[at], boxes[at], _probability(sure[at], trust.odds)))
    return issues


def _one_an_object(rows: npt.NDArray[np.intp], boxes: FloatArray, sure: FloatArray) -> list[int]:
    """Return the surest of the proposals round each object."""
    order = rows[np.argsort(-sure[rows], kind="stable")]
    alike = iou_matrix(boxes[order], boxes[order]) >= SAME
    kept: list[int] = []
    for at in range(len(order)):
        if not alike[at, kept].any():
            kept.append(at)
    return [int(row) for row in order[kept]]


def _probability(sure: float, prior_odds: float) -> float:
    """Return the probability whose odds are those of a proposal times the prior's."""
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
    """Return an issue of a class and a box; ``label`` is the suspected one, of the class given."""
    suggestions = {
        "wrong": f"Is there {name} here at all? Nothing is proposed.",
        "swapped": f"Is it {name} instead of {given}?",
        "placed": f"Does {name} reach as far as the proposed box?",
        "missed": f"Is there {name} without a label here?",
    }
    return {
        "kind": kind,
        "label_id": label,
        "score": float(score),
        "class_name": name,
        **dict(zip(BOX_COLUMNS, box.tolist(), strict=True)),
        "suggestion": suggestions[kind],
    }
