import itertools

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, chi2, hypergeom

from annotation_platform.consensus.error_rate import (
    ReviewPlan,
    estimate_error_rate,
    plan_review,
)
from annotation_platform.errors import TableError


def items(count, risk=None):
    table = pd.DataFrame({"item": [f"label-{number:06d}" for number in range(count)]})
    return table if risk is None else table.assign(risk=risk)


def plan_of(*strata):
    """Return a plan with strata of ``(items, reviewed)``."""
    rows = [
        (f"{number}-{position}", number, taken / size)
        for number, (size, taken) in enumerate(strata)
        for position in range(taken)
    ]
    table = pd.DataFrame(strata, columns=["items", "sampled"]).assign(mean_risk=1.0)
    table.insert(0, "stratum", range(len(strata)))
    return ReviewPlan(pd.DataFrame(rows, columns=["item", "stratum", "probability"]), table)


def reviews(plan, *wrong):
    """Return the reviews of a whole sample with these numbers of wrong items in each stratum."""
    position = plan.sample.groupby("stratum").cumcount()
    limit = plan.sample["stratum"].map(dict(enumerate(wrong)))
    return plan.sample[["item"]].assign(wrong=position < limit)


def test_one_stratum_gives_the_share_and_clopper_and_pearsons_interval():
    plan = plan_of((1_000_000, 200))
    found = estimate_error_rate(plan, reviews(plan, 10))
    assert found.rate == pytest.approx(0.05)
    # With this many items sampling without replacement makes no difference.
    assert found.low == pytest.approx(beta.ppf(0.025, 10, 191), abs=1e-4)
    assert found.high == pytest.approx(beta.ppf(0.975, 11, 190), abs=1e-4)
    assert (found.items, found.reviewed, found.wrong) == (1_000_000, 200, 10)


def test_errors_count_by_how_many_items_each_stands_for():
    plan = plan_of((900, 90), (100, 50))
    found = estimate_error_rate(plan, reviews(plan, 9, 20))
    # Each of the first represents ten items, each of the second two.
    assert found.rate == pytest.approx((9 * 10 + 20 * 2) / 1000)
    assert found.low < found.rate < found.high


def test_who_was_reviewed_in_full_is_known_exactly():
    plan = plan_of((40, 40), (10, 10))
    found = estimate_error_rate(plan, reviews(plan, 3, 2))
    assert found.low == found.rate == found.high == 0.1


def test_a_stratum_without_a_review_can_hold_anything():
    plan = plan_of((40, 40), (10, 0))
    found = estimate_error_rate(plan, reviews(plan, 4))
    assert np.isnan(found.rate)
    assert (found.low, found.high) == (4 / 50, 14 / 50)


def most_by_trying_all(strata, wrong, level):
    """Return the most errors not refuted, by trying every number of errors in every stratum."""
    open_strata = [taken not in (0, size) for size, taken in strata]
    limit = chi2.isf((1 - level) / 2, 2 * sum(open_strata)) if any(open_strata) else np.inf
    best = 0
    for errors in itertools.product(*(range(size + 1) for size, _ in strata)):
        evidence, possible = 0.0, True
        for real, seen, (size, taken), is_open in zip(
            errors, wrong, strata, open_strata, strict=True
        ):
            chance = hypergeom.cdf(seen, size, real, taken)
            if is_open and chance > 0:
                evidence -= 2 * np.log(chance)
            elif chance < 0.5:
                possible = False
        if possible and evidence <= limit:
            best = max(best, sum(errors))
    return best


@pytest.mark.parametrize(
    ("strata", "wrong"),
    [
        ([(12, 5)], [1]),
        ([(8, 3), (9, 4)], [0, 2]),
        ([(8, 8), (9, 4)], [3, 0]),
        ([(8, 0), (6, 4)], [0, 4]),
        ([(6, 2), (7, 3), (5, 4)], [0, 1, 2]),
        ([(6, 5), (7, 6), (5, 1)], [5, 0, 1]),
    ],
)
def test_the_ends_are_those_that_trying_every_possibility_gives(strata, wrong):
    plan = plan_of(*strata)
    found = estimate_error_rate(plan, reviews(plan, *wrong), level=0.9)
    total = sum(size for size, _ in strata)
    right = [taken - seen for (_, taken), seen in zip(strata, wrong, strict=True)]
    assert round(found.high * total) == most_by_trying_all(strata, wrong, 0.9)
    assert round(found.low * total) == total - most_by_trying_all(strata, right, 0.9)


