"""Calibration of a detector: from its score to the probability that its box is right.

A box is right if it overlaps a true box of its class by an IoU of 0.5 and no better box is matched
with that true box. ``docs/algorithms/predictions.md`` has the formulas and their limits.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from annotation_platform.errors import ModelError
from annotation_platform.schema.geometry import (
    BOX_COLUMNS,
    FloatArray,
    as_boxes,
    box_areas,
    iou_matrix,
)

BoolArray = npt.NDArray[np.bool_]
Kind = Literal["own", "pooled", "identity"]

RIGHT_IOU = 0.5
LEAST_IMAGES = 5
"""Smallest number of images for a calibration; with fewer, scores stay unchanged."""
LEAST_BOXES = 10
"""Smallest number of right and of wrong boxes for a curve, of one class or pooled."""

_FOLDS = 5
_MOST_BINS = 15
_BOXES_A_BIN = 10
_CERTAIN = 1e-6
# A flat part of the curve would make ties of different scores.
_LEAST_RISE = 1e-3
# Standard deviations of the priors: of the pooled curve around the identity, of a class's curve
# around the pooled one.
_POOLED_SPREAD = np.array([2.0, 2.0, 3.0])
_CLASS_SPREAD = np.array([0.4, 0.4, 0.8])


class StoredCalibration(BaseModel):
    """The calibration of a model's scores, as the registry stores it with the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    # Number of images it was fitted to. Version 0.1.0 wrote it as ``pictures``.
    images: int = Field(validation_alias=AliasChoices("images", "pictures"))
    error_before: float | None = None
    error_after: float | None = None
    error_by_chance: float | None = None
    # Set only where the text that was read is not what ``to_json`` writes.
    _digest_as_read: str = PrivateAttr(default="")

    @property
    def digest(self) -> str:
        """SHA-256 of the file: of the text that was read, or else of what ``to_json`` writes."""
        return self._digest_as_read or hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def changes_scores(self) -> bool:
        """Whether calibrated scores differ from the model's own."""
        raise NotImplementedError

    @property
    def effective_digest(self) -> str:
        """The digest; empty where scores are left unchanged."""
        return self.digest if self.changes_scores else ""

    def to_json(self) -> str:
        """Return the calibration as indented JSON with sorted keys."""
        text = json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True)
        return text + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, where: str) -> Self:
        """Return the calibration in ``text``; a damaged one is a ModelError naming ``where``.

        Files of version 0.1.0 are read, and keep the digest under which they are stored.
        """
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            raise ModelError(
                f"{where}: not a calibration: {error.errors()[0]['msg']}. "
                "Delete it and train the model again."
            ) from error
        content = text.encode() if isinstance(text, str) else text
        if content != found.to_json().encode():
            found._digest_as_read = hashlib.sha256(content).hexdigest()
        return found


class Curve(BaseModel):
    """P(right) = sigmoid(rise · ln s − fall · ln(1 − s) + offset), rising in the score ``s``.

    Kull, Silva Filho and Flach, "Beta Calibration", 2017. With rise = fall it is Platt's curve
    over the log odds of the score; (1, 1, 0) changes nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rise: float
    fall: float
    offset: float

    def at(self, scores: FloatArray) -> FloatArray:
        """Return the ``(N,)`` probabilities, 0 to 1, of scores from 0 to 1."""
        if self == IDENTITY:
            return np.array(scores, dtype=np.float64)
        odds = _design(scores) @ np.array([self.rise, self.fall, self.offset])
        return np.asarray(0.5 * (1.0 + np.tanh(odds / 2.0)))


IDENTITY = Curve(rise=1.0, fall=1.0, offset=0.0)


class ClassCurve(BaseModel):
    """The curve of a class, its kind, and the number of boxes it was fitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    curve: Curve
    boxes: int
    right: int


class Calibration(StoredCalibration):
    """The calibration of a detector, by class.

    ``error_before`` and ``error_after`` are expected calibration errors over all boxes, the latter
    on images that the curves were not fitted to (five folds); ``error_by_chance`` is the error of a
    perfectly calibrated detector on the same number of boxes. They are missing with too few boxes.
    """

    classes: dict[str, ClassCurve]
    pooled: ClassCurve

    @property
    def changes_scores(self) -> bool:
        """Whether calibrated scores differ from the detector's own."""
        return self.pooled.kind != "identity"

    def apply(self, class_names: Sequence[str], scores: FloatArray) -> FloatArray:
        """Return the ``(N,)`` probabilities of being right.

        Unknown classes use the pooled curve. Within a class the order of the scores is kept.
        """
        names, scores = np.asarray(class_names, dtype=object), np.asarray(scores, np.float64)
        result = self.pooled.curve.at(scores)
        for name, one in self.classes.items():
            members = names == name
            result[members] = one.curve.at(scores[members])
        return result


