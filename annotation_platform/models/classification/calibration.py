"""From a classifier's confidence to the probability that a choice is right.

Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern Neural Networks", 2017: one temperature
for all classes. It changes no order among them, so what is chosen stays what it was.
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
# How far the logarithm of the temperature is expected to be from 0.
_SPREAD = 1.0
_RANGE = (-3.0, 3.0)


class Temperature(StoredCalibration):
    """What a classifier's probabilities mean; a temperature of 1 leaves them as they are.

    ``error_before`` and ``error_after`` are expected calibration errors, the latter on images
    that the temperature was not fitted to (five folds): of the likeliest class where one is
    chosen, else of all classes. ``error_by_chance`` is what exact probabilities would show on as
    many images. They are missing with too few images.
    """

    temperature: float = Field(default=1.0, gt=0)
    choose: Choose
    error_before: float | None = None

    error_after: float | None = None
    error_by_chance: float | None = None

    def apply(self, probabilities: FloatArray) -> FloatArray:
        """Return the ``(N, C)`` calibrated probabilities; values that are no numbers stay so."""
        return _heated(probabilities, self.temperature, self.choose)

    @property
    def meaning(self) -> str:
        """Its digest; empty where it leaves probabilities as they are."""
        return "" if self.temperature == 1.0 else self.digest


def fit_temperature(probabilities: FloatArray, truth: BoolArray, *, choose: Choose) -> Temperature:
    """Return what a classifier's probabilities mean, from images that it did not learn from.

    The likeliest temperature, with a normal prior of deviation 1 on its logarithm around 0, so that
    few images change little. Below ``LEAST_IMAGES`` images they stay as they are.

    Args:
        probabilities: ``(N, C)``, the classifier's own; rows with values that are no numbers are
            left out.
        truth: ``(N, C)``, what was chosen.
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
        held, kept = folds == fold, folds != fold
        fitted = _likeliest(probabilities[kept], truth[kept], choose)
        held_out[held] = _heated(probabilities[held], fitted, choose)
    before = calibration_error(*_annotations(probabilities, truth, choose))
    after = calibration_error(*_annotations(held_out, truth, choose))
    return Temperature(
        temperature=_likeliest(probabilities, truth, choose),
        choose=choose,
        images=count,
        error_before=before.error if before else None,
        error_after=after.error if after else None,
        error_by_chance=after.by_chance if after else None,
    )


def _likeliest(probabilities: FloatArray, truth: BoolArray, choose: Choose) -> float:
    # Half a second to import, for those who train.
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        chance = _heated(probabilities, float(np.exp(log_temperature)), choose)
        if choose == "many":
            chance = np.where(truth, chance, 1.0 - chance)
            value = -np.log(np.maximum(chance, _CERTAIN)).sum()
        else:
            value = -np.log(np.maximum(chance[truth], _CERTAIN)).sum()
        return float(value) + 0.5 * (log_temperature / _SPREAD) ** 2

    found = minimize_scalar(loss, bounds=_RANGE, method="bounded").x
    return round(float(np.exp(found)), 6)


def _heated(probabilities: FloatArray, temperature: float, choose: Choose) -> FloatArray:
    if temperature == 1.0 or not probabilities.size:
        return np.array(probabilities, dtype=np.float64)
    logs = np.log(np.clip(probabilities, _CERTAIN, 1.0 - _CERTAIN)) / temperature
    if choose == "many":
        others = np.log(np.clip(1.0 - probabilities, _CERTAIN, 1.0 - _CERTAIN)) / temperature
        return np.asarray(0.5 * (1.0 + np.tanh((logs - others) / 2.0)))
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _annotations(
    probabilities: FloatArray, truth: BoolArray, choose: Choose
) -> tuple[FloatArray, BoolArray]:
    """Return how sure each answer is, and whether it is right."""
    if choose == "many":
        return probabilities.ravel(), truth.ravel()
    rows, best = np.arange(len(probabilities)), probabilities.argmax(axis=1)
    return probabilities[rows, best], truth[rows, best]
