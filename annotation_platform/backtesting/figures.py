"""Figures with their intervals, from sums by draw of annotations and by image.

Images are the sampling unit: results on objects of one image are correlated. So whole images are
resampled with replacement (the cluster bootstrap: Davison and Hinkley, "Bootstrap Methods and their
Application", 1997, section 3.8), and with them the draws of annotations, which are limited in
number. The error of the draws also shows in the spread of the images, so it counts twice: with 20
draws, that is a twentieth of the error of one run. The spread is the standard error. For a share it
gives the effective number of independent decisions, and from that Clopper and Pearson's interval,
as Korn and Graubard (1998) do for surveys (``consensus/intervals.py``): it also holds near 1, where
the resamples do not vary. Sums and differences have the error times Student's quantile.
"""

import math
from dataclasses import asdict, dataclass

import numpy as np

from annotation_platform.consensus.intervals import ClusteredShare, share_interval
from annotation_platform.schema.geometry import FloatArray

LEVEL = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval at ``LEVEL``."""

    value: float
    low: float
    high: float
    error: float  # standard error

    def times(self, factor: float) -> "Estimate":
        """Return the estimate scaled by a factor, which is 0 or more."""
        return Estimate(*(factor * each for each in asdict(self).values()))


@dataclass(frozen=True)
class Figure:
    """One figure under the recorded policy and under the other one.

    ``rerun`` is the prediction interval of one real run on equally many other images: it includes
    the randomness of that run as well as the error of the figure. Amounts are per image.
    """

    recorded: Estimate
    policy: Estimate
    difference: Estimate
    rerun: Estimate


def compare(
    recorded: FloatArray,
    policy: FloatArray,
    *,
    shares: tuple[bool, ...],
    rng: np.random.Generator,
) -> list[Figure | None]:
    """Return the figures of two policies on the same images; None for one that a policy lacks.

    Args:
        recorded: ``(D, 2, F, N)`` numerators and denominators, by draw of annotations, figure and
            image: ``Scorer.score`` of every draw.
        policy: ``(E, 2, F, N)`` likewise.
        shares: ``F`` flags, whether the figure is a share, in ``[0, 1]``, or an amount.
        rng: resamples images and draws of annotations. The images are the same for both policies.
    """
    images = recorded.shape[-1]
    drawn = np.full((3, RESAMPLES, len(shares)), math.nan)
    for number in range(RESAMPLES):
        chosen = rng.integers(images, size=images)
        weight = np.bincount(chosen, minlength=images).astype(np.float64)
        drawn[0, number] = _ratio(_of_draws(recorded @ weight, rng))
        drawn[1, number] = _ratio(_of_draws(policy @ weight, rng))
        # A run has one set of annotations per image.
        run = policy[rng.integers(len(policy), size=images), :, :, chosen]
        drawn[2, number] = _ratio(run.sum(axis=0))
    values = [_ratio(each.sum(axis=(0, 3))) for each in (recorded, policy)]
    below = [each[:, 1].mean(axis=0) for each in (recorded, policy)]
    return [
        None
        if math.isnan(values[0][at]) or math.isnan(values[1][at])
        else _figure(
            values[0][at], values[1][at], drawn[:, :, at], below[0][at], below[1][at], share=share
        )
        for at, share in enumerate(shares)
    ]


def share_estimate(value: float, error: float, below: FloatArray) -> Estimate:
    """Return the interval of a share whose standard error is known.

    Args:
        value: the share.
        error: its standard error; if it is 0, each image counts as one decision.
        below: ``(N,)`` denominators of the share, by image.
    """
    from scipy.special import ndtri, stdtrit

    images = int((below > 0).sum())
    if images < 2:
        return Estimate(value, 0.0, 1.0, math.nan)
    spread = value * (1.0 - value)
    least = float(below.sum() ** 2 / (below @ below))
    size = least if min(spread, error**2) < 1e-12 else spread / error**2
    tail = (1.0 + LEVEL) / 2.0
    size *= float(ndtri(tail) / stdtrit(images - 1, tail)) ** 2
    ends = share_interval(ClusteredShare(value, size), level=LEVEL)
    return Estimate(value, ends.low, ends.high, error)


def _figure(
    recorded: float,
    policy: float,
    drawn: FloatArray,
    below_recorded: FloatArray,
    below_policy: FloatArray,
    *,
    share: bool,
) -> Figure:
    """Return a figure from ``(3, R)`` resampled values: recorded, of the policy, of one run."""
    images = int((below_policy > 0).sum())
    usual, other, run = (_error(each, images) for each in drawn)
    gap = _error(drawn[1] - drawn[0], images)
    rerun = math.hypot(other, run)
    if share:
        return Figure(
            share_estimate(recorded, usual, below_recorded),
            share_estimate(policy, other, below_policy),
            _amount(policy - recorded, gap, images, least=-1.0, most=1.0),
            share_estimate(policy, rerun, below_policy),
        )
    return Figure(
        _amount(recorded, usual, images, least=0.0),
        _amount(policy, other, images, least=0.0),
        _amount(policy - recorded, gap, images),
        _amount(policy, rerun, images, least=0.0),
    )


def _of_draws(sums: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return ``(2, F)`` sums over resampled draws of annotations, from ``(D, 2, F)``."""
    chosen: FloatArray = sums[rng.integers(len(sums), size=len(sums))].sum(axis=0)
    return chosen


def _ratio(sums: FloatArray) -> FloatArray:
    """Return numerators divided by denominators; NaN for a denominator of 0."""
    ratio: FloatArray = np.full(sums.shape[1], math.nan)
    np.divide(sums[0], sums[1], out=ratio, where=sums[1] > 0)
    return ratio


def _error(drawn: FloatArray, images: int) -> float:
    """Return the standard error, corrected for the bootstrap's bias of one image."""
    known = drawn[~np.isnan(drawn)]
    if images < 2 or not len(known):
        return math.nan
    return float(known.std() * math.sqrt(images / (images - 1)))


def _amount(
    value: float, error: float, images: int, *, least: float = -math.inf, most: float = math.inf
) -> Estimate:
    from scipy.special import stdtrit

    if math.isnan(error):
        return Estimate(value, least, most, error)
    reach = error * float(stdtrit(images - 1, (1.0 + LEVEL) / 2.0))
    return Estimate(value, max(value - reach, least), min(value + reach, most), error)
