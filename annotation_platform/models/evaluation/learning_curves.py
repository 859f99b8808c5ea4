"""Learning curves: average precision as a function of the number of labels."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.tables import Frame, ModelSlices, TrainedModels

DRAWS = 400
_EXPONENTS = np.linspace(0.05, 2.0, 79)
# Width of a 95 % interval in standard errors.
_WIDTH = 3.92
# Smallest standard error that is assumed of any figure.
_LEAST_ERROR = 0.005


@dataclass(frozen=True)
class LearningCurve:
    """``AP(n) = ceiling - scale · n^-exponent``, and the refits that intervals are taken from."""

    ceiling: float
    scale: float
    exponent: float
    refits: FloatArray  # (draws, 3): ceiling, scale, exponent

    def at(self, labels: float) -> float:
        """Return the expected average precision with this number of labels, at least 1."""
        return self.ceiling - self.scale * float(labels**-self.exponent)

    def gain(self, labels: float, more: float) -> tuple[float, float, float]:
        """Return the gain of ``more`` labels on top of ``labels``, and its 95 % interval."""
        scales, exponents = self.refits[:, 1:].T
        gains = scales * (labels**-exponents - (labels + more) ** -exponents)
        low, high = np.quantile(gains, [0.025, 0.975])
        return self.at(labels + more) - self.at(labels), float(low), float(high)


def fit_learning_curve(
    labels: FloatArray, values: FloatArray, errors: FloatArray, rng: np.random.Generator
) -> LearningCurve:
    """Return the inverse power law nearest to the points, by weighted least squares.

    Error falls with the number of labels as a power of it, down to a floor (Hestness et al.,
    "Deep Learning Scaling is Predictable, Empirically", 2017). For a given exponent the other two
    parameters are a linear problem, so the exponent is searched on a grid, which always converges.
    The floor is not below 0 and the curve never falls. The interval comes from refits to points
    redrawn within their errors; it holds for gains of the observed size, not for ten times the
    labels.

    Args:
        labels: ``(N,)`` numbers of training labels, 1 or more, at least three different ones.
        values: ``(N,)`` average precisions, 0 to 1.
        errors: ``(N,)`` standard errors of them, above 0.
        rng: for the refits.

    Raises:
        DataError: there are fewer than three different numbers of labels, or a value is missing.
    """
    points = np.column_stack([labels, values, errors])
    if not np.isfinite(points).all() or (labels < 1).any() or (errors <= 0).any():
        raise DataError(
            "a learning curve needs finite values, labels of at least 1 and errors above 0. "
            "Leave out the other points."
        )
    if len(np.unique(labels)) < 3:
        raise DataError(
            f"a learning curve needs three different numbers of labels, there are "
            f"{len(np.unique(labels))}. Wait for further rounds."
        )
    drawn = values + errors * rng.standard_normal((DRAWS, len(values)))
    best = _fit(labels, np.concatenate([values[None], drawn]), 1 / errors**2)
    ceiling, scale, exponent = (float(one) for one in best[0])
    return LearningCurve(ceiling, scale, exponent, best[1:])


def rank_by_gain(history: pd.DataFrame, *, more: float, rng: np.random.Generator) -> pd.DataFrame:
    """Return the expected gain of each slice from ``more`` labels, the largest first.

    Args:
        history: ``slice``, ``labels``, ``value`` and ``error``: a row per slice and model, several
            models with different numbers of labels.
        more: number of labels to add to each.
        rng: for the intervals.

    Returns:
        ``slice, labels, value, gain, low, high, ceiling``; slices with fewer than three different
        numbers of labels come last, without a gain.
    """
    rows = []
    for name, rows_of in history.groupby("slice", sort=True):
        points = rows_of.sort_values("labels")
        labels, values = (points[key].to_numpy(dtype=float) for key in ("labels", "value"))
        last = float(labels[-1])
        row = {"slice": name, "labels": last, "value": float(values[-1])}
        if points["labels"].nunique() < 3:
            rows.append({**row, "gain": math.nan})
            continue
        errors = points["error"].to_numpy(dtype=float)
        curve = fit_learning_curve(labels, values, errors, rng)
        gain, low, high = curve.gain(last, more)
        rows.append({**row, "gain": gain, "low": low, "high": high, "ceiling": curve.ceiling})
    columns = ["slice", "labels", "value", "gain", "low", "high", "ceiling"]
    ranked = pd.DataFrame(rows, columns=columns)
    return ranked.sort_values("gain", ascending=False, kind="stable", ignore_index=True)


def learning_history(slices: Frame[ModelSlices], trained: Frame[TrainedModels]) -> pd.DataFrame:
    """Return the history for ``rank_by_gain``: a row per slice and round.

    Labels are counted in training images. The test split grows from round to round, so part of the
    difference between rounds comes from other test images; the errors, from the intervals, cover
    it.

    Args:
        slices: ``model_slices`` of all rounds; classes and sizes are used, since only these are the
            same in every round.
        trained: ``trained_model`` of all rounds.
    """
    table = ModelSlices
    used = slices[slices[table.kind].isin(["class", "size"])]
    used = used.dropna(subset=[table.map, table.map_low])
    images = trained.set_index(TrainedModels.round_id)[TrainedModels.train_images]
    width = used[table.map_high] - used[table.map_low]
    history = pd.DataFrame(
        {
            "slice": used[table.kind] + " " + used["name"],
            "labels": used[table.round_id].map(images).astype("float64"),
            "value": used[table.map],
            "error": (width / _WIDTH).clip(lower=_LEAST_ERROR),
        }
    )
    return history[history["labels"] >= 1].reset_index(drop=True)


def _fit(labels: FloatArray, values: FloatArray, weights: FloatArray) -> FloatArray:
    """Return ``(draws, 3)``: ceiling, scale and exponent nearest to each row of ``values``."""
    best = np.zeros((len(values), 3))
    lowest = np.full(len(values), math.inf)
    total = weights.sum()
    for exponent in _EXPONENTS:
        powers = labels**-exponent
        middle = float(powers @ weights / total)
        means = values @ weights / total
        spread = float(((powers - middle) ** 2) @ weights)
        slopes = (values - means[:, None]) @ (weights * (powers - middle)) / spread
        scales = np.maximum(-slopes, 0.0)
        ceilings = means + scales * middle
        # A ceiling above 1 is impossible: use the best scale with a ceiling of 1.
        over = ceilings > 1
        fixed = ((1 - values) @ (weights * powers)) / float(powers**2 @ weights)
        scales = np.where(over, np.maximum(fixed, 0.0), scales)
        ceilings = np.where(over, 1.0, ceilings)
        residuals = values - (ceilings[:, None] - scales[:, None] * powers)
        squares = residuals**2 @ weights
        better = squares < lowest
        lowest[better] = squares[better]
        found = np.column_stack([ceilings, scales, np.full(len(values), exponent)])
        best[better] = found[better]
    return best
