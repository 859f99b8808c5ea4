"""How many labels of a version are wrong, of each class, and whether that is few enough.

Two designs of an audit are read. *Labels*: single labels are drawn at random from the whole
version and looked at one by one. However the errors of an image hang together, a simple random
sample of labels finds them as a hypergeometric law says, so the interval is exact. *Images*:
whole images are drawn at random and labelled blind, which finds missed objects too; there, labels
succeed and fail together, and the interval reckons with it. Reviewers of a round look at a sample
of whole images too (``review_findings``), at some more often than at others, which the weights
undo. What was accepted without a person has the bound of its certificate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.error_rate import ReviewPlan, estimate_error_rate, plan_review
from annotation_platform.consensus.intervals import clustered_share, share_interval
from annotation_platform.consensus.matching import match_pairs
from annotation_platform.consensus.overlap import labels_of, overlap_matrix
from annotation_platform.consensus.units import need_columns
from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.schema.shapes import CLASSIFICATIONS, NOTHING, Label
from annotation_platform.schema.tables import ErrorBars, records

ALL = ""
"""``class_name`` of the row for all classes together."""

_SAME = 0.5
_NO_LABELS = ("none", "unsure")
_NOTHING_SEEN = "No label was audited"
_AUDIT = "Audit some, or set the limit to 0."


@dataclass(frozen=True)
class Verdict:
    """Whether a version may be released, and why or why not, as a sentence."""

    allowed: bool
    reason: str


def plan_label_audit(labels: pd.DataFrame, *, size: int, rng: np.random.Generator) -> ReviewPlan:
    """Return a simple random sample of the labels of a version, to be looked at one by one.

    Every label has the same chance, whatever its class, image or suspicion: choosing by
    suspicion and weighing back was tried, and widens the exact interval.

    Args:
        labels: ``label_id`` and ``shape``; rows of shape ``none`` say nothing that can be wrong.
        size: labels to look at; all of them, at most.
        rng: draws the sample.
    """
    said = labels.loc[labels["shape"] != NOTHING.shape, ["label_id"]]
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
    said = labels[labels["shape"] != NOTHING.shape]
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
                "origin": PEOPLE,
                "labels": found.items,
                "audited": found.reviewed,
                "images": 0,
                "wrong": found.wrong,
                "rate": found.rate,
                "low": found.low,
                "high": found.high,
            }
        )
    return ErrorBars.from_rows(rows)


def image_error_bars(
    findings: pd.DataFrame,
    *,
    round_id: str,
    level: float = 0.95,
    origin: str = PEOPLE,
    labels: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Return the ``error_bars`` of labels from whole images that somebody looked at again.

    The rate is of wrong labels and missed objects among labels and missed objects. The interval is
    that of Korn and Graubard (1998) for shares in clusters, ``consensus/intervals.py``. What nobody
    looked at may be anything.

    Args:
        findings: a row for every label of an audited image and every object that it misses:
            ``image_id``, ``class_name`` and ``wrong`` (bool; an object that was missed is wrong).
            ``weight``, if there, is one by the chance of the image to be looked at.
        round_id: of the version.
        level: of the intervals, in ``(0, 1)``.
        origin: of the labels.
        labels: by class the labels that the bars speak of; by default those of ``findings``.
    """
    need_columns(findings, ["image_id", "class_name", "wrong"])
    counts = findings["class_name"].value_counts().to_dict() if labels is None else dict(labels)
    rows: list[dict[str, object]] = []
    for name in [ALL, *sorted({*findings["class_name"].dropna(), *counts})]:
        its = findings if name == ALL else findings[findings["class_name"] == name]
        weights = its["weight"] if "weight" in its.columns else None
        share = clustered_share(its["wrong"], its["image_id"], weights=weights, level=level)
        ends = share_interval(share, level=level)
        rows.append(
            {
                **_same(round_id, "images", level),
                "class_name": name,
                "origin": origin,
                "labels": sum(counts.values()) if name == ALL else counts.get(name, 0),
                "audited": len(its),
                "images": its["image_id"].nunique(),
                "wrong": int(its["wrong"].sum()),
                "rate": share.share,
                "low": ends.low,
                "high": ends.high,
            }
        )
    return ErrorBars.from_rows(rows)


