"""What a model gets wrong, box by box: for people to look at, and for training to weigh.

The kinds of error are those of Bolya et al., "TIDE: A General Toolbox for Identifying Object
Detection Errors", 2020, told at one confidence instead of over the whole curve.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.models.evaluation.matches import IntArray
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import (
    BOX_COLUMNS,
    Boxes,
    FloatArray,
    as_boxes,
    box_areas,
    iou_matrix,
)
from annotation_platform.schema.tables import MissedByModel, ModelFindings
from annotation_platform.schema.tables.shared import FINDING_KINDS

FOUND = 0.5
"""IoU from which on a box of the right class is right."""
NEAR = 0.1
"""IoU from which on a box is about an object at all."""


@dataclass(frozen=True)
class MatchedImage:
    """One image: its true boxes and its proposals, best first, and what overlaps what."""

    image_id: str
    boxes: Boxes  # (N, 4)
    classes: Sequence[str]  # N
    found: Boxes  # (M, 4)
    found_classes: Sequence[str]  # M
    scores: FloatArray  # (M,)
    iou: FloatArray  # (M, N)
    same: FloatArray  # (M, N), the same where the classes are equal, else 0
    match: IntArray  # (M,), the true box that a proposal finds, or -1


def model_findings(
    round_id: str, truth: Dataset, predictions: pd.DataFrame, *, minimum_score: float
) -> pd.DataFrame:
    """Return the ``model_findings`` of a round: everything wrong with a model's proposals.

    Proposals are matched as COCO matches them: within a class, the surest first, each with the
    free true box that it overlaps most, if by ``FOUND``. One without a match is, in this order,

    * ``duplicate``: of an object that a surer one has found;
    * ``class``: the right place of an object of another class;
    * ``place``: overlaps an object of its class by ``NEAR`` but less than ``FOUND``;
    * ``class_and_place``: overlaps one of another class so little;
    * ``background``: nothing is there.

    A true box that is not found, and that no ``class`` or ``place`` is about, is a ``miss``. The
    worst of each kind come first: the surest proposals, the largest misses.

    Args:
        round_id: written beside each.
        truth: the images and their boxes; those without an area are left out.
        predictions: ``image_id, class_name, x1, y1, x2, y2, score``.
        minimum_score: proposals below it are not looked at, as people do not see them.
    """
    rows: list[dict[str, object]] = []
    for image in matched_images(truth, predictions, minimum_score):
        wrong = list(_false_alarms(image))
        covered = {row["truth"] for row in wrong if row["kind"] in ("class", "place")}
        rows += wrong + list(_misses(image, covered))
    rows.sort(key=lambda row: (str(row["kind"]), -float(str(row["worth"]))))
    numbered = [
        {**row, "round_id": round_id, "finding_id": f"{round_id}:{number:05d}", "rank": number}
        for number, row in enumerate(rows)
    ]
    return ModelFindings.from_rows(numbered)


def missed_boxes(
    round_id: str,
    weights_sha256: str,
    truth: Dataset,
    predictions: pd.DataFrame,
    *,
    minimum_score: float,
) -> pd.DataFrame:
    """Return ``missed_by_model``: every true box that no proposal of its class finds.

    On the images that a model learned from these are what it could not learn, for want of
    examples or because the label is wrong: something to weigh, and something to look at.
    """
    rows: list[dict[str, object]] = []
    for image in matched_images(truth, predictions, minimum_score):
        found = set(image.match.tolist())
        for number, (name, box) in enumerate(zip(image.classes, image.boxes, strict=True)):
            if number not in found:
                row = _place(image.image_id, name, box)
                overlap = image.same[:, number]
                row |= {
                    "round_id": round_id,
                    "missed_id": f"{image.image_id}:{number:04d}",
                    "nearest_iou": float(overlap.max()) if overlap.size else 0.0,
                    "image_boxes": len(image.boxes),
                    "weights_sha256": weights_sha256,
                }
                rows.append(row)
    return MissedByModel.from_rows(rows)


def image_weights(missed: pd.DataFrame, *, strength: float = 2.0) -> dict[str, float]:
    """Return how often training should look at each image of which something was missed.

    ``1 + strength × the share of its boxes that was missed``; every other image weighs 1. The
    share, not the number, so that crowded images do not push out all others; and a bound, because
    part of what a model misses in its own training images are wrong labels.

    Args:
        missed: ``missed_by_model``.
        strength: what an image weighs more of which everything was missed, 0 or above.
    """
    by_image = missed.groupby("image_id")["image_boxes"].agg(["size", "first"])
    shares = by_image["size"] / by_image["first"]
    return {str(image): 1.0 + strength * float(share) for image, share in shares.items()}


def images_to_relabel(
    findings: pd.DataFrame, *, kinds: Sequence[str] = (), most: int = 0
) -> dict[str, str]:
    """Return the images whose labels should be looked at again, the most findings first, and why.

    A model that is sure where people saw nothing, and sees nothing where people drew a box, is
    wrong, or they are; both are told by asking again. Ties go by image id.

    Args:
        findings: ``model_findings`` of one round.
        kinds: the kinds that count; none means all of them.
        most: so many images at most; 0 is no limit.

    Raises:
        DataError: there is no such kind.
    """
    unknown = sorted(set(kinds) - set(FINDING_KINDS))
    if unknown:
        raise DataError(f"no kind of finding {unknown[0]!r}: it is one of {list(FINDING_KINDS)}.")
    chosen = findings[findings["kind"].isin(kinds or FINDING_KINDS)]
    counts = chosen.groupby(["image_id", "kind"]).size().unstack(fill_value=0)
    order = counts.assign(all=counts.sum(axis=1)).reset_index()
    order = order.sort_values(["all", "image_id"], ascending=[False, True])
    order = order.head(most) if most else order
    reasons = {}
    for row in order.to_dict("records"):
        said = [f"{row[kind]} {kind}" for kind in FINDING_KINDS if row.get(kind)]
        reasons[str(row["image_id"])] = "the model disagrees: " + ", ".join(said)
    return reasons


def matched_images(
    truth: Dataset, predictions: pd.DataFrame, minimum_score: float
) -> Iterator[MatchedImage]:
    """Yield every image of ``truth``, by id, its proposals matched as ``model_findings`` says."""
    labels = truth.labels[box_areas(as_boxes(truth.labels[BOX_COLUMNS])) > 0]
    shown = predictions[predictions["score"] >= minimum_score]
    shown = shown.sort_values("score", ascending=False, kind="stable")
    by_image = [dict(iter(frame.groupby("image_id"))) for frame in (labels, shown)]
    nothing = labels.iloc[:0], shown.iloc[:0]
    for image_id in sorted(truth.images["image_id"]):
        true, found = (
            part.get(image_id, none) for part, none in zip(by_image, nothing, strict=True)
        )
        yield _matched(image_id, true, found)


def _matched(image_id: str, true: pd.DataFrame, found: pd.DataFrame) -> MatchedImage:
    boxes, proposals = as_boxes(true[BOX_COLUMNS]), as_boxes(found[BOX_COLUMNS])
    classes, proposed = true["class_name"].tolist(), found["class_name"].tolist()
    iou = iou_matrix(proposals, boxes)
    same = np.where(np.array(proposed, str)[:, None] == np.array(classes, str)[None, :], iou, 0.0)
    match = np.full(len(proposals), -1, dtype=np.int64)
    free = np.ones(len(boxes), dtype=bool)
    for number in range(len(proposals) if len(boxes) else 0):
        best = int(np.argmax(np.where(free, same[number], -1.0)))
        if free[best] and same[number, best] >= FOUND:
            match[number], free[best] = best, False
    scores = found["score"].to_numpy(dtype=float)
    return MatchedImage(image_id, boxes, classes, proposals, proposed, scores, iou, same, match)


def _false_alarms(image: MatchedImage) -> Iterator[dict[str, object]]:
    for number in np.flatnonzero(image.match < 0):
        kind, about = "background", -1
        if len(image.boxes):
            same, other = image.same[number], image.iou[number].copy()
            other[image.same[number] > 0] = 0.0
            its, others = int(np.argmax(same)), int(np.argmax(other))
            if same[its] >= FOUND:
                kind, about = "duplicate", its
            elif other[others] >= FOUND:
                kind, about = "class", others
            elif same[its] >= NEAR:
                kind, about = "place", its
            elif other[others] >= NEAR:
                kind, about = "class_and_place", others
        score = float(image.scores[number])
        row = _place(image.image_id, image.found_classes[number], image.found[number])
        yield row | {
            "kind": kind,
            "score": score,
            "true_class": image.classes[about] if about >= 0 else None,
            "iou": float(image.iou[number, about]) if about >= 0 else None,
            "truth": about,
            "worth": score,
        }


def _misses(image: MatchedImage, covered: set[object]) -> Iterator[dict[str, object]]:
    found = set(image.match.tolist())
    areas = box_areas(image.boxes)
    for number, (name, box) in enumerate(zip(image.classes, image.boxes, strict=True)):
        if number not in found and number not in covered:
            overlap = image.iou[:, number]
            yield _place(image.image_id, name, box) | {
                "kind": "miss",
                "score": None,
                "true_class": name,
                "iou": float(overlap.max()) if overlap.size else 0.0,
                "worth": float(areas[number]),
            }


def _place(image_id: str, name: str, box: FloatArray) -> dict[str, object]:
    corners: Mapping[str, float] = dict(zip(BOX_COLUMNS, box.tolist(), strict=True))
    return {"image_id": image_id, "class_name": name, **corners}
