"""The random sample of undisputed images that is reviewed, and what it says about the others."""

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

SAMPLE = "sample"
"""The kind of a review task on an image that was drawn at random, nothing being in dispute."""


def review_sample(
    round_id: str,
    consensus: pd.DataFrame,
    disputed: Collection[str],
    policy: Policy,
    *,
    size: int | None = None,
) -> ReviewPlan:
    """Return the sample of undisputed images that is reviewed to see how many labels are wrong.

    Images on which people agreed less are in it more often. The same input gives the same sample.
    ``disputed`` images are not in it.
    ``size`` takes the assignment of policy's, for a sample that was drawn before.
    """
    others = consensus[~consensus["image_id"].isin(disputed)]
    agreed = others["class_agreement"].fillna(1.0) * others["mean_iou"].fillna(1.0)
    agreed *= others["support"] / others["annotations"].clip(lower=1)
    risk = 1.0 - agreed.clip(upper=1.0).groupby(others["image_id"]).min()
    items = risk.rename("risk").rename_axis("item").reset_index()
    rng = np.random.default_rng([policy.seed, 1, round_number(round_id)])
    wanted = round(policy.review.sample_share * len(items)) if size is None else size
    return plan_review(items, size=wanted, rng=rng)


def disputed_images(review_tasks: pd.DataFrame) -> set[str]:
    """Return the images of review tasks that were not drawn at random."""
    return set(review_tasks.loc[review_tasks["kinds"] != SAMPLE, "image_id"])


def estimated_errors(plan: ReviewPlan, reviewed_labels: pd.DataFrame) -> ErrorRate | None:
    """Return how many of the undisputed images are wrong; None if the sample tells nothing.

    An image is wrong if its reviewer changed its labels or rejected them.
    """
    decided = reviewed_labels.drop_duplicates("image_id").set_index("image_id")["decision"]
    said = decided[decided.isin(["accepted", "fixed", "rejected"])]
    drawn = said[said.index.isin(plan.sample["item"])]
    if drawn.empty:
        return None
    reviews = pd.DataFrame({"item": drawn.index, "wrong": (drawn != "accepted").to_numpy()})
    return estimate_error_rate(plan, reviews)
