"""Review tasks of a round, and the decisions of reviewers."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Any

import pandas as pd

from annotation_platform.audit_log.recording import record_policy
from annotation_platform.errors import NotReadyError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.assignment_plan import (
    AnnotationRequest,
    AssignmentPlan,
    Plan,
    plan_assignments,
)
from annotation_platform.labeling.backends.protocol import Replica, Submission
from annotation_platform.labeling.backends.registry import decode_review
from annotation_platform.labeling.context import LabelingContext
from annotation_platform.labeling.counting import Count, Rules, count_annotations
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger, as_revision
from annotation_platform.labeling.review_decisions import Decided, record_reviews
from annotation_platform.labeling.review_sampling import SAMPLE, review_sample
from annotation_platform.labeling.shown_images import ShownImages
from annotation_platform.labeling.skills import REVIEWER, Skills
from annotation_platform.labeling.snapshots import as_of, review_inputs
from annotation_platform.policy import Policy
from annotation_platform.schema.annotations import Canvas, PreAnnotation, Review
from annotation_platform.schema.shapes import NOTHING, STATEMENTS, UNSURE
from annotation_platform.schema.shapes.overlap import labels_of
from annotation_platform.schema.tables import (
    CleanedImages,
    Conflicts,
    ConsensusLabels,
    ReviewedLabels,
    ReviewTasks,
    records,
)
from annotation_platform.schema.tables.shared import NO_EXTRAS
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.storage.table_files import table_digest


def review_round(round_id: str) -> str:
    """Return the name of a round's reviews in back ends and in the ledger."""
    return f"{round_id}-review"


def ask_reviewers(
    context: LabelingContext,
    consensus: pd.DataFrame,
    conflicts: pd.DataFrame,
    *,
    images: ShownImages,
) -> pd.DataFrame:
    """Return the ``review_tasks`` of a round, and publish them if the policy requires reviews.

    Every image with an unsettled conflict has a review task, and so has a random sample of the
    others. A reviewer sees the resolved labels and the conflicts. People do not review images
    that they annotated; once there are reviewers, only they review. With ``review.gate: auto``
    the tasks are listed and not published.

    Args:
        context: the round, its back end, lake, policy and time.
        consensus: its ``consensus_labels``.
        conflicts: its ``conflicts``.
        images: the images as reviewers see them.

    Raises:
        NotReadyError: classes are to be masked, and an image has no predictions.
        SettingsError: the model that predicted does not know a masked class.
    """
    round_id, lake, labeling = context.round_id, context.lake, context.labeling
    reasons = _reasons(round_id, consensus, conflicts, context.policy)
    if not reasons:
        return ReviewTasks.empty()
    backend_tasks: dict[str, str] = {}
    reviewers: dict[str, str] = {}
    if context.policy.review.gate == "manual":
        replicas = _replicas(context, reasons, consensus, images.keys(reasons))
        ontology = read_guideline(lake.store, _guideline(round_id, lake))
        ids = labeling.publish(review_round(round_id), ontology, replicas)
        backend_tasks = {replica.image_id: ids[replica.key] for replica in replicas}
        reviewers = {replica.image_id: replica.assignee for replica in replicas}
    images_of = consensus[ConsensusLabels.image_id]
    tasks = dict(zip(images_of, consensus[ConsensusLabels.task_id], strict=True))
    pseudonym = partial(pseudonym_of, lake.store)
    rows: list[dict[str, object]] = []
    for image, kinds in sorted(reasons.items()):
        review_id, reviewer = _review_id(round_id, image), reviewers.get(image)
        row = {
            "round_id": round_id,
            "review_id": review_id,
            "task_id": tasks[image],
            "image_id": image,
            "kinds": _joined(kinds),
            "reasons": _lines(kinds),
            "reviewer": pseudonym(reviewer) if reviewer else "",
            "backend": labeling.backend_of(review_id) if image in backend_tasks else "",
            "backend_task": backend_tasks.get(image, ""),
        }
        rows.append(row)
    return ReviewTasks.from_rows(rows)


def reviews_due(
    round_id: str, consensus: pd.DataFrame, conflicts: pd.DataFrame, policy: Policy
) -> pd.DataFrame:
    """Return the images of a round that need a review: ``image_id`` and ``kinds``."""
    reasons = _reasons(round_id, consensus, conflicts, policy)
    rows = [(image, _joined(kinds)) for image, kinds in sorted(reasons.items())]
    return pd.DataFrame(rows, columns=["image_id", "kinds"], dtype="str")


def _joined(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(kinds))