def review_findings(
    consensus: pd.DataFrame, reviewed: pd.DataFrame, sizes: Mapping[str, tuple[float, float]]
) -> pd.DataFrame:
    """Return what reviewers found in images that nothing was in dispute about, label by label.

    A label is right if the reviewer left one of its class and shape there: with an overlap of 0.5
    or more, one label an object; a choice, if it stands. What the reviewer added and no label
    matches is missed. So a box of another class counts twice, as wrong and as missed. Of an image
    that was rejected all labels are wrong; of one without a label nothing is found.

    Args:
        consensus: the ``consensus_labels`` of these images.
        reviewed: their ``reviewed_labels``: accepted, fixed or rejected.
        sizes: width and height of each image, pixels.

    Returns:
        Rows of ``image_id``, ``class_name`` and ``wrong``, for ``image_error_bars``.
    """
    left = dict(iter(reviewed.groupby("image_id")))
    rows: list[tuple[str, str | None, bool]] = []
    for key, said in consensus.groupby("image_id"):
        image = str(key)
        decision = left[image]["decision"].iloc[0]
        labels = labels_of(said[~said["shape"].isin(_NO_LABELS)])
        kept = labels_of(left[image][~left[image]["shape"].isin(_NO_LABELS)])
        if decision == "rejected":
            kept = []
        pairs = match_pairs(_sameness(labels, kept, sizes[image]), threshold=_SAME)
        right, found = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
        rows += [(image, one.class_name, at not in right) for at, one in enumerate(labels)]
        rows += [(image, one.class_name, True) for at, one in enumerate(kept) if at not in found]
    return pd.DataFrame(rows, columns=["image_id", "class_name", "wrong"])


def certificate_bars(
    certificates: pd.DataFrame, labels: Mapping[str, int], *, round_id: str
) -> pd.DataFrame:
    """Return the ``error_bars`` of labels accepted without a person: what their certificate bounds.

    The interval reaches from 0 to the bound, which holds at ``1 - delta``. A class that has no
    bound of its own has no row.

    Args:
        certificates: the rows of the certificate that stands.
        labels: by class those of the version that rest on it.
        round_id: of the version.
    """
    rows: list[dict[str, object]] = []
    for one in certificates[certificates["bound"].notna()].to_dict("records"):
        name, audited = str(one["class_name"]), int(one["accepted_labels"])
        rows.append(
            {
                **_same(round_id, "certificate", 1.0 - float(one["delta"])),
                "class_name": name,
                "origin": AUTO,
                "labels": sum(labels.values()) if name == ALL else labels.get(name, 0),
                "audited": audited,
                "images": int(one["accepted_images"]),
                "wrong": int(one["errors"]),
                "rate": min(int(one["errors"]) / max(audited, 1), 1.0),
                "low": 0.0,
                "high": float(one["bound"]),
            }
        )
    return ErrorBars.from_rows(rows)


def release_allowed(bars: pd.DataFrame, limit: float) -> Verdict:
    """Return whether the labels of a version are shown to be good enough to release.

    They are if, of every origin, the upper end of the interval over all classes is at most
    ``limit``: what nobody looked at is not shown to be good. A limit of 0 asks for nothing.

    Args:
        bars: the ``error_bars`` of the version; none if nothing was audited.
        limit: share of wrong labels, in ``[0, 1]``.
    """
    if limit <= 0:
        return Verdict(True, "No limit is set for wrong labels.")
    overall = bars[(bars["class_name"] == ALL) & (bars["labels"] > 0)]
    verdicts = [_allowed(bar, limit) for bar in records(overall)]
    refused = [verdict for verdict in verdicts if not verdict.allowed]
    if bars.empty:
        return Verdict(False, f"{_NOTHING_SEEN}, and at most {limit:.1%} may be wrong. {_AUDIT}")
    if not verdicts:
        return Verdict(True, "Every label was looked at.")
    return Verdict(not refused, " ".join(each.reason for each in refused or verdicts))


def _allowed(bar: Mapping[str, object], limit: float) -> Verdict:
    """Return the verdict on the labels of one origin."""
    origin, audited, wrong = str(bar["origin"]), int(str(bar["audited"])), int(str(bar["wrong"]))
    low, high, level = (float(str(bar[name])) for name in ("low", "high", "level"))
    if not audited:
        seen = f"{_NOTHING_SEEN} of those from {origin},"
        return Verdict(False, f"{seen} and at most {limit:.1%} may be wrong. {_AUDIT}")
    found = (
        f"{wrong} of {audited} audited labels from {origin} are wrong: between {low:.1%} and"
        f" {high:.1%} of all ({level:.0%} interval), at most {limit:.1%} may be"
    )
    if high <= limit:
        return Verdict(True, f"{found}.")
    if low > limit:
        return Verdict(False, f"{found}. Review the labels, the suspected ones first.")
    return Verdict(False, f"{found}. Audit more labels to know, or review the suspected ones.")


def _sameness(
    ours: list[Label], theirs: list[Label], size: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return ``(N, M)`` how much labels are the same, 0 to 1: nothing where classes differ."""
    same = overlap_matrix(ours, theirs, image_size=size)
    for row, one in enumerate(ours):
        for column, other in enumerate(theirs):
            if one.class_name != other.class_name:
                same[row, column] = 0.0
            elif one.shape == other.shape in CLASSIFICATIONS:
                same[row, column] = 1.0
    return same


def _same(round_id: str, design: str, level: float) -> dict[str, object]:
    return {"round_id": round_id, "design": design, "level": level}
