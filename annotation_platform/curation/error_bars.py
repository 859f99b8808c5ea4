"""The share of wrong labels in a version, for each class, and whether it is within the limit.

Two sampling designs are supported. *Labels*: single labels are drawn at random from the whole
version and reviewed one by one. However the errors of an image are correlated, the number of
wrong labels in a simple random sample is hypergeometric, so the interval is exact. *Images*:
whole images are drawn at random and labelled without predictions, which finds missed objects too;
errors of one image are correlated, and the interval takes that into account. Reviewers of a round
check a sample of whole images too (``review_findings``), some with a higher probability than
others, which the weights correct. Labels accepted without a person have the bound of their
certificate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.error_rate import ReviewPlan, estimate_error_rate, plan_review
from annotation_platform.consensus.intervals import clustered_share, share_interval
from annotation_platform.consensus.matching import match_pairs
from annotation_platform.consensus.units import need_columns
from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.schema.shapes import CLASSIFICATIONS, NOTHING, Label
from annotation_platform.schema.shapes.overlap import labels_of, overlap_matrix
from annotation_platform.schema.tables import (
    Certificates,
    ConsensusLabels,
    ErrorBars,
    Frame,
    ReviewedLabels,
    records,
)
from annotation_platform.schema.tables.shared import ReviewDecision

ALL = ""
"""``class_name`` of the row for all classes together."""

_SAME, _LEVEL = 0.5, 0.95
_NO_LABELS = ("none", "unsure")
_NOT_AUDITED = "No label was audited"
_AUDIT = "Audit some, or set the limit to 0."


@dataclass(frozen=True)
class ReleaseVerdict:
    """Whether a version may be released, and the reason as a sentence."""

    allowed: bool
    reason: str


def plan_label_audit(labels: pd.DataFrame, *, size: int, rng: np.random.Generator) -> ReviewPlan:
    """Return a simple random sample of the labels of a version, to be reviewed one by one.

    Every label has the same probability, whatever its class, image or suspicion. Sampling by
    suspicion with weights was tried: it widens the exact interval.

    Args:
        labels: ``label_id`` and ``shape``; rows of shape ``none`` are not labels.
        size: number of labels to review; all of them, at most.
        rng: draws the sample.
    """
    items = labels.loc[labels["shape"] != NOTHING.shape, ["label_id"]]
    return plan_review(items.rename(columns={"label_id": "item"}), size=size, rng=rng)


def error_bars(
    plan: ReviewPlan,
    reviews: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    round_id: str,
    level: float = 0.95,
) -> Frame[ErrorBars]:
    """Return the ``error_bars`` of a version, from labels that were reviewed one by one.

    Each interval covers with at least ``level``, for any size, rate and class: the drawn labels of
    a class are a simple random sample of that class. There is no joint coverage of all rows.

    Args:
        plan: the result of ``plan_label_audit`` for these labels.
        reviews: ``item`` (label id) and ``wrong`` (bool) of the reviewed labels; outstanding ones
            must be the last of the plan.
        labels: of the version, with ``label_id``, ``shape`` and ``class_name``.
        round_id: of the version.
        level: of the intervals, in ``(0, 1)``.

    Raises:
        TableError: a column is missing, or a label was not drawn or was reviewed twice.
    """
    need_columns(labels, ["label_id", "shape", "class_name"])
    items = labels[labels["shape"] != NOTHING.shape]
    class_of = items.set_index("label_id")["class_name"]
    rows: list[dict[str, object]] = []
    for name in [ALL, *sorted(items["class_name"].dropna().unique())]:
        its = class_of.index if name == ALL else class_of.index[class_of == name]
        sample = plan.sample[plan.sample["item"].isin(its)]
        strata = plan.strata.head(1).assign(items=len(its), sampled=len(sample))
        reviewed = reviews if name == ALL else reviews[reviews["item"].isin(its)]
        found = estimate_error_rate(ReviewPlan(sample, strata), reviewed, level=level)
        rows.append(
            {
                **_same(round_id, "labels", level),
                "class_name": name,
                "origin": PEOPLE,
                "labels": found.items,
                "reviewed": found.reviewed,
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
    origin: str = PEOPLE,
    labels: Mapping[str, int] | None = None,
) -> Frame[ErrorBars]:
    """Return the ``error_bars`` of labels, estimated from whole images that were checked again.

    The rate is wrong labels and missed objects, by labels and missed objects. The interval is that
    of Korn and Graubard (1998) for shares in clusters, see ``consensus/intervals.py``. Without
    findings it is ``[0, 1]``.

    Args:
        findings: a row for every label of an audited image and every missed object:
            ``image_id``, ``class_name`` and ``wrong`` (bool; true for a missed object). The
            optional column ``weight`` is one by the probability that the image was drawn.
        round_id: of the version.
        origin: of the labels.
        labels: number of labels of each class that the bars are about; by default those of
            ``findings``.
    """
    need_columns(findings, ["image_id", "class_name", "wrong"])
    counts = findings["class_name"].value_counts().to_dict() if labels is None else dict(labels)
    rows: list[dict[str, object]] = []
    for name in [ALL, *sorted({*findings["class_name"].dropna(), *counts})]:
        its = findings if name == ALL else findings[findings["class_name"] == name]
        weights = its["weight"] if "weight" in its.columns else None
        share = clustered_share(its["wrong"], its["image_id"], weights=weights)
        ends = share_interval(share)
        rows.append(
            {
                **_same(round_id, "images", _LEVEL),
                "class_name": name,
                "origin": origin,
                "labels": sum(counts.values()) if name == ALL else counts.get(name, 0),
                "reviewed": len(its),
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
    """Return the errors that reviewers found in undisputed images, label by label.

    A label is right if the reviewer's labels have one of its class and shape with an overlap of
    0.5 or more, one for each object; a classification, if the reviewer left it. A reviewer's label
    without a match is a missed object. So a box with the wrong class counts twice, as wrong and as
    missed. All labels of a rejected image are wrong; an image without labels has no rows.

    Args:
        consensus: the ``consensus_labels`` of these images.
        reviewed: their ``reviewed_labels``: accepted, fixed or rejected.
        sizes: width and height of each image, pixels.

    Returns:
        Rows of ``image_id``, ``class_name`` and ``wrong``, for ``image_error_bars``.
    """
    reviews = dict(iter(reviewed.groupby(ReviewedLabels.image_id)))
    rows: list[tuple[str, str | None, bool]] = []
    for key, resolved in consensus.groupby(ConsensusLabels.image_id):
        image, review = str(key), reviews[key]
        labels = labels_of(resolved[~resolved[ConsensusLabels.shape].isin(_NO_LABELS)])
        truth = labels_of(review[~review[ReviewedLabels.shape].isin(_NO_LABELS)])
        if review[ReviewedLabels.decision].iloc[0] == ReviewDecision.REJECTED:
            truth = []
        pairs = match_pairs(_similarity(labels, truth, sizes[image]), threshold=_SAME)
        right, found = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
        rows += [(image, one.class_name, at not in right) for at, one in enumerate(labels)]
        rows += [(image, one.class_name, True) for at, one in enumerate(truth) if at not in found]
    return pd.DataFrame(rows, columns=["image_id", "class_name", "wrong"])


def certificate_bars(
    certificates: pd.DataFrame, labels: Mapping[str, int], *, round_id: str
) -> Frame[ErrorBars]:
    """Return the ``error_bars`` of labels accepted without a person: the bound of the certificate.

    The interval is from 0 to the bound, which holds with probability ``1 - delta``. A class
    without a bound of its own has no row.

    Args:
        certificates: the rows of the current certificate.
        labels: number of labels of each class in the version that depend on it.
        round_id: of the version.
    """
    rows: list[dict[str, object]] = []
    for one in certificates[certificates[Certificates.bound].notna()].to_dict("records"):
        name, audited = str(one["class_name"]), int(one["accepted_labels"])
        rows.append(
            {
                **_same(round_id, "certificate", 1.0 - float(one["delta"])),
                "class_name": name,
                "origin": AUTO,
                "labels": sum(labels.values()) if name == ALL else labels.get(name, 0),
                "reviewed": audited,
                "images": int(one["accepted_images"]),
                "wrong": int(one["errors"]),
                "rate": min(int(one["errors"]) / max(audited, 1), 1.0),
                "low": 0.0,
                "high": float(one["bound"]),
            }
        )
    return ErrorBars.from_rows(rows)


def release_allowed(bars: pd.DataFrame, limit: float) -> ReleaseVerdict:
    """Return whether the error bars of a version allow its release.

    They do if the upper end of the interval over all classes is at most ``limit`` for every
    origin. Labels that were not audited do not pass. A limit of 0 is no limit.

    Args:
        bars: the ``error_bars`` of the version; empty if no label was audited.
        limit: share of wrong labels, in ``[0, 1]``.
    """
    if limit <= 0:
        return ReleaseVerdict(True, "No limit is set for wrong labels.")
    overall = bars[(bars[ErrorBars.class_name] == ALL) & (bars[ErrorBars.labels] > 0)]
    verdicts = [_allowed(bar, limit) for bar in records(overall)]
    refused = [verdict for verdict in verdicts if not verdict.allowed]
    if bars.empty:
        return ReleaseVerdict(
            False, f"{_NOT_AUDITED}, and at most {limit:.1%} may be wrong. {_AUDIT}"
        )
    if not verdicts:
        return ReleaseVerdict(True, "Every label was reviewed.")
    return ReleaseVerdict(not refused, " ".join(each.reason for each in refused or verdicts))


def _allowed(bar: Mapping[str, object], limit: float) -> ReleaseVerdict:
    """Return the verdict on the labels of one origin."""
    origin, audited, wrong = str(bar["origin"]), int(str(bar["reviewed"])), int(str(bar["wrong"]))
    low, high, level = (float(str(bar[name])) for name in ("low", "high", "level"))
    if not audited:
        audited_none = f"{_NOT_AUDITED} of those from {origin},"
        return ReleaseVerdict(
            False, f"{audited_none} and at most {limit:.1%} may be wrong. {_AUDIT}"
        )
    found = (
        f"{wrong} of {audited} audited labels from {origin} are wrong: between {low:.1%} and"
        f" {high:.1%} of all ({level:.0%} interval), at most {limit:.1%} may be"
    )
    if high <= limit:
        return ReleaseVerdict(True, f"{found}.")
    if low > limit:
        return ReleaseVerdict(False, f"{found}. Review the labels, the suspected ones first.")
    return ReleaseVerdict(
        False, f"{found}. Audit more labels to know, or review the suspected ones."
    )


def _similarity(
    ours: list[Label], theirs: list[Label], size: tuple[float, float]
) -> npt.NDArray[np.float64]:
    """Return the ``(N, M)`` overlap of labels in ``[0, 1]``; 0 where the classes differ."""
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
