"""Reviews: tasks for the images that annotations leave open, and the reviewers' decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.consensus.error_rate import ErrorRate
from annotation_platform.curation.gates import OPEN_DECISIONS
from annotation_platform.curation.label_issues import with_suspects
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling import review_sampling, reviews
from annotation_platform.labeling.backends.protocol import LabelingBackend, Submission
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.request_annotations import labeling_context, shown_images
from annotation_platform.pipeline.result import Counts, PageLink, Result, TableRows, Thumbnails
from annotation_platform.schema.tables import (
    Conflicts,
    ConsensusLabels,
    Frame,
    LabelIssues,
    ReviewedLabels,
    ReviewTasks,
    SelectedImages,
)
from annotation_platform.schema.tables.shared import SelectionRule


@dataclass(frozen=True)
class ReviewInputs:
    """The tables of a round from which its review tasks are made, by name."""

    consensus_labels: Frame[ConsensusLabels]
    conflicts: Frame[Conflicts]
    label_issues: Frame[LabelIssues]
    selected_images: Frame[SelectedImages]


@dataclass(frozen=True, kw_only=True)
class ReviewRequested(Result):
    """The review tasks of a round."""

    review_tasks: Frame[ReviewTasks]


@dataclass(frozen=True, kw_only=True)
class Reviewed(Result):
    """The decided labels of a round."""

    reviewed_labels: Frame[ReviewedLabels]


def request_reviews(
    context: RoundContext, inputs: ReviewInputs, labeling: LabelingBackend, models: ModelRegistry
) -> ReviewRequested:
    """Publish review tasks for images that are open, if the policy has reviewers."""
    round_id, consensus = context.round_id, inputs.consensus_labels
    tasks = reviews.ask_reviewers(
        labeling_context(context, labeling),
        consensus,
        _open_conflicts(context, inputs),
        images=shown_images(context, models),
    )
    url = labeling.round_url(reviews.review_round(round_id)) if len(tasks) else ""
    shown = accepted_images(context.tables).merge(tasks[["image_id"]])
    return ReviewRequested(
        review_tasks=tasks,
        figures={
            "images": len(tasks),
            "published": int((tasks[ReviewTasks.backend] != "").sum()),
            "kinds": Counts(tasks[ReviewTasks.kinds].str.split(", ").explode()),
            "reasons": TableRows(tasks, ["image_id", "kinds", "reasons"]),
            "preview": Thumbnails(shown, consensus, context.policy.ontology),
            **({"review_page": PageLink(url)} if url else {}),
        },
    )


def _open_conflicts(context: RoundContext, inputs: ReviewInputs) -> pd.DataFrame:
    """Return the conflicts, and the suspected labels if reviewers can decide about them.

    Without a reviewer, an image with an open conflict would be left out of the release. Images of
    random samples have no suspected labels: they must be labelled independently of the model.
    """
    if context.policy.review.gate != "manual":
        return inputs.conflicts
    selected = inputs.selected_images
    is_recheck = selected[SelectedImages.rule] == SelectionRule.RECHECK
    drawn = selected[SelectedImages.calibration_sample] | is_recheck
    issues = inputs.label_issues
    sampled = selected.loc[drawn, SelectedImages.image_id]
    others = issues[~issues[LabelIssues.image_id].isin(sampled)]
    return with_suspects(inputs.conflicts, others, inputs.consensus_labels)


def decide_reviews(
    context: RoundContext,
    consensus_labels: Frame[ConsensusLabels],
    review_tasks: Frame[ReviewTasks],
    submitted: Sequence[Submission],
) -> Reviewed:
    """Write the reviewers' decisions into the ledger, and return the labels as decided.

    Raises:
        NotReadyError: a decision is missing, and the policy says to wait for it.
    """
    labels = reviews.decide(
        context.round_id,
        consensus_labels,
        review_tasks,
        submitted,
        context.lake,
        context.policy,
        now=context.now,
    )
    disputed = review_sampling.disputed_images(review_tasks)
    plan = review_sampling.review_sample(
        context.round_id, consensus_labels, disputed, context.policy
    )
    errors = review_sampling.estimated_errors(plan, labels)
    images = labels.drop_duplicates(ReviewedLabels.image_id)
    held = images[images[ReviewedLabels.decision].isin(OPEN_DECISIONS)]
    decided = images.loc[images[ReviewedLabels.decided_by] != "", [ReviewedLabels.image_id]]
    reviewed = accepted_images(context.tables).merge(decided)
    return Reviewed(
        reviewed_labels=labels,
        figures={
            "images": len(images),
            "held_out_images": len(held),
            "decisions": Counts(images[ReviewedLabels.decision]),
            **({} if errors is None else _error_figures(errors)),
            "held_out": TableRows(held, ["image_id", "decision", "comment"]),
            "preview": Thumbnails(reviewed, labels, context.policy.ontology),
        },
    )


def _error_figures(errors: ErrorRate) -> dict[str, float]:
    """Return the error rate of undisputed images, estimated from the review sample."""
    return {
        "wrong_share": errors.rate,
        "wrong_share_low": errors.low,
        "wrong_share_high": errors.high,
        "sample_reviewed": errors.reviewed,
        "sample_wrong": errors.wrong,
    }
