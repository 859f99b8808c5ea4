"""Whether an audit represents a batch: whether both could be samples of one population."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from annotation_platform.schema.geometry import FloatArray

_MOST = 400
"""Most images of each side whose vectors are compared: the cost grows with the square."""


@dataclass(frozen=True)
class SampleComparison:
    """The result of each test, and the features that differ."""

    p_values: dict[str, float]  # by name, each for the hypothesis of no difference
    level: float  # one of them this low or lower is a difference
    reason: str  # empty if nothing differs


def compare_samples(
    audit: Mapping[str, FloatArray],
    batch: Mapping[str, FloatArray],
    *,
    level: float,
    rng: np.random.Generator,
) -> SampleComparison:
    """Return whether a batch differs from the audit in one of the features.

    Numbers are compared by the Kolmogorov-Smirnov test, vectors by the energy distance under
    permutation (Székely and Rizzo, "Testing for equal distributions in high dimension", 2004). Each
    feature is tested at ``level`` divided by their number, so a batch from the population of the
    audit is refused with probability ``level`` at most. Differences in other features, and changes
    of the true labels, are not detected.

    Args:
        audit: by name ``(N,)`` numbers or ``(N, D)`` vectors of the audited images. A missing
            number is a value of its own; a vector with a missing number is left out.
        batch: the same of ``M`` images to be accepted, under the same names.
        level: in ``(0, 1)``.
        rng: permutes, and draws the images whose vectors are compared.
    """
    share = level / max(len(audit), 1)
    p_values = {
        name: _vectors_differ(values, batch[name], share, rng)
        if values.ndim == 2
        else _numbers_differ(values, batch[name])
        for name, values in audit.items()
    }
    found = [f"{name} (p = {value:.2g})" for name, value in p_values.items() if value <= share]
    if not found:
        return SampleComparison(p_values, share, "")
    reason = (
        f"the images to be accepted differ from the audited ones in {' and '.join(found)}; "
        f"each was tested at {share:.2g}"
    )
    return SampleComparison(p_values, share, reason)


def _numbers_differ(a: FloatArray, b: FloatArray) -> float:
    from scipy.stats import ks_2samp

    if not len(a) or not len(b):
        return 1.0
    both = np.concatenate([a, b]).astype(np.float64)
    lowest = both[np.isfinite(both)].min(initial=0.0)
    both = np.where(np.isfinite(both), both, lowest - 1.0)
    return float(ks_2samp(both[: len(a)], both[len(a) :], method="asymp").pvalue)


def _vectors_differ(a: FloatArray, b: FloatArray, level: float, rng: np.random.Generator) -> float:
    """Return the share of permutations whose energy distance is at least the observed one."""
    if not len(a) or not len(b):
        return 1.0
    drawn = [_some(side[np.isfinite(side).all(axis=1)], rng) for side in (a, b)]
    if min(map(len, drawn)) < 2:
        return 1.0
    both = np.concatenate(drawn).astype(np.float64)
    length = (both * both).sum(axis=1)
    squares = length[:, None] + length - 2.0 * both @ both.T
    distance = np.sqrt(np.maximum(squares, 0.0))
    # The smallest possible p-value must be below the level.
    times = math.ceil(2.0 / level)
    first = np.zeros((len(both), times + 1))
    first[: len(drawn[0]), 0] = 1.0
    for column in range(1, times + 1):
        first[rng.permutation(len(both))[: len(drawn[0])], column] = 1.0
    energy = _energy(distance, first, len(drawn[0]))
    return float((1 + (energy[1:] >= energy[0] - 1e-12).sum()) / (1 + times))


def _energy(distance: FloatArray, first: FloatArray, size: int) -> FloatArray:
    """Return the energy distance of the marked images to the others, for each column."""
    other = len(distance) - size
    to_first = distance @ first
    inside = (first * to_first).sum(axis=0)
    across = to_first.sum(axis=0) - inside
    outside = distance.sum() - inside - 2.0 * across
    return np.asarray(2.0 * across / (size * other) - inside / size**2 - outside / other**2)


def _some(rows: FloatArray, rng: np.random.Generator) -> FloatArray:
    if len(rows) <= _MOST:
        return rows
    return rows[np.sort(rng.choice(len(rows), _MOST, replace=False))]