def decisions(
    round_id: str, review_tasks: pd.DataFrame, lake: Lake, *, submitted: Sequence[Submission] = ()
) -> Decided:
    """Return the decisions of reviewers so far, from the ledger and from ``submitted``.

    Nothing is written: a sensor's tick may call it. Skips and "unsure" decide nothing, and neither
    do reviews by an annotator of the image or by people who were no reviewers.
    """
    published = review_tasks[review_tasks[ReviewTasks.backend] != ""]
    if published.empty:
        return Decided({}, {}, {}, "")
    ledger = AnnotationsLedger(lake.store).read(review_round(round_id))
    revisions = [*ledger, *map(as_revision, submitted)]
    barred = {_review_id(round_id, image): names for image, names in _authors(round_id, lake)}
    skills = Skills(lake.store)
    plan = AssignmentPlan(lake.store, review_round(round_id)).read()
    expertise = {assignment.image_id: assignment.expertise for assignment in plan.assignments}
    tasks = _as_tasks(published, expertise)
    count = count_annotations(revisions, tasks, Rules(qualified=skills.had, barred=barred))
    return _read(round_id, count, lake)


def decide(
    round_id: str,
    consensus: pd.DataFrame,
    review_tasks: pd.DataFrame,
    submitted: Sequence[Submission],
    lake: Lake,
    policy: Policy,
    *,
    now: datetime,
) -> pd.DataFrame:
    """Write reviewers' decisions into the ledger and return the ``reviewed_labels`` of a round.

    Images without a review task are ``undisputed``. Those under review are ``accepted`` or
    ``fixed``, which may be published, or ``rejected`` or ``undecided``, which may not.

    Raises:
        NotReadyError: a decision is missing, and the policy waits for it.
    """
    record_policy(policy, lake, used_for=f"reviewed_labels of {round_id}", now=now)
    AnnotationsLedger(lake.store).append(review_round(round_id), submitted, now=now)
    inputs = review_inputs(
        round_id,
        review_round(round_id),
        lake,
        policy.consensus,
        consensus_labels=consensus,
        review_tasks=review_tasks,
    )
    decided = decisions(round_id, review_tasks, as_of(lake, inputs))
    missing = sorted(set(review_tasks[ReviewTasks.image_id]) - set(decided.reviews))
    if missing and policy.review.gate == "manual" and policy.review.undecided == "wait":
        raise NotReadyError(
            f"{round_id} waits for reviewers: {len(decided.reviews)} of {len(review_tasks)} images"
            " are decided. review_complete_sensor releases it after the last one; with"
            " `review.undecided: hold_out` in params.yaml the release leaves undecided images out."
        )
    # Disregarded reviews count as made above, so the round does not wait for another one.
    counting = decided.without(policy.consensus.disregarded)
    labels = reviewed_labels(consensus, review_tasks, counting)
    digest = table_digest(ReviewedLabels, labels)
    lake.tables.lineage.write("reviewed_labels", round_id, digest, inputs)
    record_reviews(round_id, decided, lake, now=now)
    return labels


def reviewed_labels(
    consensus: pd.DataFrame, review_tasks: pd.DataFrame, decided: Decided
) -> pd.DataFrame:
    """Return the ``reviewed_labels`` of a round: its ``consensus_labels`` after the decisions."""
    reasons = dict(
        zip(review_tasks[ReviewTasks.image_id], review_tasks[ReviewTasks.kinds], strict=True)
    )
    rows: list[dict[str, object]] = []
    by_image = consensus.sort_values("image_id", kind="stable")
    for image, labels in groupby(records(by_image), key=lambda row: str(row["image_id"])):
        rows += _reviewed(list(labels), decided, image, reasons.get(image))
    return ReviewedLabels.from_rows(rows)