@dataclass(frozen=True)
class CalibrationError:
    """The mean deviation of probabilities from the shares of right boxes."""

    error: float  # mean over bins of |mean probability − share right|, weighted by boxes, 0 to 1
    by_chance: float  # its mean for exact probabilities: the part that is due to chance
    boxes: int
    bins: int


def fit_calibration(
    predictions: pd.DataFrame, truth: pd.DataFrame, *, images: Sequence[str]
) -> Calibration:
    """Return the calibration of a detector, from images that it was not trained on.

    The curve of all classes together is shrunk towards the identity, and each class's own curve
    towards that one, so that a class with few boxes stays close to the others. A class with fewer
    than ``LEAST_BOXES`` right or wrong boxes uses the pooled curve; where all classes together have
    fewer, or there are fewer than ``LEAST_IMAGES`` images, scores stay unchanged.

    Args:
        predictions: ``image_id, class_name, x1, y1, x2, y2, score``, the detector's own score.
        truth: ``image_id, class_name, x1, y1, x2, y2``; boxes without an area are left out.
        images: every labelled image with predictions, including those without boxes.
    """
    known = set(images)
    found = predictions[predictions["image_id"].isin(known)].reset_index(drop=True)
    right = mark_right(found, truth[truth["image_id"].isin(known)])
    scores = found["score"].to_numpy(dtype=np.float64)
    names = found["class_name"].to_numpy(dtype=object)
    fitted = _fit(names, scores, right, images=len(known))
    before = calibration_error(scores, right)
    if before is None or fitted.pooled.kind == "identity":
        return fitted
    held_out = _cross_fitted(found["image_id"].to_numpy(dtype=object), names, scores, right, known)
    after = calibration_error(held_out, right)
    return fitted.model_copy(
        update={
            "error_before": before.error,
            "error_after": after.error if after else None,
            "error_by_chance": after.by_chance if after else None,
        }
    )


def identity_calibration() -> Calibration:
    """Return the calibration that leaves every score unchanged, fitted to no image."""
    return Calibration(
        classes={}, pooled=ClassCurve(kind="identity", curve=IDENTITY, boxes=0, right=0), images=0
    )


def mark_right(predictions: pd.DataFrame, truth: pd.DataFrame) -> BoolArray:
    """Return whether each prediction is right, in the order of the rows.

    As in COCO: in each image and class, by descending score, a prediction is matched with the
    unmatched true box that it overlaps most, if by an IoU of 0.5 or more. Equal scores are in the
    order of the rows.
    """
    right = np.zeros(len(predictions), dtype=bool)
    corners = as_boxes(predictions[BOX_COLUMNS])
    scores = predictions["score"].to_numpy(dtype=np.float64)
    solid = truth[box_areas(as_boxes(truth[BOX_COLUMNS])) > 0]
    true_boxes = {
        str(key): as_boxes(rows[BOX_COLUMNS]) for key, rows in solid.groupby(_keys(solid))
    }
    keys = _keys(predictions).to_numpy()
    for key, rows in pd.Series(range(len(keys))).groupby(keys):
        boxes = true_boxes.get(str(key))
        if boxes is None:
            continue
        indices = rows.to_numpy()
        order = indices[np.argsort(-scores[indices], kind="stable")]
        overlap = iou_matrix(corners[order], boxes)
        for row, index in enumerate(order):
            best = int(overlap[row].argmax())
            if overlap[row, best] >= RIGHT_IOU:
                right[index] = True
                overlap[:, best] = -1.0
    return right


