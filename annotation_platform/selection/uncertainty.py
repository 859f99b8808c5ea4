"""How unsure a model is of an image, by calibrated scores: what a person's answer would settle.

The measures mean what they say only of calibrated scores: of a hundred boxes with a score of 0.8
eighty are right. Over raw scores they are swamped by junk boxes.
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
    """Return how unsure the proposals of each image are, ``(count,)`` and at least 0.

    A box is one question with two answers, right with probability ``p`` or wrong, and the binary
    entropy is ``-p log2 p - (1 - p) log2 (1 - p)`` bits (Settles, "Active Learning Literature
    Survey", 2009; over the boxes of an image as Brust, Käding and Denzler, "Active Learning for
    Deep Object Detection", 2019). An image without proposals leaves nothing unsure: 0, but for
    ``least_confidence``, which is 1 there.

    - ``expected_errors``: sum of ``min(p, 1 - p)``: how many of the boxes are wrongly kept or
      wrongly dropped if those from 0.5 are kept.
    - ``mean_entropy``, ``max_entropy``, ``sum_entropy``: of the boxes' entropies.
    - ``least_confidence``: 1 less the best box's ``p``.
    - ``ambiguous_boxes``: how many have ``p`` from 0.2 to 0.8.

    Args:
        images: ``(N,)`` which of the ``count`` images each box is in.
        scores: ``(N,)`` calibrated probabilities; one that is no number is left out.
        count: how many images there are.
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
    """Return how unsure a classifier is of each image, ``(N,)`` and at least 0.

    ``entropy`` in bits; ``least_confidence``: 1 less the likeliest one's probability.

    Args:
        probabilities: ``(N, C)``, calibrated, rows adding up to 1; a row with a value that is no
            number gives NaN.
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
    """Return how many objects of each class each image is expected to show, ``(count, C)``.

    The sum of the calibrated scores of a class's boxes; a box whose score is no number is left
    out. Arguments as in `box_uncertainty`; ``classes``, ``(N,)``, is each box's, from 0 to C - 1.
    """
    kept = np.isfinite(scores)
    cells = images[kept] * class_count + classes[kept]
    right = np.clip(scores[kept], 0.0, 1.0)
    return _sums(cells, right, count * class_count).reshape(count, class_count)


def _sums(places: npt.NDArray[np.int64], values: FloatArray, count: int) -> FloatArray:
    return np.bincount(places, weights=values, minlength=count).astype(np.float64)


def _largest(images: npt.NDArray[np.int64], values: FloatArray, count: int) -> FloatArray:
    largest = np.zeros(count)
    np.maximum.at(largest, images, values)
    return largest
