"""The review sample: undisputed images drawn at random, and the error rate that they show."""

from collections.abc import Collection

import numpy as np
import pandas as pd

from annotation_platform.consensus.error_rate import (
    ErrorRate,
    ReviewPlan,
    estimate_error_rate,
    plan_review,
)
from annotation_platform.policy import Policy
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import ConsensusLabels, ReviewedLabels, ReviewTasks

SAMPLE = "sample"
"""The kind of a review task of the review sample, without a conflict."""


def review_sample(
    round_id: str,
    consensus: pd.DataFrame,
    disputed: Collection[str],
    policy: Policy,
    *,
    size: int | None = None,
) -> ReviewPlan:
    """Return the review sample, from which the share of wrong labels is estimated.

    Images with less agreement are drawn more often. ``disputed`` images are left out. The same
    input gives the same sample. ``size`` overrides the policy, for a sample that was drawn before.
    """
    others = consensus[~consensus[ConsensusLabels.image_id].isin(disputed)]
    agreed = others[ConsensusLabels.class_agreement].fillna(1.0) * others[
        ConsensusLabels.mean_iou
    ].fillna(1.0)
    agreed *= others[ConsensusLabels.support] / others[ConsensusLabels.annotations].clip(lower=1)
    risk = 1.0 - agreed.clip(upper=1.0).groupby(others[ConsensusLabels.image_id]).min()
    items = risk.rename("risk").rename_axis("item").reset_index()
    rng = np.random.default_rng([policy.seed, 1, round_number(round_id)])
    sample_size = round(policy.review.sample_share * len(items)) if size is None else size
    return plan_review(items, size=sample_size, rng=rng)


def disputed_images(review_tasks: pd.DataFrame) -> set[str]:
    """Return the images of review tasks that have a conflict."""
    return set(review_tasks.loc[review_tasks[ReviewTasks.kinds] != SAMPLE, ReviewTasks.image_id])


def estimated_errors(plan: ReviewPlan, reviewed_labels: pd.DataFrame) -> ErrorRate | None:
    """Return the error rate of undisputed images; None if no review of the sample is decided.

    An image is wrong if its reviewer changed or rejected its labels.
    """
    by_image = reviewed_labels.drop_duplicates(ReviewedLabels.image_id)
    decisions = by_image.set_index(ReviewedLabels.image_id)[ReviewedLabels.decision]
    decided = decisions[decisions.isin(["accepted", "fixed", "rejected"])]
    drawn = decided[decided.index.isin(plan.sample["item"])]
    if drawn.empty:
        return None
    reviews = pd.DataFrame({"item": drawn.index, "wrong": (drawn != "accepted").to_numpy()})
    return estimate_error_rate(plan, reviews)