def calibration_error(probabilities: FloatArray, right: BoolArray) -> CalibrationError | None:
    """Return the expected calibration error over bins of equal size; None without boxes.

    It is biased upwards: even exact probabilities differ from the observed shares by chance, the
    more the fewer boxes a bin has (Roelofs et al., "Mitigating Bias in Calibration Error
    Estimation", 2022). ``by_chance`` is that bias, by the normal approximation in each bin.
    """
    count = len(probabilities)
    if count == 0:
        return None
    bins = min(_MOST_BINS, max(1, count // _BOXES_A_BIN))
    values, value_of = np.unique(probabilities, return_inverse=True)
    # A bin's border may divide boxes of equal probability: each counts as their mean.
    hits = (np.bincount(value_of, weights=right) / np.bincount(value_of))[value_of]
    order = np.argsort(value_of, kind="stable")
    error = chance = 0.0
    for members in np.array_split(order, bins):
        expected = values[value_of[members]]
        error += abs(float(expected.sum() - hits[members].sum()))
        chance += float(np.sqrt(2.0 / np.pi * (expected * (1.0 - expected)).sum()))
    return CalibrationError(error / count, chance / count, count, bins)


def _keys(boxes: pd.DataFrame) -> "pd.Series[str]":
    return boxes["image_id"].astype(str) + "\n" + boxes["class_name"].astype(str)


def _fit(
    names: npt.NDArray[np.object_], scores: FloatArray, right: BoolArray, *, images: int
) -> Calibration:
    pooled = _own_curve(scores, right, IDENTITY, _POOLED_SPREAD, images)
    classes = {}
    for name in sorted(set(names)):
        members = names == name
        if pooled.kind == "identity":
            own = pooled.model_copy(update=_numbers(right[members]))
        else:
            own = _own_curve(scores[members], right[members], pooled.curve, _CLASS_SPREAD, images)
        if own.kind == "identity" and pooled.kind != "identity":
            own = ClassCurve(kind="pooled", curve=pooled.curve, **_numbers(right[members]))
        classes[str(name)] = own
    kind: Kind = "identity" if pooled.kind == "identity" else "pooled"
    return Calibration(
        classes=classes, pooled=pooled.model_copy(update={"kind": kind}), images=images
    )


def _own_curve(
    scores: FloatArray, right: BoolArray, towards: Curve, spread: FloatArray, images: int
) -> ClassCurve:
    """Return the curve of these boxes, or the identity if they are too few."""
    numbers = _numbers(right)
    wrong = numbers["boxes"] - numbers["right"]
    if min(numbers["right"], wrong) < LEAST_BOXES or images < LEAST_IMAGES:
        return ClassCurve(kind="identity", curve=IDENTITY, **numbers)
    return ClassCurve(kind="own", curve=_most_probable(scores, right, towards, spread), **numbers)


def _most_probable(
    scores: FloatArray, right: BoolArray, towards: Curve, spread: FloatArray
) -> Curve:
    """Return the curve of the greatest likelihood times a normal prior around ``towards``."""
    design = _design(scores)
    middle = np.array([towards.rise, towards.fall, towards.offset])
    signs = np.where(right, 1.0, -1.0)

    # Imported late: it takes half a second and only training needs it.
    from scipy.optimize import minimize

    def loss(curve: FloatArray) -> tuple[float, FloatArray]:
        margin = signs * (design @ curve)
        away = (curve - middle) / spread
        value = np.logaddexp(0.0, -margin).sum() + 0.5 * (away @ away)
        pull = -signs * 0.5 * (1.0 - np.tanh(margin / 2.0))
        return float(value), design.T @ pull + away / spread

    bounds = [(_LEAST_RISE, None), (_LEAST_RISE, None), (None, None)]
    found = minimize(loss, middle, jac=True, method="L-BFGS-B", bounds=bounds).x
    rise, fall, offset = (round(float(value), 6) for value in found)
    return Curve(rise=rise, fall=fall, offset=offset)


def _cross_fitted(
    image_ids: npt.NDArray[np.object_],
    names: npt.NDArray[np.object_],
    scores: FloatArray,
    right: BoolArray,
    images: set[str],
) -> FloatArray:
    """Return the probability of each box by curves fitted to other images."""
    fold_of = {image_id: n % _FOLDS for n, image_id in enumerate(sorted(images))}
    folds = np.array([fold_of[image_id] for image_id in image_ids])
    result = np.zeros(len(scores))
    for fold in range(_FOLDS):
        tested, rest = folds == fold, folds != fold
        # The images of all folds count, so that leaving out one does not switch the method.
        part = _fit(names[rest], scores[rest], right[rest], images=len(images))
        result[tested] = part.apply(names[tested].tolist(), scores[tested])
    return result


def _design(scores: FloatArray) -> FloatArray:
    inside = np.clip(scores, _CERTAIN, 1.0 - _CERTAIN)
    return np.column_stack([np.log(inside), -np.log1p(-inside), np.ones(len(inside))])


def _numbers(right: BoolArray) -> dict[str, int]:
    return {"boxes": len(right), "right": int(right.sum())}
