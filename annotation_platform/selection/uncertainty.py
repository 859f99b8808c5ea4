"""The uncertainty of a model about an image, by calibrated scores.

The measures are valid only for calibrated scores: of a hundred boxes with a score of 0.8 eighty are
right. With raw scores, junk boxes dominate them.
"""

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray

BOX_MEASURES = (
    "expected_errors",
    "mean_entropy",
    "max_entropy",
    "sum_entropy",
    "least_confidence",
    "ambiguous_boxes",
)
CHOICE_MEASURES = ("entropy", "least_confidence")
_AMBIGUOUS = (0.2, 0.8)


def box_uncertainty(
    images: npt.NDArray[np.int64], scores: FloatArray, count: int, *, measure: str
) -> FloatArray:
    """Return the uncertainty of each image's predictions, ``(count,)`` and at least 0.

    A box is a binary question, right with probability ``p`` or wrong, and the binary entropy is
    ``-p log2 p - (1 - p) log2 (1 - p)`` bits (Settles, "Active Learning Literature Survey", 2009;
    over the boxes of an image as Brust, Käding and Denzler, "Active Learning for Deep Object
    Detection", 2019). An image without predictions has 0, except for ``least_confidence``, which
    is 1.

    - ``expected_errors``: sum of ``min(p, 1 - p)``: the number of boxes wrongly accepted or wrongly
      dropped if those from 0.5 are accepted.
    - ``mean_entropy``, ``max_entropy``, ``sum_entropy``: of the boxes' entropies.
    - ``least_confidence``: 1 minus the best box's ``p``.
    - ``ambiguous_boxes``: number of boxes with ``p`` from 0.2 to 0.8.

    Args:
        images: ``(N,)`` position of each box's image, below ``count``.
        scores: ``(N,)`` calibrated probabilities; values that are no number are left out.
        count: number of images.
        measure: one of ``BOX_MEASURES``.
    """
    finite = np.isfinite(scores)
    images, right = images[finite], np.clip(scores[finite], 0.0, 1.0)
    if measure in {"expected_errors", "ambiguous_boxes"}:
        low, high = _AMBIGUOUS
        ambiguous = ((right >= low) & (right <= high)).astype(np.float64)
        each = np.minimum(right, 1 - right) if measure == "expected_errors" else ambiguous
        return _sums(images, each, count)
    if measure == "least_confidence":
        return 1.0 - _largest(images, right, count)
    bits = binary_entropy(right)
    if measure == "max_entropy":
        return _largest(images, bits, count)
    total = _sums(images, bits, count)
    if measure == "sum_entropy":
        return total
    if measure == "mean_entropy":
        return np.asarray(total / np.maximum(np.bincount(images, minlength=count), 1))
    raise ValueError(f"{measure!r} is none of {', '.join(BOX_MEASURES)}")


def classification_uncertainty(probabilities: FloatArray, *, measure: str) -> FloatArray:
    """Return the uncertainty of a classifier about each image, ``(N,)`` and at least 0.

    ``entropy`` in bits; ``least_confidence``: 1 minus the probability of the likeliest class.

    Args:
        probabilities: ``(N, C)``, calibrated, with rows that sum to 1; a row with a value that is
            no number gives NaN.
        measure: one of ``CHOICE_MEASURES``.
    """
    if measure == "entropy":
        logs = np.log2(np.where(probabilities > 0, probabilities, 1.0))
        bits: FloatArray = -(probabilities * logs).sum(axis=1)
        return np.maximum(bits, 0.0)
    if measure == "least_confidence":
        return np.asarray(1.0 - probabilities.max(axis=1))
    raise ValueError(f"{measure!r} is none of {', '.join(CHOICE_MEASURES)}")


def binary_entropy(right: FloatArray) -> FloatArray:
    """Return the entropy in bits of events with these probabilities; 0 and 1 have none."""
    inner = np.clip(right, np.finfo(np.float64).tiny, 1 - np.finfo(np.float64).epsneg)
    bits = -inner * np.log2(inner) - (1 - inner) * np.log2(1 - inner)
    return np.where((right <= 0) | (right >= 1), 0.0, bits)


def expected_objects(
    images: npt.NDArray[np.int64],
    scores: FloatArray,
    classes: npt.NDArray[np.int64],
    count: int,
    *,
    class_count: int,
) -> FloatArray:
    """Return the expected number of objects of each class in each image, ``(count, C)``.

    It is the sum of the calibrated scores of the class's boxes; a box whose score is no number is
    left out. Arguments as in `box_uncertainty`; ``classes``, ``(N,)``, is each box's class, from 0
    to C - 1.
    """
    finite = np.isfinite(scores)
    cells = images[finite] * class_count + classes[finite]
    right = np.clip(scores[finite], 0.0, 1.0)
    return _sums(cells, right, count * class_count).reshape(count, class_count)


def _sums(cells: npt.NDArray[np.int64], values: FloatArray, count: int) -> FloatArray:
    return np.bincount(cells, weights=values, minlength=count).astype(np.float64)


def _largest(images: npt.NDArray[np.int64], values: FloatArray, count: int) -> FloatArray:
    largest = np.zeros(count)
    np.maximum.at(largest, images, values)
    return largest
