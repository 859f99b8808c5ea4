"""Detection errors box by box: for people to review, and for weighting images in training.

The kinds of error are those of Bolya et al., "TIDE: A General Toolbox for Identifying Object
Detection Errors", 2020, determined at one confidence instead of over the whole curve.
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
from annotation_platform.schema.tables import Frame, MissedByModel, ModelErrors
from annotation_platform.schema.tables.shared import ERROR_KINDS, ErrorKind

FOUND = 0.5
"""Lowest IoU at which a box of the right class finds an object."""
NEAR = 0.1
"""Lowest IoU at which a box refers to an object at all."""


@dataclass(frozen=True)
class MatchedImage:
    """One image: its true boxes, its predictions, best first, and their overlaps."""

    image_id: str
    boxes: Boxes  # (N, 4)
    classes: Sequence[str]  # N
    found: Boxes  # (M, 4)
    found_classes: Sequence[str]  # M
    scores: FloatArray  # (M,)
    iou: FloatArray  # (M, N)
    same: FloatArray  # (M, N), the IoU where the classes are equal, else 0
    match: IntArray  # (M,), the true box that a prediction finds, or -1


def model_errors(
    round_id: str, truth: Dataset, predictions: pd.DataFrame, *, minimum_score: float
) -> Frame[ModelErrors]:
    """Return the ``model_errors`` of a round: every error of a model's predictions.

    Predictions are matched as in COCO: within a class, the highest score first, each with the
    unmatched true box that it overlaps most, if by ``FOUND``. One without a match is of the first
    of these kinds that applies:

    * ``duplicate``: overlaps an object of its class by ``FOUND`` that another prediction found;
    * ``classification``: overlaps an object of another class by ``FOUND``;
    * ``localization``: overlaps an object of its class by ``NEAR`` but less than ``FOUND``;
    * ``both``: overlaps an object of another class by ``NEAR`` but less than ``FOUND``;
    * ``background``: overlaps no object.

    A true box that is not found, and to which no ``classification`` or ``localization`` refers, is
    ``missed``. The worst of each kind come first: predictions by score, missed boxes by area.

    Args:
        round_id: written in each row.
        truth: the images and their boxes; those without an area are left out.
        predictions: ``image_id, class_name, x1, y1, x2, y2, score``.
        minimum_score: predictions below it are ignored, as annotators do not see them.
    """
    rows: list[dict[str, object]] = []
    for image in matched_images(truth, predictions, minimum_score):
        wrong = list(_false_alarms(image))
        kinds = (ErrorKind.CLASSIFICATION, ErrorKind.LOCALIZATION)
        covered = {row["truth"] for row in wrong if row[ModelErrors.kind] in kinds}
        rows += wrong + list(_misses(image, covered))
    rows.sort(key=lambda row: (str(row[ModelErrors.kind]), -float(str(row["worth"]))))
    numbered = [
        {**row, "round_id": round_id, "error_id": f"{round_id}:{number:05d}", "rank": number}
        for number, row in enumerate(rows)
    ]
    return ModelErrors.from_rows(numbered)


def missed_boxes(
    round_id: str,
    weights_sha256: str,
    truth: Dataset,
    predictions: pd.DataFrame,
    *,
    minimum_score: float,
) -> Frame[MissedByModel]:
    """Return ``missed_by_model``: every true box that no prediction of its class finds.

    On training images these are boxes that the model failed to fit, for lack of examples or because
    the label is wrong: reasons to weight the image higher, and to review it.
    """
    rows: list[dict[str, object]] = []
    for image in matched_images(truth, predictions, minimum_score):
        found = set(image.match.tolist())
        for number, (name, box) in enumerate(zip(image.classes, image.boxes, strict=True)):
            if number not in found:
                row = _box_columns(image.image_id, name, box)
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


def image_weights(missed: Frame[MissedByModel], *, strength: float = 2.0) -> dict[str, float]:
    """Return the training weight of each image with missed boxes, by image id.

    It is ``1 + strength × the share of its boxes that was missed``; every other image weighs 1. The
    share, not the number, is used so that crowded images do not displace all others. It is bounded
    because some misses in training images are wrong labels.

    Args:
        missed: ``missed_by_model``.
        strength: additional weight of an image whose boxes were all missed, 0 or above.
    """
    grouped = missed.groupby(MissedByModel.image_id)[MissedByModel.image_boxes]
    by_image = grouped.agg(["size", "first"])
    shares = by_image["size"] / by_image["first"]
    return {str(image): 1.0 + strength * float(share) for image, share in shares.items()}


def images_to_relabel(
    findings: Frame[ModelErrors], *, kinds: Sequence[str] = (), most: int = 0
) -> dict[str, str]:
    """Return the images whose labels need a review, the most findings first, and the reasons.

    Where a confident prediction has no label, or a label no prediction, either the model or the
    label is wrong; another annotation shows which. Ties are in the order of the image ids.

    Args:
        findings: ``model_errors`` of one round.
        kinds: the kinds that count; empty: all.
        most: largest number of images; 0: no limit.

    Raises:
        DataError: there is no such kind.
    """
    unknown = sorted(set(kinds) - set(ERROR_KINDS))
    if unknown:
        raise DataError(f"no kind of finding {unknown[0]!r}: it is one of {list(ERROR_KINDS)}.")
    image_id, kind_column = ModelErrors.image_id, ModelErrors.kind
    chosen = findings[findings[kind_column].isin(kinds or ERROR_KINDS)]
    counts = chosen.groupby([image_id, kind_column]).size().unstack(fill_value=0)
    order = counts.assign(all=counts.sum(axis=1)).reset_index()
    order = order.sort_values(["all", image_id], ascending=[False, True])
    order = order.head(most) if most else order
    reasons = {}
    for row in order.to_dict("records"):
        parts = [f"{row[kind]} {kind}" for kind in ERROR_KINDS if row.get(kind)]
        reasons[str(row[image_id])] = "the model disagrees: " + ", ".join(parts)
    return reasons


def matched_images(
    truth: Dataset, predictions: pd.DataFrame, minimum_score: float
) -> Iterator[MatchedImage]:
    """Yield every image of ``truth`` by id, with predictions matched as for ``model_errors``."""
    labels = truth.labels[box_areas(as_boxes(truth.labels[BOX_COLUMNS])) > 0]
    shown = predictions[predictions["score"] >= minimum_score]
    shown = shown.sort_values("score", ascending=False, kind="stable")
    by_image = [dict(iter(frame.groupby("image_id"))) for frame in (labels, shown)]
    empty = labels.iloc[:0], shown.iloc[:0]
    for image_id in sorted(truth.images["image_id"]):
        true, found = (part.get(image_id, none) for part, none in zip(by_image, empty, strict=True))
        yield _matched(image_id, true, found)


def _matched(image_id: str, true: pd.DataFrame, found: pd.DataFrame) -> MatchedImage:
    boxes, predictions = as_boxes(true[BOX_COLUMNS]), as_boxes(found[BOX_COLUMNS])
    classes, predicted = true["class_name"].tolist(), found["class_name"].tolist()
    iou = iou_matrix(predictions, boxes)
    same = np.where(np.array(predicted, str)[:, None] == np.array(classes, str)[None, :], iou, 0.0)
    match = np.full(len(predictions), -1, dtype=np.int64)
    free = np.ones(len(boxes), dtype=bool)
    for number in range(len(predictions) if len(boxes) else 0):
        best = int(np.argmax(np.where(free, same[number], -1.0)))
        if free[best] and same[number, best] >= FOUND:
            match[number], free[best] = best, False
    scores = found["score"].to_numpy(dtype=float)
    return MatchedImage(image_id, boxes, classes, predictions, predicted, scores, iou, same, match)


def _false_alarms(image: MatchedImage) -> Iterator[dict[str, object]]:
    for number in np.flatnonzero(image.match < 0):
        kind, about = ErrorKind.BACKGROUND, -1
        if len(image.boxes):
            same, other = image.same[number], image.iou[number].copy()
            other[image.same[number] > 0] = 0.0
            best_same, best_other = int(np.argmax(same)), int(np.argmax(other))
            if same[best_same] >= FOUND:
                kind, about = ErrorKind.DUPLICATE, best_same
            elif other[best_other] >= FOUND:
                kind, about = ErrorKind.CLASSIFICATION, best_other
            elif same[best_same] >= NEAR:
                kind, about = ErrorKind.LOCALIZATION, best_same
            elif other[best_other] >= NEAR:
                kind, about = ErrorKind.BOTH, best_other
        score = float(image.scores[number])
        row = _box_columns(image.image_id, image.found_classes[number], image.found[number])
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
            yield _box_columns(image.image_id, name, box) | {
                "kind": ErrorKind.MISSED,
                "score": None,
                "true_class": name,
                "iou": float(overlap.max()) if overlap.size else 0.0,
                "worth": float(areas[number]),
            }


def _box_columns(image_id: str, name: str, box: FloatArray) -> dict[str, object]:
    corners: Mapping[str, float] = dict(zip(BOX_COLUMNS, box.tolist(), strict=True))
    return {"image_id": image_id, "class_name": name, **corners}
