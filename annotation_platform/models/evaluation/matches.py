"""Matches of detections with the truth, and their figures on bootstrap draws of the images.

Matches do not depend on the draw, so the matching is done once and only the counting is repeated:
200 draws of 1,000 images take seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

RECALLS = np.linspace(0.0, 1.0, 101)
DRAWS = 200
CONFIDENCE = 0.95
# Cells of one block of draws × detections: 32 MB in float64.
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Matches:
    """The match of each of D detections at each of COCO's ten IoU thresholds, 0.50 to 0.95.

    A detection that is neither right nor wrong matches a crowd or an object that COCO ignores.
    """

    scores: FloatArray  # (D,)
    images: IntArray  # (D,), position in image_ids
    classes: IntArray  # (D,), position in class_ids
    right: BoolArray  # (10, D)
    wrong: BoolArray  # (10, D)
    truth: IntArray  # (images, classes): number of true objects
    image_ids: Sequence[object]
    class_ids: Sequence[object]


@dataclass(frozen=True)
class Interval:
    """A figure with the interval that covers its true value at ``CONFIDENCE``."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class DrawnFigures:
    """Average precision by class, 0 to 1, on every draw; missing where a draw has no truth."""

    ap: FloatArray  # (draws, classes), mean over IoU 0.50 to 0.95
    ap50: FloatArray  # (draws, classes), at IoU 0.5


def draw_images(
    images: int, rng: np.random.Generator, *, draws: int = DRAWS
) -> npt.NDArray[np.int64]:
    """Return how often each image is in each draw: ``(draws, images)``, rows sum to ``images``."""
    if images == 0:
        return np.zeros((draws, 0), dtype=np.int64)
    return rng.multinomial(images, np.full(images, 1.0 / images), size=draws)


def drawn_figures(matches: Matches, weights: npt.NDArray[np.int64]) -> DrawnFigures:
    """Return the average precision of every class, with each image counted ``weights`` times.

    Weights of one give COCO's figures for boxes of all sizes, at most 100 an image.

    Args:
        matches: D detections of N images.
        weights: ``(draws, N)``, the count of each image; 0 leaves it out.
    """
    draws, classes = len(weights), len(matches.class_ids)
    ap = np.full((draws, classes), math.nan)
    ap50 = np.full((draws, classes), math.nan)
    for number in range(classes):
        found = np.flatnonzero(matches.classes == number)
        # Equal scores keep the order of the images, as in COCO.
        found = found[np.argsort(-matches.scores[found], kind="stable")]
        if not matches.truth[:, number].any():
            continue
        step = max(1, _BLOCK // max(1, len(found)))
        for start in range(0, draws, step):
            block = slice(start, start + step)
            truth = weights[block] @ matches.truth[:, number]
            counted = _average_precisions(matches, found, weights[block], truth)
            ap[block, number] = counted.mean(axis=1)
            ap50[block, number] = counted[:, 0]
    return DrawnFigures(ap, ap50)


def _average_precisions(
    matches: Matches, found: IntArray, weights: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]
) -> FloatArray:
    """Return ``(draws, 10)`` for one class; its detections are ``found``, best first."""
    times = weights[:, matches.images[found]].astype(np.float64)
    result = np.zeros((len(weights), len(matches.right)))
    for threshold in range(len(matches.right)):
        right = np.flatnonzero(matches.right[threshold, found])
        hits = np.cumsum(times[:, right], axis=1)
        misses = np.cumsum(times * matches.wrong[threshold, found], axis=1)[:, right]
        # Precision rises only at right detections: the others can be left out.
        precision = hits / np.maximum(hits + misses, 1.0)
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = hits / np.maximum(truth, 1)[:, None]
        # The number of the 101 recall points that each of them is the first to reach.
        reached = np.searchsorted(RECALLS, recall, side="right")
        steps = np.diff(reached, axis=1, prepend=0)
        result[:, threshold] = (best * steps).sum(axis=1) / len(RECALLS)
    result[truth == 0] = math.nan
    return result


def mean_over_classes(figures: FloatArray) -> FloatArray:
    """Return the mean of each row over the classes that have a figure; 0 where none has."""
    there = ~np.isnan(figures)
    total = np.where(there, figures, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(there.sum(axis=1), 1), dtype=np.float64)


def f1_scores(counts: npt.NDArray[np.int64]) -> FloatArray:
    """Return the F1 of each row of ``(N, 3)`` matched, predicted and true objects; NaN: none."""
    both = (counts[:, 1] + counts[:, 2]).astype(np.float64)
    result = np.full(len(counts), math.nan)
    np.divide(2.0 * counts[:, 0], both, out=result, where=both > 0)
    return result


def interval(
    value: float,
    drawn: FloatArray,
    *,
    images: int,
    bounds: tuple[float, float] = (0.0, 1.0),
    confidence: float = CONFIDENCE,
) -> Interval:
    """Return the interval of a figure from its values on draws of images.

    Expanded percentiles (Hesterberg, "What Teachers Should Know About the Bootstrap", 2015):
    further out than the plain ones by the ratio of Student's quantile to the normal one, and of the
    unbiased standard error to the plain one. Average precision is a little higher on few images
    than on many, and higher again on draws, which repeat images. So both ends are moved by the
    draws' mean deviation from ``value``, and the end that this moves away from ``value`` by twice
    as much again: in simulations the bias of the figure is about two and a half times that of the
    draws. ``docs/algorithms/evaluation.md`` has the measured coverage.

    Args:
        value: the figure on the images themselves; it is always in the interval.
        drawn: the figure on draws of them; draws without a figure are left out.
        images: their number; with fewer than two the ends are missing.
        bounds: the range of the figure.
        confidence: the intended coverage of the true value.
    """

    from scipy.special import ndtr, stdtrit

    drawn = drawn[~np.isnan(drawn)]
    if images < 2 or drawn.size == 0 or math.isnan(value):
        return Interval(value, math.nan, math.nan)
    quantile = stdtrit(images - 1, (1 - confidence) / 2) * math.sqrt(images / (images - 1))
    tail = float(ndtr(quantile))
    bias = float(drawn.mean()) - value
    ends = np.quantile(drawn, [tail, 1 - tail]) - bias
    ends -= 2 * np.array([max(bias, 0.0), min(bias, 0.0)])
    low, high = np.clip(ends, *bounds)
    return Interval(value, min(float(low), value), max(float(high), value))
