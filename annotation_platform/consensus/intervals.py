"""Intervals for shares of decisions that are not independent of each other.

Decisions on objects of one image are correlated. Their effective size is the equivalent number of
independent decisions, which is then used in intervals that are exact, or nearly so, for
independent decisions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ClusteredShare:
    """A share, and the number of independent decisions that would estimate it equally well."""

    share: float  # in [0, 1]; NaN without decisions
    size: float  # at most the number of decisions; 0 if they all come from one cluster


@dataclass(frozen=True)
class ConfidenceInterval:
    """A closed interval."""

    low: float
    high: float


def clustered_share(
    hits: npt.ArrayLike,
    clusters: npt.ArrayLike,
    *,
    weights: npt.ArrayLike | None = None,
    level: float = 0.95,
) -> ClusteredShare:
    """Return the weighted share of hits and its effective size.

    Korn and Graubard, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data", 1998: the size is reduced by the design effect, estimated
    from the variation between clusters, and by the ratio of the normal to Student's quantile. The
    design effect is taken to be at least that of the weights alone and at most that of clusters in
    which all decisions are equal, because a few clusters estimate it poorly.

    Args:
        hits: ``N`` values, 1 for a hit and 0 for a miss.
        clusters: ``N`` names; decisions of different clusters are independent.
        weights: ``N`` values, at least 0 and not all 0; by default all equal.
        level: level of the interval to be computed from it, in ``(0, 1)``.
    """
    from scipy.special import ndtri, stdtrit

    right = np.asarray(hits, dtype=np.float64)
    if not len(right):
        return ClusteredShare(float("nan"), 0.0)
    weight = np.ones_like(right) if weights is None else np.asarray(weights, dtype=np.float64)
    weight = weight / weight.sum()
    _, code = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(code.max()) + 1
    share = float(np.clip(weight @ right, 0.0, 1.0))
    if count == 1:
        return ClusteredShare(share, 0.0)
    most = 1.0 / float(weight @ weight)
    least = 1.0 / float((np.bincount(code, weight) ** 2).sum())
    between = np.bincount(code, weight * (right - share))
    variance = float(between @ between) * count / (count - 1)
    spread = share * (1.0 - share)
    # If all are equal, the correlation within clusters is unknown.
    size = (
        least if min(spread, variance) < 1e-12 else float(np.clip(spread / variance, least, most))
    )
    tail = (1.0 + level) / 2.0
    return ClusteredShare(share, size * float(ndtri(tail) / stdtrit(count - 1, tail)) ** 2)


def share_interval(measured: ClusteredShare, *, level: float = 0.95) -> ConfidenceInterval:
    """Return the interval of a share; ``[0, 1]`` without data.

    Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the case of the
    binomial", 1934. It covers at least ``level`` for independent decisions.
    """
    from scipy.special import betaincinv

    if not measured.size > 0:
        return ConfidenceInterval(0.0, 1.0)
    tail = (1.0 - level) / 2.0
    hits = measured.share * measured.size
    misses = measured.size - hits
    low = float(betaincinv(hits, misses + 1.0, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1.0, misses, 1.0 - tail)) if misses > 0 else 1.0
    return ConfidenceInterval(low, high)


def ratio_interval(
    above: ClusteredShare, below: ClusteredShare, *, level: float = 0.95
) -> ConfidenceInterval:
    """Return the interval of the ratio of two independent shares, in ``[0, infinity]``.

    The score interval of Koopman, "Confidence intervals for the ratio of two binomial
    proportions", 1984. Unlike an interval on the logarithm it exists if a share is 0: then one end
    is unbounded. If both are 0, or one is unknown, it is ``[0, infinity]``.
    """
    from scipy.special import ndtri

    everything = ConfidenceInterval(0.0, math.inf)
    if not min(above.size, below.size) > 0 or above.share == below.share == 0:
        return everything
    limit = float(ndtri((1.0 + level) / 2.0)) ** 2

    def excess(log_ratio: float) -> float:
        return _ratio_score(above, below, math.exp(log_ratio)) - limit

    guess = math.log(max(above.share, 1e-9) / max(below.share, 1e-9))
    low = _crossing(excess, guess, step=-1.0) if above.share > 0 else -math.inf
    high = _crossing(excess, guess, step=1.0) if below.share > 0 else math.inf
    return ConfidenceInterval(math.exp(low), math.exp(high))


def _ratio_score(above: ClusteredShare, below: ClusteredShare, ratio: float) -> float:
    """Return Koopman's chi-square statistic of the hypothesis that the ratio is ``ratio``."""
    n, m = above.size, below.size
    x, y = above.share * n, below.share * m
    # The likeliest share below under the hypothesis solves a quadratic equation.
    a, b, c = (n + m) * ratio, -(n * ratio + x + m + y * ratio), x + y
    share = (-b - math.sqrt(max(b * b - 4 * a * c, 0.0))) / (2 * a)
    other = ratio * share
    variance = other * (1 - other) / n + ratio * ratio * share * (1 - share) / m
    difference = above.share - ratio * below.share
    if variance <= 0:
        return 0.0 if abs(difference) < 1e-12 else math.inf
    return difference * difference / variance


def _crossing(excess: Callable[[float], float], start: float, *, step: float) -> float:
    """Return the point from ``start`` in the direction of ``step`` where ``excess`` turns positive.

    If it is beyond a factor of ``exp(60)``, the interval is unbounded at that end.
    """
    from scipy.optimize import brentq

    inside = outside = start
    while excess(outside) <= 0:
        inside, outside, step = outside, outside + step, 2 * step
        if abs(outside) > 60:
            return math.copysign(math.inf, step)
    return inside if inside == outside else float(brentq(excess, inside, outside, xtol=1e-9))