def _reasons(
    round_id: str, consensus: pd.DataFrame, conflicts: pd.DataFrame, policy: Policy
) -> dict[str, dict[str, list[str]]]:
    """Return the reasons for a review, by image and kind of conflict."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    unsettled = conflicts[~conflicts[Conflicts.settled]]
    columns = [Conflicts.image_id, Conflicts.kind, Conflicts.detail]
    for image, kind, detail in unsettled[columns].itertuples(index=False):
        found[image][kind].append(detail)
    for image in review_sample(round_id, consensus, set(found), policy).sample["item"]:
        found[image][SAMPLE].append("Drawn at random, to see how many labels are wrong.")
    return {image: dict(kinds) for image, kinds in found.items()}


def _lines(kinds: Mapping[str, Sequence[str]]) -> str:
    return "\n".join(line for lines in kinds.values() for line in lines)


def _replicas(
    context: LabelingContext,
    reasons: dict[str, dict[str, list[str]]],
    consensus: pd.DataFrame,
    keys: Mapping[str, str],
) -> list[Replica]:
    """Return the replica of each image under review, after planning the new ones."""
    round_id, lake = context.round_id, context.lake
    plan = _planned(context, reasons)
    images = _images(lake)
    drawn = consensus[~consensus[ConsensusLabels.shape].isin(STATEMENTS)]
    by_image = drawn.groupby(ConsensusLabels.image_id)
    shown = {str(image): labels_of(rows) for image, rows in by_image}
    return [
        Replica(
            task_id=_review_id(round_id, each.image_id),
            image_id=each.image_id,
            assignment=1,
            assignee=each.assignee,
            image_key=keys[each.image_id],
            width=images[each.image_id].width,
            height=images[each.image_id].height,
            weights_sha256="consensus",
            pre_annotations=tuple(map(PreAnnotation, shown.get(each.image_id, ()))),
            purpose="review",
            expertise=each.expertise,
            note=_lines(reasons[each.image_id]),
        )
        for each in plan.assignments
        if each.image_id in reasons
    ]


def _planned(context: LabelingContext, reasons: Collection[str]) -> Plan:
    """Return the review plan of a round, with an assignment for each of these images."""
    round_id, lake = context.round_id, context.lake
    record = AssignmentPlan(lake.store, review_round(round_id))
    plan = record.read()
    planned = {assignment.image_id for assignment in plan.assignments}
    reviewers = Skills(lake.store).people(REVIEWER)
    skill = REVIEWER if reviewers else ""
    requests = [
        AnnotationRequest(image, 1, "review", skill)
        for image in sorted(reasons)
        if image not in planned
    ]
    if not requests:
        return plan
    assignments = plan_assignments(
        requests,
        reviewers or context.labeling.annotators(),
        taken=plan.assignments,
        involved=dict(_authors(round_id, lake)),
        qualified={REVIEWER: set(reviewers)},
        seed=context.policy.seed,
    )
    guideline = _guideline(round_id, lake)
    return record.add(plan, assignments, guideline=guideline, now=context.now)


def _read(round_id: str, count: Count, lake: Lake) -> Decided:
    images = _images(lake)
    ontology = read_guideline(lake.store, _guideline(round_id, lake))
    reviews: dict[str, Review] = {}
    by: dict[str, str] = {}
    at: dict[str, datetime] = {}
    for revision in count.counted.values():
        submission = revision.submission
        image = images[submission.image_id]
        canvas = Canvas(image.width, image.height, ontology)
        review = decode_review(submission.payload, submission.pre_annotations, canvas)
        if review is not None:
            reviews[submission.image_id] = review
            by[submission.image_id] = pseudonym_of(lake.store, submission.author)
            at[submission.image_id] = submission.updated_at
    return Decided(reviews, by, at, count.digest)


def _reviewed(
    rows: list[dict[str, object]], decided: Decided, image: str, kinds: str | None
) -> list[dict[str, object]]:
    review = decided.reviews.get(image)
    about = {
        "decision": "undisputed",
        "decided_by": decided.by.get(image, ""),
        "comment": "",
        "decided_at": decided.at.get(image),
    }
    if kinds is not None:
        about["decision"] = review.decision if review else "undecided"
        about["comment"] = review.comment if review else f"in dispute: {kinds}"
    # An unsure consensus has no labels to accept: the reviewer's own labels are the result.
    bare = rows[0]["shape"] == UNSURE.shape and review is not None and review.decision == "accepted"
    if review is not None and (bare or review.decision == "fixed"):
        final = review.labels or [NOTHING]
        names = [f"{image}:{number:04d}" for number in range(len(final))]
        rows = [
            {**rows[0], "label_id": name, **vars(label), **NO_EXTRAS, "support": 1}
            for name, label in zip(names, final, strict=True)
        ]
    return [{**row, **about} for row in rows]


def _images(lake: Lake) -> dict[str, Any]:
    """Return the rows of all accepted images by id."""
    images = accepted_images(lake.tables).drop_duplicates(CleanedImages.image_id)
    columns = images[[CleanedImages.image_id, CleanedImages.width, CleanedImages.height]]
    return {str(row.image_id): row for row in columns.itertuples(index=False)}


def _authors(round_id: str, lake: Lake) -> list[tuple[str, set[str]]]:
    """Return by image the annotators of this round, counted or not."""
    authors = defaultdict(set)
    for revision in AnnotationsLedger(lake.store).read(round_id):
        authors[revision.submission.image_id].add(revision.submission.author.lower())
    return list(authors.items())


def _as_tasks(review_tasks: pd.DataFrame, expertise: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task_id": review_tasks[ReviewTasks.review_id],
            "assignment": 1,
            "fills_assignment": 1,
            "expertise": review_tasks[ReviewTasks.image_id].map(expertise).fillna(""),
        }
    )


def _guideline(round_id: str, lake: Lake) -> str:
    return AssignmentPlan(lake.store, round_id).read().guideline


def _review_id(round_id: str, image_id: str) -> str:
    return f"{round_id}/review/{image_id}"
