"""Whether a merged round may become a version: no review is missing, and the labels pass."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from annotation_platform.curation.training_set import (
    round_digest,
    round_problem,
    usable_imports,
)
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.backends.protocol import Submission
from annotation_platform.labeling.reviews import decisions
from annotation_platform.labeling.round_decisions import cancelled_rounds
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.schema.tables import (
    ConsensusLabels,
    Frame,
    ImportedLabels,
    ReviewedLabels,
    ReviewTasks,
)
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True)
class ReleaseDue:
    """The cause of a release, and the reviews that it waits for.

    Attributes:
        cause: a digest that changes with the merged labels and with the reviewers' decisions.
        waits_for: a sentence without its full stop; empty if no review is missing.
    """

    cause: str
    waits_for: str


def release_due(
    context: RoundContext, review_tasks: Frame[ReviewTasks], submitted: Sequence[Submission]
) -> ReleaseDue:
    """Return the cause of a release of a merged round, and the missing reviews.

    ``submitted`` holds the submissions of its reviewers in the back end.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    decided = decisions(round_id, review_tasks, lake, submitted=submitted)
    asked = int((review_tasks[ReviewTasks.backend] != "").sum())
    waits_for = ""
    if len(decided.reviews) < asked and policy.review.undecided == "wait":
        waits_for = f"{len(decided.reviews)} of {asked} images are reviewed"
    digest = hashlib.sha256(f"{merged_digest(round_id, lake)}{decided.digest}".encode())
    return ReleaseDue(digest.hexdigest(), waits_for)


def merged_digest(round_id: str, lake: Lake) -> str:
    """Return the digest of a merged round's labels and of its review tasks."""
    return round_digest(lake.tables, round_id, of=(ConsensusLabels, ReviewTasks))


def held_back(context: RoundContext) -> str:
    """Return why a merged round may not become a version; empty if it may."""
    round_id, lake, tables = context.round_id, context.lake, context.tables
    ontology = context.policy.ontology
    if cancelled_rounds(lake.store, [round_id]) and not _other_labels(round_id, lake):
        return "it is cancelled, and no other round has labels"
    images = accepted_images(lake.tables)
    return round_problem(tables, round_id, images, ontology, labels_table=ConsensusLabels)


def _other_labels(round_id: str, lake: Lake) -> bool:
    """Return whether another round has labels that count, or there are imported labels."""
    tables = lake.tables
    finished = {key for key in tables.rounds(ReviewedLabels) if key != round_id}
    counting = finished - cancelled_rounds(lake.store, sorted(finished)).keys()
    return bool(counting) or not usable_imports(tables, tables.rounds(ImportedLabels)).empty
