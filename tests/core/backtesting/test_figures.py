"""Intervals of figures: exact where nothing varies, paired where two policies are compared."""

import numpy as np
import pytest
from scipy.stats import beta

from annotation_platform.backtesting.figures import compare, share_estimate


def sums(above, below):
    """Return ``(D, 2, 1, N)`` sums of one figure."""
    above = np.atleast_2d(np.asarray(above, dtype=float))
    below = np.broadcast_to(np.asarray(below, dtype=float), above.shape)
    return np.stack([above, below], axis=1)[:, :, None]


def test_where_every_image_is_right_the_interval_is_clopper_and_pearsons():
    right = sums(np.ones(40), 1.0)
    (figure,) = compare(right, right, shares=(True,), rng=np.random.default_rng(0))
    estimate = figure.policy
    assert (estimate.value, estimate.high) == (1, 1)
    # Of 40 images; Student's quantile makes them 37.6.
    assert beta.ppf(0.025, 37, 1) < estimate.low < beta.ppf(0.025, 40, 1)
    assert figure.rerun.low <= estimate.low


def test_a_share_of_independent_images_has_the_error_of_the_binomial():
    right = np.repeat([1.0, 0.0], [70, 30])
    (figure,) = compare(
        sums(right, 1.0), sums(right, 1.0), shares=(True,), rng=np.random.default_rng(0)
    )
    assert figure.policy.error == pytest.approx(np.sqrt(0.7 * 0.3 / 99), rel=0.1)
    assert figure.rerun.error == pytest.approx(np.sqrt(2) * figure.policy.error, rel=0.1)
    # Both sides are the same images: nothing differs.
    assert figure.difference.error == pytest.approx(0, abs=1e-9)


def test_averaging_over_draws_makes_the_prediction_surer_but_not_the_run():
    rng = np.random.default_rng(1)
    # Every image is right in half of the draws: they are all alike, only the draws differ.
    right = (rng.random((40, 100)) < 0.5).astype(float)
    (figure,) = compare(sums(right, 1.0), sums(right, 1.0), shares=(True,), rng=rng)
    once = np.sqrt(0.25 / 100)
    assert figure.policy.error < once / 3
    assert figure.rerun.error == pytest.approx(once, rel=0.15)


def test_an_image_with_many_objects_is_one_cluster():
    crowded = np.where(np.arange(50) % 2, 20.0, 0.0)
    (figure,) = compare(
        sums(crowded, 20.0), sums(crowded, 20.0), shares=(True,), rng=np.random.default_rng(0)
    )
    assert figure.policy.error == pytest.approx(np.sqrt(0.25 / 49), rel=0.1)


def test_amounts_that_do_not_vary_are_exact_and_others_have_students_interval():
    three, times = np.full(30, 3.0), np.linspace(5, 15, 30)
    exact, seconds = compare(
        np.concatenate([sums(three, 1.0), sums(times, 1.0)], axis=2),
        np.concatenate([sums(three - 1, 1.0), sums(times, 1.0)], axis=2),
        shares=(False, False),
        rng=np.random.default_rng(0),
    )
    assert (exact.policy.low, exact.policy.high, exact.difference.value) == (2, 2, -1)
    error = times.std(ddof=1) / np.sqrt(30)
    assert seconds.policy.value == pytest.approx(10)
    assert seconds.policy.high - 10 == pytest.approx(2.045 * error, rel=0.1)


def test_what_no_image_has_is_no_figure():
    nothing = sums(np.zeros(5), 0.0)
    assert compare(nothing, nothing, shares=(True,), rng=np.random.default_rng(0)) == [None]


def test_of_one_image_nothing_is_known():
    estimate = share_estimate(0.5, 0.1, np.array([3.0, 0.0]))
    assert (estimate.low, estimate.high) == (0, 1)
