"""The decided labels, the training set, and its publication as a version."""

from collections.abc import Sequence

import dagster as dg

from annotation_platform.labeling.backends.protocol import LabelingBackend, Submission
from annotation_platform.labeling.reviews import review_round
from annotation_platform.pipeline.auto_accept import auto_accept
from annotation_platform.pipeline.build_training_set import build_training_set
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.measure_errors import measure_errors
from annotation_platform.pipeline.publish import publish
from annotation_platform.pipeline.release_due import held_back, release_due
from annotation_platform.pipeline.review import Reviewed, decide_reviews
from annotation_platform.schema.tables import ConsensusLabels, Frame, ReviewTasks
from assets.jobs import merge_round, release_round
from assets.making import step
from resources.causes import record_further_work


def _decide(
    run: dg.AssetExecutionContext,
    context: RoundContext,
    consensus_labels: Frame[ConsensusLabels],
    review_tasks: Frame[ReviewTasks],
    labeling: LabelingBackend,
) -> Reviewed | None:
    """Return the decided labels; None where a merge ends without a release."""
    is_merge = run.run.job_name == merge_round.name
    reason = (
        "release.gate is manual" if is_merge and context.policy.release.gate == "manual" else ""
    )
    if not reason:
        submitted = labeling.collect(review_round(context.round_id))
        reason = _merge_ends(run, context, review_tasks, submitted) if is_merge else ""
    if reason:
        context.report(f"{context.round_id} is merged, and not released by this run: {reason}.")
        return None
    return decide_reviews(context, consensus_labels, review_tasks, submitted)


def _merge_ends(
    run: dg.AssetExecutionContext,
    context: RoundContext,
    review_tasks: Frame[ReviewTasks],
    submitted: Sequence[Submission],
) -> str:
    """Return why a merge ends here; empty if it goes on to the release."""
    due = release_due(context, review_tasks, submitted)
    reason = due.waits_for or held_back(context)
    if not reason:
        record_further_work(
            run.instance, run.run.run_id, release_round.name, context.round_id, due.cause
        )
    return reason


reviewed_labels = step(
    _decide,
    about="The labels that count: undisputed, or decided by a named reviewer with a reason.",
    group="release",
    kinds={"labelstudio"},
    code_version="1",
    reads=["cleaned_images", "label_tasks", "round_tasks", "imported_labels"],
)

auto_labels = step(
    auto_accept,
    about="Predictions accepted without a person, under a certificate that bounds their errors.",
    group="release",
    kinds={"scipy"},
    code_version="1",
    reads=["cleaned_images"],
)

# The pool has one slot: splits are drawn and versions numbered one after the other. Every table is
# read for all finished rounds; earlier rounds may lack some.
training_set = step(
    build_training_set,
    about="Every label of every finished round and every imported label, with its permanent split.",
    group="release",
    kinds={"pandas"},
    code_version="3",
    reads=[
        "raw_images",
        "cleaned_images",
        "imported_labels",
        "round_tasks",
        "reviewed_labels",
        "auto_labels",
        "certificates",
        "certificate_rechecks",
    ],
    pool="dvc",
)

error_bars = step(
    measure_errors,
    about="The share of wrong labels by origin and class, with confidence intervals.",
    group="release",
    kinds={"scipy"},
    code_version="1",
    reads=["cleaned_images", "consensus_labels", "review_tasks", "reviewed_labels", "certificates"],
)

# The check of error_bars can block the publication.
dataset_version = step(
    publish,
    about="The published version: a git tag, and files to fetch with `dvc pull`.",
    group="release",
    kinds={"dvc", "git"},
    code_version="1",
    reads=["human_labels", "auto_labels"],
    pool="dvc",
)
