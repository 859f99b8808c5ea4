"""How many labels of a version are wrong, of each class, and whether that is few enough.

Two designs of an audit are read. *Labels*: single labels are drawn at random from the whole
version and looked at one by one. However the errors of a picture hang together, a simple random
sample of labels finds them as a hypergeometric law says, so the interval is exact. *Pictures*:
whole pictures are drawn at random and labelled blind, which finds missed objects too; there, labels
succeed and fail together, and the interval reckons with it.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.error_rate import ReviewPlan, estimate_error_rate, plan_review
from annotation_platform.consensus.intervals import clustered_share, share_interval
from annotation_platform.consensus.units import need_columns
from annotation_platform.schema.tables import make_table

ALL = ""
"""``class_name`` of the row for all classes together."""


@dataclass(frozen=True)
class Verdict:
    """Whether a version may be released, and why or why not, as a sentence."""

    allowed: bool
    reason: str


def plan_label_audit(labels: pd.DataFrame, *, size: int, rng: np.random.Generator) -> ReviewPlan:
    """Return a simple random sample of the labels of a version, to be looked at one by one.

    Every label has the same chance, whatever its class, picture or suspicion: choosing by
    suspicion and weighing back was tried, and widens the exact interval.

    Args:
        labels: ``label_id`` and ``shape``; rows of shape ``none`` say nothing that can be wrong.
        size: labels to look at; all of them, at most.
        rng: draws the sample.
    """
    said = labels.loc[labels["shape"] != "none", ["label_id"]]
    return plan_review(said.rename(columns={"label_id": "item"}), size=size, rng=rng)


def error_bars(
    plan: ReviewPlan,
    reviews: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    round_id: str,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the ``error_bars`` of a version, from labels that were looked at one by one.

    The interval of each row covers at least ``level``, for any size, rate and class: of a class,
    the labels that were drawn are a simple random sample of all of it. Rows do not cover together.

    Args:
        plan: what ``plan_label_audit`` returned for these labels.
        reviews: ``item`` (label id) and ``wrong`` (bool) of those that were looked at; outstanding
            ones must be the last of the plan.
        labels: the version's, with ``label_id``, ``shape`` and ``class_name``.
        round_id: of the version.
        level: of the intervals, in ``(0, 1)``.

    Raises:
        TableError: a column is missing, or a label was not drawn or looked at twice.
    """
    need_columns(labels, ["label_id", "shape", "class_name"])
    said = labels[labels["shape"] != "none"]
    class_of = said.set_index("label_id")["class_name"]
    rows: list[dict[str, object]] = []
    for name in [ALL, *sorted(said["class_name"].dropna().unique())]:
        its = class_of.index if name == ALL else class_of.index[class_of == name]
        sample = plan.sample[plan.sample["item"].isin(its)]
        strata = plan.strata.head(1).assign(items=len(its), sampled=len(sample))
        seen = reviews if name == ALL else reviews[reviews["item"].isin(its)]
        found = estimate_error_rate(ReviewPlan(sample, strata), seen, level=level)
        rows.append(
            {
                **_same(round_id, "labels", level),
                "class_name": name,
                "labels": found.items,
                "audited": found.reviewed,
                "pictures": 0,
                "wrong": found.wrong,
                "rate": found.rate,
                "low": found.low,
                "high": found.high,
            }
        )
    return make_table("error_bars", rows)


def picture_error_bars(
    findings: pd.DataFrame, *, round_id: str, level: float = 0.95
) -> pd.DataFrame:
    """Return the ``error_bars`` of labels from whole pictures that were labelled again, blind.

    The rate is of wrong labels and missed objects among labels and missed objects. The interval is
    that of Korn and Graubard (1998) for shares in clusters, ``consensus/intervals.py``.

    Args:
        findings: a row for every label of an audited picture and every object that it misses:
            ``image_id``, ``class_name`` and ``wrong`` (bool; an object that was missed is wrong).
        round_id: of the version.
        level: of the intervals, in ``(0, 1)``.
    """
    need_columns(findings, ["image_id", "class_name", "wrong"])
    rows: list[dict[str, object]] = []
    for name in [ALL, *sorted(findings["class_name"].dropna().unique())]:
        its = findings if name == ALL else findings[findings["class_name"] == name]
        share = clustered_share(its["wrong"], its["image_id"], level=level)
        ends = share_interval(share, level=level)
        rows.append(
            {
                **_same(round_id, "pictures", level),
                "class_name": name,
                "labels": len(its),
                "audited": len(its),
                "pictures": its["image_id"].nunique(),
                "wrong": int(its["wrong"].sum()),
                "rate": share.share,
                "low": ends.low,
                "high": ends.high,
            }
        )
    return make_table("error_bars", rows)


def release_allowed(bars: pd.DataFrame, limit: float) -> Verdict:
    """Return whether the labels of a version are shown to be good enough to release.

    They are if the upper end of the interval over all classes is at most ``limit``: what nobody
    looked at is not shown to be good. A limit of 0 asks for nothing.

    Args:
        bars: the ``error_bars`` of the version; none if nothing was audited.
        limit: share of wrong labels, in ``[0, 1]``.
    """
    if limit <= 0:
        return Verdict(True, "No limit is set for wrong labels.")
    overall = bars[bars["class_name"] == ALL]
    if overall.empty or not int(overall["audited"].iloc[0]):
        return Verdict(
            False,
            f"No label was audited, and at most {limit:.1%} may be wrong. Audit some, or set the "
            "limit to 0.",
        )
    bar = overall.iloc[0]
    found = (
        f"{bar['wrong']} of {bar['audited']} audited labels are wrong: between {bar['low']:.1%} and"
        f" {bar['high']:.1%} of all ({bar['level']:.0%} interval), at most {limit:.1%} may be"
    )
    if bar["high"] <= limit:
        return Verdict(True, f"{found}.")
    if bar["low"] > limit:
        return Verdict(False, f"{found}. Review the labels, the suspected ones first.")
    return Verdict(False, f"{found}. Audit more labels to know, or review the suspected ones.")


def _same(round_id: str, design: str, level: float) -> dict[str, object]:
    return {"round_id": round_id, "design": design, "level": level}
