"""Outliers: images that differ from the rest of the pool."""

import numpy as np

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.selection.diversity import Vectors

FLAGGED = 3.5
"""Least deviations of an outlier, as Iglewicz and Hoaglin advise."""
_FEWEST = 20
"""Least number of images from which outliers can be found."""
_SAMPLE = 256
_SAMPLE_SHARE = 8  # at most one image in this number is drawn, so that few outliers are drawn
_AT_ONCE = 1 << 14
_LEAST_SPREAD = 0.01  # of the logarithms: if all distances are equal, 5 % more is no outlier
_TYPICAL = 1.4826  # standard deviations in a median absolute deviation of normal values


def outlier_scores(vectors: Vectors, rng: np.random.Generator) -> FloatArray:
    """Return the deviations of each row's distance to the others from the median, ``(N,)``.

    A row's distance is that to the nearest of some rows drawn at random, an eighth of all and at
    most 256, itself excluded (Sugiyama and Borgwardt, "Rapid Distance-Based Outlier Detection via
    Sampling", 2013): a few outliers are seldom drawn, so they cannot mask each other. The deviation
    is that of the distances' logarithms from their median, in units of the median absolute
    deviation (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993). Rows nearer than
    the median, fewer than 20 rows, and a pool of which half repeats the drawn rows give 0 or less.

    Args:
        vectors: ``(N, D)`` finite values.
        rng: draws the sample; the order of the rows is part of the result.
    """
    if len(vectors) < _FEWEST:
        return np.zeros(len(vectors))
    size = min(_SAMPLE, max(_FEWEST - 1, len(vectors) // _SAMPLE_SHARE))
    drawn = np.sort(rng.permutation(len(vectors))[:size])
    sample = vectors[drawn]
    squares = np.einsum("ij,ij->i", sample, sample)
    nearest = np.empty(len(vectors))
    position = np.full(len(vectors), -1)
    position[drawn] = np.arange(len(drawn))
    for start in range(0, len(vectors), _AT_ONCE):
        part = vectors[start : start + _AT_ONCE]
        distances = np.einsum("ij,ij->i", part, part)[:, None] + squares - 2 * (part @ sample.T)
        own = position[start : start + _AT_ONCE]
        distances[np.flatnonzero(own >= 0), own[own >= 0]] = np.inf
        nearest[start : start + _AT_ONCE] = distances.min(axis=1)
    away = np.sqrt(np.maximum(nearest, 0.0))
    # Repeats of a drawn row have distance 0, which is no scale for larger distances.
    usual = float(np.median(away))
    if usual <= 0:
        return np.zeros(len(vectors))
    logs = np.log(np.maximum(away, 1e-3 * usual))
    middle = np.median(logs)
    spread = max(_TYPICAL * float(np.median(np.abs(logs - middle))), _LEAST_SPREAD)
    return np.asarray((logs - middle) / spread)
