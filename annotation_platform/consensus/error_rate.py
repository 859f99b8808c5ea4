"""The share of wrong labels, estimated from a review of a stratified random sample.

Items are put into strata by risk. A simple random sample of each stratum is reviewed, with a larger
share of the risky ones. As every item's probability of being reviewed is known, the errors found
give an estimate of all errors, and an interval that holds for any error rate, however small.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.units import need_columns
from annotation_platform.errors import TableError
from annotation_platform.schema.geometry import FloatArray


@dataclass(frozen=True)
class ReviewPlan:
    """The items to review, and the strata needed to estimate from them."""

    sample: pd.DataFrame  # item, stratum, probability (of being drawn), in random order
    strata: pd.DataFrame  # stratum, items, sampled, mean_risk


@dataclass(frozen=True)
class ErrorRate:
    """The share of wrong items among all, reviewed or not."""

    rate: float  # 0 to 1; NaN where a stratum has no reviewed item
    low: float  # lower end of the interval, 0 to 1
    high: float  # upper end
    items: int
    reviewed: int
    wrong: int  # among the reviewed


def plan_review(
    items: pd.DataFrame,
    *,
    size: int,
    rng: np.random.Generator,
    random_share: float = 0.5,
    strata: int = 2,
) -> ReviewPlan:
    """Return a random sample in which risky items are more frequent than others.

    Strata have equal numbers of items in the order of risk; items of equal risk are split at
    random. ``random_share`` of the sample is allocated to strata in proportion to their items, the
    rest in proportion to the sum of their risks, so that a stratum of ten times the risk gets ten
    times as much of it.

    Args:
        items: one row per item: ``item`` (unique) and ``risk``, at least 0; without ``risk``, or
            if all risks are equal, there is one stratum and the sample is a simple random one.
        size: items to review; all of them if there are fewer.
        rng: draws the sample; the order of the rows of ``items`` does not matter.
        random_share: in ``[0, 1]``.
        strata: at least 1. More strata follow the risk better but widen the interval.

    Raises:
        TableError: a column is missing, an item is repeated, or a risk is missing or negative.
    """
    pool = _pool(items)
    random = rng.permutation(len(pool))
    order = np.lexsort((random, pool["risk"].to_numpy()))
    equal_risk = pool["risk"].nunique() <= 1
    count = 1 if equal_risk else min(strata, len(pool))
    stratum = np.empty(len(pool), dtype=np.int64)
    stratum[order] = np.arange(len(pool)) * count // max(len(pool), 1)
    pool = pool.assign(stratum=stratum)
    by_stratum = pool.groupby("stratum")["risk"]
    sizes = np.asarray(by_stratum.size(), dtype=np.int64)
    risks = np.asarray(by_stratum.sum(), dtype=np.float64)
    sampled = _allocate(sizes, risks, size=min(size, len(pool)), random_share=random_share)
    chosen = []
    for number, number_sampled in enumerate(sampled.tolist()):
        rows = pool[pool["stratum"] == number]
        taken = rng.choice(len(rows), size=number_sampled, replace=False)
        chosen.append(rows.iloc[taken].assign(probability=number_sampled / len(rows)))
    sample = pd.concat(chosen) if chosen else pool.assign(probability=1.0)
    shuffled = sample.iloc[rng.permutation(len(sample))].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "stratum": np.arange(len(sizes)),
            "items": sizes,
            "sampled": sampled,
            "mean_risk": risks / np.maximum(sizes, 1),
        }
    )
    return ReviewPlan(shuffled[["item", "stratum", "probability"]], table)


def estimate_error_rate(
    plan: ReviewPlan, reviews: pd.DataFrame, *, level: float = 0.95
) -> ErrorRate:
    """Return the share of wrong items among all items from the reviews so far.

    The estimate is Horvitz and Thompson's ("A generalization of sampling without replacement from
    a finite universe", 1952): errors weighed by the inverse of the probability of being reviewed.

    The interval contains every number of errors that the reviews do not contradict. For a number
    in each stratum the probability of as few errors among the reviewed is hypergeometric; the
    probabilities of the strata are combined by Fisher's method, and a total is accepted if some
    distribution of it over the strata is (as in Ottoboni, Stark, Lindeman and McBurnett,
    "Risk-Limiting Audits by Stratified Union-Intersection Tests of Elections", 2018). Each end is
    at ``(1 - level) / 2``, so the coverage is at least ``level`` for any true rate. With one
    stratum it is the exact interval of a sample without replacement, which approaches Clopper and
    Pearson's if there are far more items than reviews.

    Args:
        plan: the drawn sample.
        reviews: columns ``item`` and ``wrong`` (bool), one row per reviewed item of the sample.
            Reviews may be outstanding if that is independent of whether the items are wrong, as it
            is if items are reviewed in the order of ``plan.sample``.
        level: of the interval, in ``(0, 1)``.

    Raises:
        TableError: a column is missing, an item was reviewed twice or is not in the sample.
    """
    need_columns(reviews, ["item", "wrong"])
    _refuse(reviews["item"].duplicated(), reviews, "was reviewed twice", "Keep one review.")
    not_drawn = ~reviews["item"].isin(plan.sample["item"])
    _refuse(not_drawn, reviews, "was reviewed but not drawn", "Review the items of the plan.")
    stratum = plan.sample.set_index("item")["stratum"].reindex(reviews["item"]).to_numpy()
    sizes = plan.strata["items"].to_numpy(dtype=np.int64)
    kinds = len(sizes)
    reviewed = np.bincount(stratum, minlength=kinds)
    wrong = np.bincount(stratum[reviews["wrong"].to_numpy(dtype=bool)], minlength=kinds)
    items = int(sizes.sum())
    counts = {"items": items, "reviewed": int(reviewed.sum()), "wrong": int(wrong.sum())}
    if not items:
        return ErrorRate(float("nan"), 0.0, 1.0, **counts)
    most = _most_errors(sizes, reviewed, wrong, level)
    # The least number of errors is all items minus the largest number of right ones.
    least = items - _most_errors(sizes, reviewed, reviewed - wrong, level)
    known = bool((reviewed > 0).all())
    rate = float((sizes * wrong / np.maximum(reviewed, 1)).sum() / items)
    return ErrorRate(rate if known else float("nan"), least / items, most / items, **counts)


def _pool(items: pd.DataFrame) -> pd.DataFrame:
    """Return ``item`` and ``risk``, checked and in the order of the items."""
    need_columns(items, ["item"])
    pool = items[["item"]].assign(risk=items["risk"] if "risk" in items.columns else 1.0)
    _refuse(pool["item"].duplicated(), pool, "is repeated", "Give every item once.")
    unfit = ~(pool["risk"] >= 0) | ~np.isfinite(pool["risk"].to_numpy(dtype=np.float64))
    _refuse(unfit, pool, "has no risk of 0 or more", "Give a number for every item.")
    return pool.sort_values("item", ignore_index=True)


def _refuse(rows: pd.Series, table: pd.DataFrame, problem: str, remedy: str) -> None:
    if rows.any():
        raise TableError(f"item {table.loc[rows, 'item'].iloc[0]} {problem}. {remedy}")


def _allocate(
    sizes: npt.NDArray[np.int64], risks: FloatArray, *, size: int, random_share: float
) -> npt.NDArray[np.int64]:
    """Return how many items of each stratum to draw: at least one each if ``size`` suffices."""
    if not len(sizes):
        return sizes
    part = sizes / sizes.sum()
    risky = risks / risks.sum() if risks.sum() > 0 else part
    weight = random_share * part + (1.0 - random_share) * risky
    taken = np.zeros_like(sizes)
    # One at a time to the stratum furthest below its weight: Webster's rule, which is robust to
    # rounding and reallocates what a small stratum cannot provide.
    for _ in range(size):
        claim = np.where(taken < sizes, (weight + 1e-12) / (taken + 0.5), -1.0)
        claim = np.where((taken == 0) & (sizes > 0), np.inf, claim)
        taken[int(claim.argmax())] += 1
    return taken


def _most_errors(
    sizes: npt.NDArray[np.int64],
    reviewed: npt.NDArray[np.int64],
    wrong: npt.NDArray[np.int64],
    level: float,
) -> int:
    """Return the largest total number of errors that the errors found do not contradict."""
    from scipy.special import chdtri

    # Fully reviewed strata are known; all items of unreviewed strata can be wrong.
    certain = int(wrong[reviewed == sizes].sum() + sizes[reviewed == 0].sum())
    open_strata = np.flatnonzero((reviewed > 0) & (reviewed < sizes))
    if not len(open_strata):
        return certain
    limit = -float(chdtri(2 * len(open_strata), (1.0 - level) / 2.0)) / 2.0
    losses = []
    errors = 0
    for number in open_strata:
        total, seen, found = int(sizes[number]), int(reviewed[number]), int(wrong[number])
        chance = _log_chance_of_few(total, seen, found)
        # At least the errors found exist, and at least the right items found exist.
        errors += found
        losses.append(-np.diff(chance[found : total - (seen - found) + 1]))
    # The chances are log-concave, so the least contradicted distribution of the errors is found
    # by adding each error where it costs least.
    spent = np.cumsum(np.sort(np.concatenate(losses)))
    return certain + errors + int(np.searchsorted(spent, -limit, side="right"))


def _log_chance_of_few(items: int, reviewed: int, wrong: int) -> FloatArray:
    """Return the log chance of at most ``wrong`` among the reviewed, for 0 … ``items`` errors.

    One more error changes the outcome only if it falls on a reviewed item while exactly ``wrong``
    are found, so the chances are cumulative sums of such terms, from the end.
    """
    from scipy.special import gammaln

    if wrong >= reviewed:
        return np.zeros(items + 1)
    errors = np.arange(items + 1, dtype=np.float64)
    fits = (errors >= wrong) & (errors <= items - (reviewed - wrong))

    def choose(n: FloatArray, k: float) -> FloatArray:
        return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1))

    terms = np.full(items + 1, -np.inf)
    some = errors[fits]
    exactly = choose(some, wrong) + choose(items - some, reviewed - wrong)
    exactly -= choose(np.array(float(items)), reviewed)
    terms[fits] = exactly + np.log((reviewed - wrong) / (items - some))
    return np.asarray(np.minimum(np.logaddexp.accumulate(terms[::-1])[::-1], 0.0))