@pytest.mark.parametrize("strata", [1, 2, 3])
@pytest.mark.parametrize("rate", [0.005, 0.05, 0.3])
def test_the_interval_covers_the_truth_at_least_as_often_as_it_says(rate, strata):
    rng = np.random.default_rng(11)
    inside, misses = [], []
    for _ in range(60):
        risk = rng.gamma(0.5, 1.0, 1500)
        # Risk tells something of where the errors are, and is wrong about it at times.
        wrong = rng.random(1500) < np.clip(rate * (0.3 + 1.4 * risk), 0, 1)
        table = items(1500, risk)
        plan = plan_review(table, size=120, rng=rng, strata=strata)
        seen = plan.sample[["item"]].assign(
            wrong=wrong[plan.sample["item"].str.slice(6).astype(int)]
        )
        found = estimate_error_rate(plan, seen)
        inside.append(found.low <= wrong.mean() <= found.high)
        misses.append(found.rate - wrong.mean())
    assert np.mean(inside) >= 0.95
    # The risky are reviewed more often, and still the estimate does not lean either way.
    assert abs(np.mean(misses)) < 4 * np.std(misses) / np.sqrt(len(misses)) + 1e-12


def test_even_errors_where_nobody_expects_them_are_covered():
    rng = np.random.default_rng(12)
    inside = []
    for _ in range(60):
        table = items(1500, np.linspace(0, 1, 1500))
        wrong = np.arange(1500) < 45  # all among those of least risk
        plan = plan_review(table, size=150, rng=rng, random_share=0.2)
        at = plan.sample["item"].str.slice(6).astype(int)
        found = estimate_error_rate(plan, plan.sample[["item"]].assign(wrong=wrong[at]))
        inside.append(found.low <= 0.03 <= found.high)
    assert np.mean(inside) >= 0.95


def test_the_risky_are_reviewed_more_often_and_everybody_can_be():
    rng = np.random.default_rng(1)
    table = items(1000, np.repeat([0.1, 1.0], [800, 200]))
    plan = plan_review(table, size=100, rng=rng, random_share=0.5)
    assert len(plan.sample) == plan.sample["item"].nunique() == 100
    assert plan.strata["sampled"].sum() == 100
    assert (plan.sample["probability"] > 0).all()
    low, high = plan.strata.sort_values("stratum")["sampled"]
    # Half by number: 25 each. Half by risk: 50 of 280 and 230 of 280.
    assert (low, high) == (34, 66)
    # Another order of the same items is the same plan.
    again = plan_review(table.iloc[::-1], size=100, rng=np.random.default_rng(1))
    pd.testing.assert_frame_equal(plan.sample, again.sample)


@pytest.mark.parametrize(
    ("table", "size", "expected"),
    [
        pytest.param(items(30), 10, [10], id="no risks: one stratum"),
        pytest.param(items(30, 0.0), 10, [10], id="all risks nothing"),
        pytest.param(items(3, [1.0, 2.0, 3.0]), 10, [2, 1], id="fewer items than asked for"),
        pytest.param(items(0), 10, [], id="no items"),
        pytest.param(items(30, [0.0] * 15 + [1.0] * 15), 1, [1, 0], id="one review"),
    ],
)
def test_plans_at_the_edges(table, size, expected):
    plan = plan_review(table, size=size, rng=np.random.default_rng(0))
    assert plan.strata["sampled"].tolist() == expected
    assert len(plan.sample) == sum(expected)
    found = estimate_error_rate(plan, plan.sample[["item"]].assign(wrong=False))
    assert found.low == 0.0
    assert found.items == len(table)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (pd.DataFrame({"label": ["a"]}), "lacks the column item"),
        (pd.DataFrame({"item": ["a", "a"]}), "item a is repeated"),
        (pd.DataFrame({"item": ["a", "b"], "risk": [1.0, -1.0]}), "item b has no risk"),
        (pd.DataFrame({"item": ["a", "b"], "risk": [np.nan, 1.0]}), "item a has no risk"),
    ],
)
def test_unfit_items_are_refused_by_name(table, problem):
    with pytest.raises(TableError, match=problem):
        plan_review(table, size=1, rng=np.random.default_rng(0))


def test_unfit_reviews_are_refused_by_name():
    plan = plan_of((10, 2))
    with pytest.raises(TableError, match="item stranger was reviewed but not drawn"):
        estimate_error_rate(plan, pd.DataFrame({"item": ["stranger"], "wrong": [True]}))
    with pytest.raises(TableError, match="item 0-1 was reviewed twice"):
        estimate_error_rate(plan, pd.DataFrame({"item": ["0-1", "0-1"], "wrong": [True, False]}))
