"""Review tasks for the images that annotations leave open, and the decided labels."""

from collections.abc import Iterator, Sequence

import dagster as dg
import pandas as pd

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.protocol import LabelingBackend, Submission
from annotation_platform.labeling.reviews import review_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.release_due import held_back, release_due
from annotation_platform.pipeline.review import ReviewInputs, decide_reviews, request_reviews
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import (
    Conflicts,
    ConsensusLabels,
    Frame,
    LabelIssues,
    ReviewTasks,
    SelectedImages,
)
from assets.jobs import merge_round, release_round
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized
from resources.causes import record_further_work


@tables_made(
    "review_tasks",
    group="consensus",
    kinds={"labelstudio"},
    code_version="2",
    reads=["cleaned_images", "predicted_images"],
)
def review_tasks(
    context: dg.AssetExecutionContext,
    consensus_labels: Frame[ConsensusLabels],
    conflicts: Frame[Conflicts],
    label_issues: Frame[LabelIssues],
    selected_images: Frame[SelectedImages],
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The images that need a decision, with their review tasks if the policy has reviewers."""
    inputs = ReviewInputs(consensus_labels, conflicts, label_issues, selected_images)
    round_ = round_context(context, lake, policy)
    return materialized(request_reviews(round_, inputs, labeling, models), lake)


@tables_made(
    "reviewed_labels",
    group="release",
    kinds={"labelstudio"},
    code_version="1",
    reads=["cleaned_images", "label_tasks", "round_tasks", "imported_labels"],
    optional=["reviewed_labels"],
)
def reviewed_labels(
    context: dg.AssetExecutionContext,
    consensus_labels: Frame[ConsensusLabels],
    review_tasks: Frame[ReviewTasks],
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Iterator[dg.MaterializeResult[pd.DataFrame]]:
    """The labels that count: undisputed, or decided by a named reviewer with a reason."""
    round_ = round_context(context, lake, policy)
    is_merge = context.run.job_name == merge_round.name
    reason = "release.gate is manual" if is_merge and policy.release.gate == "manual" else ""
    if not reason:
        submitted = labeling.collect(review_round(round_.round_id))
        reason = _merge_ends(context, round_, review_tasks, submitted) if is_merge else ""
    if reason:
        context.log.info(f"{round_.round_id} is merged, and not released by this run: {reason}.")
        return
    yield from materialized(decide_reviews(round_, consensus_labels, review_tasks, submitted), lake)


def _merge_ends(
    context: dg.AssetExecutionContext,
    round_: RoundContext,
    review_tasks: Frame[ReviewTasks],
    submitted: Sequence[Submission],
) -> str:
    """Return why a merge ends here; empty if it goes on to the release."""
    due = release_due(round_, review_tasks, submitted)
    reason = due.waits_for or held_back(round_)
    if not reason:
        record_further_work(
            context.instance, context.run.run_id, release_round.name, round_.round_id, due.cause
        )
    return reason
