"""Calibration of a classifier: from its confidence to the probability of being right.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017: one temperature
for all classes. It keeps their order, so the predicted class stays the same.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from annotation_platform.models.detection.calibration import (
    LEAST_IMAGES,
    StoredCalibration,
    calibration_error,
)
from annotation_platform.schema.geometry import FloatArray

BoolArray = npt.NDArray[np.bool_]
Choose = Literal["one", "many"]

_FOLDS = 5
_CERTAIN = 1e-9
# Standard deviation of the prior of the temperature's logarithm, around 0.
_SPREAD = 1.0
_RANGE = (-3.0, 3.0)


class Temperature(StoredCalibration):
    """The calibration of a classifier; a temperature of 1 leaves probabilities unchanged.

    ``error_before`` and ``error_after`` are expected calibration errors, the latter on images
    that the temperature was not fitted to (five folds): of the most probable class where one
    holds, else of all classes. ``error_by_chance`` is the error of exact probabilities on the same
    number of images. They are missing with too few images.
    """

    temperature: float = Field(default=1.0, gt=0)
    choose: Choose

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """Return the ``(N, C)`` calibrated probabilities; NaN stays NaN."""
        return _scaled(probabilities, self.temperature, self.choose)

    @property
    def changes_scores(self) -> bool:
        """Whether calibrated probabilities differ from the classifier's own."""
        return self.temperature != 1.0


def fit_temperature(probabilities: FloatArray, truth: BoolArray, *, choose: Choose) -> Temperature:
    """Return the calibration of a classifier, from images that it was not trained on.

    It is the most probable temperature under a normal prior of deviation 1 on its logarithm around
    0, so that few images change little. Below ``LEAST_IMAGES`` images the temperature is 1.

    Args:
        probabilities: ``(N, C)``, the classifier's own; rows with values that are not finite are
            left out.
        truth: ``(N, C)``, whether a class holds.
        choose: whether one class holds for an image, or any number.
    """
    sound = np.isfinite(probabilities).all(axis=1)
    probabilities, truth = probabilities[sound], truth[sound]
    count = len(probabilities)
    if count < LEAST_IMAGES:
        return Temperature(choose=choose, images=count)
    folds = np.arange(count) % _FOLDS
    held_out = np.zeros_like(probabilities)
    for fold in range(_FOLDS):
        tested, rest = folds == fold, folds != fold
        fitted = _likeliest(probabilities[rest], truth[rest], choose)
        held_out[tested] = _scaled(probabilities[tested], fitted, choose)
    before = calibration_error(*_decisions(probabilities, truth, choose))
    after = calibration_error(*_decisions(held_out, truth, choose))
    return Temperature(
        temperature=_likeliest(probabilities, truth, choose),
        choose=choose,
        images=count,
        error_before=before.error if before else None,
        error_after=after.error if after else None,
        error_by_chance=after.by_chance if after else None,
    )


def _likeliest(probabilities: FloatArray, truth: BoolArray, choose: Choose) -> float:
    # Imported late: it takes half a second and only training needs it.
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        chance = _scaled(probabilities, float(np.exp(log_temperature)), choose)
        if choose == "many":
            chance = np.where(truth, chance, 1.0 - chance)
            value = -np.log(np.maximum(chance, _CERTAIN)).sum()
        else:
            value = -np.log(np.maximum(chance[truth], _CERTAIN)).sum()
        return float(value) + 0.5 * (log_temperature / _SPREAD) ** 2

    found = minimize_scalar(loss, bounds=_RANGE, method="bounded").x
    return round(float(np.exp(found)), 6)


def _scaled(probabilities: FloatArray, temperature: float, choose: Choose) -> FloatArray:
    if temperature == 1.0 or not probabilities.size:
        return np.array(probabilities, dtype=np.float64)
    logs = np.log(np.clip(probabilities, _CERTAIN, 1.0 - _CERTAIN)) / temperature
    if choose == "many":
        others = np.log(np.clip(1.0 - probabilities, _CERTAIN, 1.0 - _CERTAIN)) / temperature
        return np.asarray(0.5 * (1.0 + np.tanh((logs - others) / 2.0)))
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _decisions(
    probabilities: FloatArray, truth: BoolArray, choose: Choose
) -> tuple[FloatArray, BoolArray]:
    """Return the probability of each decision, and whether it is right."""
    if choose == "many":
        return probabilities.ravel(), truth.ravel()
    rows, best = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    return probabilities[rows, best], truth[rows, best]
