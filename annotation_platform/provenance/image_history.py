"""The history of one image, from the lake and the published versions.

Most events come from append-only records: arrivals and their receipts, assignment plans, the
annotation ledger, decisions about rounds, and published versions. Cleaning, imported labels,
automatically accepted labels and the present consensus are only in tables, which hold no times.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import pandas as pd

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.history import ImageEvent, in_order
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.ingestion.quarantine import releases
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.labeling.backends.registry import count_regions, decode_review
from annotation_platform.labeling.counting import Annotation
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger, Revision
from annotation_platform.labeling.reviews import review_round
from annotation_platform.provenance.image_tasks import ImageTask
from annotation_platform.schema.annotations import Canvas, Review
from annotation_platform.schema.rounds import RELEASED
from annotation_platform.schema.shapes import STATEMENTS
from annotation_platform.schema.tables import (
    AutoLabels,
    Certificates,
    CleanedImages,
    ConsensusLabels,
    ImportedLabels,
    RawImages,
    ReviewedLabels,
    ReviewTasks,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.versioning.contents import VersionedImage

_POLICY = "policy"
_SHORT = 12


def image_history(
    image_id: str, lake: LandingLake, versions: Sequence[VersionedImage]
) -> list[ImageEvent]:
    """Return all events of an image, in order; their legality is not checked.

    Times are from the clocks that recorded them: the labelling server's for annotations, the
    platform's for other events. People appear under their pseudonyms.

    Args:
        image_id: all 64 digits.
        lake: the lake.
        versions: the versions that hold it, from ``versioning.contents.versions_with``.
    """
    events = [*_arrival(image_id, lake), *_exports(versions)]
    published = {held.round_id for held in versions if held.origin == PEOPLE}
    taken = {held.round_id for held in versions if held.origin == AUTO}
    for round_id in RoundManifests(lake.store).rounds():
        task = ImageTask.read(round_id, image_id, lake)
        events += _assignments(task, lake)
        events += _annotation_events(task, lake)
        events += _endings(task, lake)
        events += _accepted(round_id, image_id, lake, is_published=round_id in taken)
        events += _resolved(task, lake, is_published=round_id in published)
        events += _reviews(round_id, image_id, lake)
    return in_order(events)


def _arrival(image_id: str, lake: LandingLake) -> Iterator[ImageEvent]:
    raw = lake.tables.read_all(RawImages)
    restored = {one.image_id: one for one in releases(lake.store)}
    for round_id in dict.fromkeys(raw.loc[raw[RawImages.image_id] == image_id, RawImages.round_id]):
        rows = raw[(raw[RawImages.image_id] == image_id) & (raw[RawImages.round_id] == round_id)]
        names = set(zip(rows[RawImages.source_key], rows[RawImages.arrival_version], strict=True))
        for landed in RoundManifests(lake.store).read(round_id):
            if (landed.key, landed.stamp) not in names:
                continue
            if landed.stamp.startswith(RELEASED):
                release = restored[image_id]
                at = datetime.fromisoformat(release.released_at)
                detail = f"Restored from quarantine: {release.reason}."
                yield ImageEvent("landed", at, round_id, "", detail)
            elif lake.receipts.find(landed) == image_id:
                detail = f"As {landed.key}, {landed.byte_size} bytes."
                yield ImageEvent("landed", None, round_id, "", detail)
    yield from _outcomes(image_id, lake)


def _outcomes(image_id: str, lake: Lake) -> Iterator[ImageEvent]:
    cleaned = lake.tables.read_all(CleanedImages)
    columns = ["round_id", "outcome", "reason", "duplicate_of", "width", "height", "flags"]
    of_image = cleaned.loc[cleaned[CleanedImages.image_id] == image_id, columns]
    for round_id, outcome, reason, copy_of, width, height, flags in of_image.itertuples(
        index=False
    ):
        if outcome == "accepted":
            flagged = f"; flags: {flags}" if flags else ""
            yield ImageEvent("clean", None, round_id, "", f"{width} × {height} pixels{flagged}.")
        elif outcome == "duplicate":
            original = "itself" if copy_of == image_id else f"{copy_of[:_SHORT]}"
            yield ImageEvent(
                "duplicate", None, round_id, "", f"Duplicate of {original} ({reason})."
            )
        else:
            yield ImageEvent("quarantined", None, round_id, "", f"{reason}.")
    imported = lake.tables.read_all(ImportedLabels)
    usable = imported[
        (imported[ImportedLabels.image_id] == image_id) & (imported[ImportedLabels.problem] == "")
    ]
    for (round_id, origin), rows in usable.groupby(["round_id", "origin"]):
        yield ImageEvent(
            "imported", None, str(round_id), "", f"{_labels(rows)} imported from {origin}."
        )


def _assignments(task: ImageTask, lake: Lake) -> Iterator[ImageEvent]:
    for batch in task.batches:
        known = " as a gold task" if batch.assignments[0].purpose == "gold" else ""
        assignees = [
            f"{one.assignment} for "
            + (pseudonym_of(lake.store, one.assignee) if one.assignee else "any annotator")
            for one in batch.assignments
        ]
        detail = f"Assigned{known}: assignment {', '.join(assignees)}."
        yield ImageEvent("queued", batch.asked_at, task.round_id, "", detail)


def _annotation_events(task: ImageTask, lake: Lake) -> Iterator[ImageEvent]:
    is_cancelled = bool(task.decisions) and task.decisions[-1].action == "cancelled"
    for states, annotation in task.annotations(task.count()):
        status = f"not counted, {annotation.state}: {annotation.detail}"
        if annotation.state == "counted":
            status = "not counted: the round is cancelled" if is_cancelled else "counted"
        by = pseudonym_of(lake.store, states[0].submission.author)
        for number, revision in enumerate(states, start=1):
            submission = revision.submission
            of = f", revision {number} of {len(states)}" if len(states) > 1 else ""
            content = (
                "skipped" if submission.skipped else _regions(count_regions(submission.payload))
            )
            now = status if number == len(states) else "edited later"
            detail = f"Assignment {submission.assignment}{of}: {content}; {now}."
            yield ImageEvent("annotated", submission.updated_at, task.round_id, by, detail)


def _endings(task: ImageTask, lake: Lake) -> Iterator[ImageEvent]:
    """Yield the effects of decisions about the round on an image."""
    is_out = False
    for decision in task.decisions:
        by = decision.by if decision.by == _POLICY else pseudonym_of(lake.store, decision.by)
        if decision.action == "reopened":
            if is_out:
                detail = f"The round was re-opened: {decision.reason}."
                yield ImageEvent("reopened", decision.at, task.round_id, by, detail)
            is_out = False
            continue
        count = task.count_then(decision)
        is_annotated = task.task_id in count.annotated
        if not count.assignments or (decision.action == "closed" and is_annotated):
            continue
        is_out = True
        state = "abandoned" if decision.action == "closed" else "cancelled"
        filled = f"{len(count.counted)} of {len(count.assignments)} assignments annotated"
        detail = f"The round was {decision.action} with {filled}: {decision.reason}."
        yield ImageEvent(state, decision.at, task.round_id, by, detail)


def _accepted(
    round_id: str, image_id: str, lake: Lake, *, is_published: bool
) -> Iterator[ImageEvent]:
    """Yield that predictions became the labels without an annotator.

    The table holds the labels that the present certificate accepts. Labels that an earlier
    certificate of the round accepted are known from the version that holds them.
    """
    rows = _rows(lake, AutoLabels, round_id, image_id)
    if rows.empty and not is_published:
        return
    detail = "A version holds automatically accepted labels; the round no longer accepts them."
    if not rows.empty:
        granted = lake.tables.read(Certificates, round_id)
        overall = granted[granted[Certificates.class_name] == ""].iloc[0]
        detail = (
            f"{_labels(rows)}: predictions accepted under the certificate of {round_id} (bound "
            f"{overall[Certificates.bound]:.1%}, {overall[Certificates.alpha]:.1%} allowed, "
            f"confidence {1 - overall[Certificates.delta]:.0%})."
        )
    asked_at = AssignmentPlan(lake.store, round_id).read().asked_at
    yield ImageEvent("accepted", None, round_id, "", detail, not_before=asked_at)


def _resolved(task: ImageTask, lake: Lake, *, is_published: bool) -> Iterator[ImageEvent]:
    """Yield that the annotations became one set of labels.

    The table holds the present labels only. Labels of a round that was cancelled or merged again
    are known from the version that holds them, if the image had annotations.
    """
    is_cancelled = bool(task.decisions) and task.decisions[-1].action == "cancelled"
    rows = _rows(lake, ConsensusLabels, task.round_id, task.image_id)
    if not rows.empty and not is_cancelled:
        annotations = int(rows[ConsensusLabels.annotations].iloc[0])
        held = _rows(lake, ReviewTasks, task.round_id, task.image_id)
        dispute = f"in dispute ({held[ReviewTasks.kinds].iloc[0]})" if len(held) else "undisputed"
        detail = (
            f"{_labels(rows)} from {annotations} annotation{'s' * (annotations != 1)}; {dispute}."
        )
        yield ImageEvent("consensus", None, task.round_id, "", detail)
    elif is_published and any(not each.submission.skipped for each in task.revisions):
        detail = "A version holds these labels; the round no longer has labels of the image."
        yield ImageEvent("consensus", None, task.round_id, "", detail)


def _reviews(round_id: str, image_id: str, lake: Lake) -> Iterator[ImageEvent]:
    task = ImageTask.read(review_round(round_id), image_id, lake)
    if not task.batches:
        return
    tasks = _rows(lake, ReviewTasks, round_id, image_id)
    why = f": {tasks[ReviewTasks.kinds].iloc[0]}" if len(tasks) else ""
    for batch in task.batches:
        assignee = batch.assignments[0].assignee
        reviewer = (
            pseudonym_of(lake.store, assignee)
            if assignee
            else "any reviewer who did not annotate it"
        )
        yield ImageEvent("in review", batch.asked_at, round_id, "", f"Assigned to {reviewer}{why}.")
    authors = {
        revision.submission.author.lower()
        for revision in AnnotationsLedger(lake.store).read(round_id)
        if revision.submission.image_id == image_id
    }
    for states, annotation in task.annotations(task.count_reviews(authors)):
        by = pseudonym_of(lake.store, states[0].submission.author)
        yield from _review_events(round_id, image_id, states, annotation, by, lake)
    reviewed = _rows(lake, ReviewedLabels, round_id, image_id)
    if len(reviewed) and reviewed[ReviewedLabels.decision].iloc[0] == "undisputed":
        detail = "No longer in dispute, since the annotations were merged again."
        yield ImageEvent("reviewed", None, round_id, "", detail)


def _review_events(
    round_id: str,
    image_id: str,
    states: Sequence[Revision],
    annotation: Annotation,
    by: str,
    lake: Lake,
) -> Iterator[ImageEvent]:
    """Yield the events of one reviewer's annotation, state by state.

    A state without a decision is an ordinary annotation, unless it withdraws a decision.
    """
    is_decided = False
    for revision in states:
        at = revision.submission.updated_at
        review = _read(round_id, image_id, revision, lake)
        if annotation.state not in ("counted", "skipped"):
            detail = f"A decision that is not counted, {annotation.state}: {annotation.detail}."
            yield ImageEvent("annotated", at, round_id, by, detail)
        elif review is not None and not revision.submission.skipped:
            is_decided = True
            yield ImageEvent("reviewed", at, round_id, by, _decided(review))
        elif is_decided:
            is_decided = False
            yield ImageEvent("in review", at, round_id, by, "The decision was withdrawn.")
        else:
            yield ImageEvent(
                "annotated", at, round_id, by, "Opened by a reviewer without a decision."
            )


def _exports(versions: Iterable[VersionedImage]) -> Iterator[ImageEvent]:
    for held in versions:
        imported = f"imported ({held.origin})"
        source = {PEOPLE: "by annotators", AUTO: "accepted automatically"}.get(
            held.origin, imported
        )
        number = f"{held.labels} label{'s' * (held.labels != 1)}"
        detail = f"In version {held.version}, split {held.split}: {number} {source}."
        yield ImageEvent("exported", held.published_at, held.round_id, "", detail)


def _read(round_id: str, image_id: str, revision: Revision, lake: Lake) -> Review | None:
    submission = revision.submission
    images = accepted_images(lake.tables)
    image = images[images[CleanedImages.image_id] == image_id].iloc[0]
    ontology = read_guideline(lake.store, AssignmentPlan(lake.store, round_id).read().guideline)
    canvas = Canvas(int(image[CleanedImages.width]), int(image[CleanedImages.height]), ontology)
    return decode_review(submission.payload, submission.pre_annotations, canvas)


def _decided(review: Review) -> str:
    comment = " ".join(review.comment.split())
    decision = review.decision.capitalize()
    return f"{decision}: {comment}" if comment else f"{decision}."


def _rows(
    lake: Lake,
    table: type[AutoLabels | ConsensusLabels | ReviewTasks | ReviewedLabels],
    round_id: str,
    image_id: str,
) -> pd.DataFrame:
    rows = lake.tables.read_rounds(table, [round_id])
    return rows[rows[table.image_id] == image_id]


def _labels(rows: pd.DataFrame) -> str:
    number = int((~rows[ConsensusLabels.shape].isin(STATEMENTS)).sum())
    return f"{number} label{'s' * (number != 1)}"


def _regions(number: int) -> str:
    return f"{number} region{'s' * (number != 1)}" if number else "no regions"
