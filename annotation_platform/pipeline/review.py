"""The images that annotations leave open: put before reviewers, and what they decide."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.consensus.error_rate import ErrorRate
from annotation_platform.curation.label_issues import with_suspects
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling import review_sampling, reviews
from annotation_platform.labeling.backends.protocol import LabelingBackend, Submission
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.request_annotations import labeling_context, shown_images
from annotation_platform.pipeline.result import Counts, Link, Result, Rows, Thumbnails


@dataclass(frozen=True)
class ReviewInputs:
    """The tables of a round that say what is open, by name."""

    consensus_labels: pd.DataFrame
    conflicts: pd.DataFrame
    label_issues: pd.DataFrame
    selected_images: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class ReviewRequested(Result):
    """The review tasks of a round."""

    review_tasks: pd.DataFrame


@dataclass(frozen=True, kw_only=True)
class Reviewed(Result):
    """The labels of a round as they were decided."""

    reviewed_labels: pd.DataFrame


def request_reviews(
    context: RoundContext, inputs: ReviewInputs, labeling: LabelingBackend, models: ModelRegistry
) -> ReviewRequested:
    """Put the images with something open before reviewers, if the policy says so."""
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
            "asked": int((tasks["backend"] != "").sum()),
            "kinds": Counts(tasks["kinds"].str.split(", ").explode()),
            "reasons": Rows(tasks, ["image_id", "kinds", "reasons"]),
            "preview": Thumbnails(shown, consensus, context.policy.ontology),
            **({"review_here": Link(url)} if url else {}),
        },
    )


def _open_conflicts(context: RoundContext, inputs: ReviewInputs) -> pd.DataFrame:
    """Return the conflicts, with the suspect labels where a reviewer can decide about them.

    Without a reviewer an image with an open conflict would be left out of the release. And what is
    in a random sample has to be judged by people alone.
    """
    if context.policy.review.gate != "manual":
        return inputs.conflicts
    selected = inputs.selected_images
    drawn = selected["audit"] | (selected["rule"] == "reaudit")
    issues = inputs.label_issues
    others = issues[~issues["image_id"].isin(selected.loc[drawn, "image_id"])]
    return with_suspects(inputs.conflicts, others, inputs.consensus_labels)


def decide_reviews(
    context: RoundContext,
    consensus_labels: pd.DataFrame,
    review_tasks: pd.DataFrame,
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
    images = labels.drop_duplicates("image_id")
    held = images[images["decision"].isin(["rejected", "undecided"])]
    decided = images.loc[images["decided_by"] != "", ["image_id"]]
    reviewed = accepted_images(context.tables).merge(decided)
    return Reviewed(
        reviewed_labels=labels,
        figures={
            "images": len(images),
            "held_out_images": len(held),
            "decisions": Counts(images["decision"]),
            **({} if errors is None else _error_figures(errors)),
            "held_out": Rows(held, ["image_id", "decision", "comment"]),
            "preview": Thumbnails(reviewed, labels, context.policy.ontology),
        },
    )


def _error_figures(errors: ErrorRate) -> dict[str, float]:
    """Return what the review sample says about the undisputed images."""
    return {
        "wrong_share": errors.rate,
        "wrong_share_low": errors.low,
        "wrong_share_high": errors.high,
        "sample_reviewed": errors.reviewed,
        "sample_wrong": errors.wrong,
    }
