"""The history of one image, from what the lake and the versions say of it.

What is append-only speaks first: manifests and receipts of landing, plans of places, the answers
ledger, the decisions about rounds, and published versions. Cleaning, labels that came along, what
was accepted without a person and the present consensus are only in tables, which say nothing of
when.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.history import Event, in_order
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.errors import DataError
from annotation_platform.governance.erasure.record import Erasures
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.ingestion.quarantine import releases
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.labeling.annotations import Canvas, Review
from annotation_platform.labeling.assignment_plan import Place, PlacePlan
from annotation_platform.labeling.backends.registry import count_regions, decode_review
from annotation_platform.labeling.counting import Annotation, Count, Rules, count_annotations
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger, Revision
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_decisions import Decision, RoundRecord
from annotation_platform.labeling.skills import Skills
from annotation_platform.labeling.tasks import task_name
from annotation_platform.schema.rounds import RELEASED
from annotation_platform.schema.shapes import STATEMENTS
from annotation_platform.schema.tables import (
    Certificates,
    CleanedImages,
    ConsensusLabels,
    ImportedLabels,
    RawImages,
    table_named,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.versioning.contents import VersionedImage

_POLICY = "policy"
_SHORT = 12


@dataclass(frozen=True)
class _Wave:
    asked_at: datetime
    places: list[Place]


@dataclass(frozen=True)
class _Asked:
    """What a round asked about one image, and what it was told."""

    round_id: str
    waves: list[_Wave]
    revisions: list[Revision]
    decisions: list[Decision]

    @property
    def places(self) -> list[Place]:
        return [place for wave in self.waves for place in wave.places]


def find_image(beginning: str, lake: Lake) -> str:
    """Return the id of the one landed image that begins like this; otherwise raise a DataError."""
    ids = lake.tables.read_all(RawImages)["image_id"].dropna()
    found = sorted(set(ids[ids.str.startswith(beginning.lower())])) if beginning else []
    if len(found) == 1:
        return str(found[0])
    erased = Erasures(lake.store).find(beginning.lower())
    if not found and erased is not None:
        raise DataError(f"{beginning}: was {erased.sentence}. Nothing of it is left.")
    if not found:
        raise DataError(
            f'{beginning}: no landed image has this id. `annotation-platform catalog query "SELECT '
            'image_id, source_key FROM raw_images"` lists them.'
        )
    raise DataError(
        f"{beginning}: {len(found)} images begin like this, {found[0]} and {found[1]} among them. "
        "Give more of the id."
    )


def image_history(
    image_id: str, lake: LandingLake, versions: Sequence[VersionedImage]
) -> list[Event]:
    """Return everything that ever happened to an image, in order; whether it may is not asked.

    Times are those of the clocks that wrote them down: of a labelling server for answers, of the
    platform for the rest. People are named by their pseudonyms.

    Args:
        image_id: all 64 digits.
        lake: where everything is kept.
        versions: those that hold it, from ``versioning.contents.versions_with``.
    """
    events = [*_arrival(image_id, lake), *_exports(versions)]
    published = {held.round_id for held in versions if held.origin == PEOPLE}
    taken = {held.round_id for held in versions if held.origin == AUTO}
    for round_id in RoundManifests(lake.store).rounds():
        asked = _asked(round_id, image_id, lake)
        events += _questions(asked, lake)
        events += _annotation_events(asked, image_id, lake)
        events += _endings(asked, image_id, lake)
        events += _accepted(round_id, image_id, lake, is_published=round_id in taken)
        events += _resolved(asked, image_id, lake, is_published=round_id in published)
        events += _reviews(round_id, image_id, lake)
    return in_order(events)


def _arrival(image_id: str, lake: LandingLake) -> Iterator[Event]:
    raw = lake.tables.read_all(RawImages)
    put_back = {one.image_id: one for one in releases(lake.store)}
    for round_id in dict.fromkeys(raw.loc[raw["image_id"] == image_id, "round_id"]):
        rows = raw[(raw["image_id"] == image_id) & (raw["round_id"] == round_id)]
        names = set(zip(rows["source_key"], rows["stamp"], strict=True))
        for landed in RoundManifests(lake.store).read(round_id):
            if (landed.key, landed.stamp) not in names:
                continue
            if landed.stamp.startswith(RELEASED):
                back = put_back[image_id]
                at = datetime.fromisoformat(back.released_at)
                yield Event("landed", at, round_id, "", f"Put back from quarantine: {back.reason}.")
            elif lake.receipts.find(landed) == image_id:
                detail = f"As {landed.key}, {landed.byte_size} bytes."
                yield Event("landed", None, round_id, "", detail)
    yield from _outcomes(image_id, lake)


def _outcomes(image_id: str, lake: Lake) -> Iterator[Event]:
    cleaned = lake.tables.read_all(CleanedImages)
    columns = ["round_id", "outcome", "reason", "duplicate_of", "width", "height", "flags"]
    of_image = cleaned.loc[cleaned["image_id"] == image_id, columns]
    for round_id, outcome, reason, copy_of, width, height, flags in of_image.itertuples(
        index=False
    ):
        if outcome == "accepted":
            noticed = f"; noticed: {flags}" if flags else ""
            yield Event("clean", None, round_id, "", f"{width} × {height} pixels{noticed}.")
        elif outcome == "duplicate":
            same = "itself" if copy_of == image_id else f"{copy_of[:_SHORT]}"
            yield Event("duplicate", None, round_id, "", f"Repeats {same} ({reason}).")
        else:
            yield Event("quarantined", None, round_id, "", f"{reason}.")
    imported = lake.tables.read_all(ImportedLabels)
    usable = imported[(imported["image_id"] == image_id) & (imported["problem"] == "")]
    for (round_id, origin), rows in usable.groupby(["round_id", "origin"]):
        yield Event(
            "imported", None, str(round_id), "", f"{_labels(rows)} came along, from {origin}."
        )


def _asked(round_id: str, image_id: str, lake: Lake) -> _Asked:
    waves = _waves(round_id, image_id, lake)
    # Even of a round that never asked: somebody may have answered what nobody was asked.
    said = AnnotationsLedger(lake.store).read(round_id)
    revisions = [revision for revision in said if revision.submission.image_id == image_id]
    return _Asked(round_id, waves, revisions, RoundRecord(lake.store, round_id).read())


def _waves(round_id: str, image_id: str, lake: Lake) -> list[_Wave]:
    """Return the waves of a round's plan that ask about an image."""
    waves = []
    for asked_at, places in PlacePlan(lake.store, round_id).waves():
        of_image = [place for place in places if place.image_id == image_id]
        if of_image:
            waves.append(_Wave(asked_at, of_image))
    return waves


def _questions(asked: _Asked, lake: Lake) -> Iterator[Event]:
    for wave in asked.waves:
        known = ", its answer being known" if wave.places[0].purpose == "gold" else ""
        meant = [
            f"{place.place} for {AnnotationsLedger(lake.store).pseudonym(place.assignee)}"
            if place.assignee
            else f"{place.place} for anybody"
            for place in wave.places
        ]
        detail = f"Asked of people{known}: place {', '.join(meant)}."
        yield Event("queued", wave.asked_at, asked.round_id, "", detail)


def _annotation_events(asked: _Asked, image_id: str, lake: Lake) -> Iterator[Event]:
    last = asked.decisions[-1] if asked.decisions else None
    entries = last.entries if last is not None and last.action == "closed" else None
    rules = Rules(qualified=Skills(lake.store).had, entries=entries)
    count = count_annotations(
        asked.revisions, _frame([_task(asked, image_id)], asked.places), rules
    )
    is_cancelled = last is not None and last.action == "cancelled"
    for states, annotation in _annotations(asked.revisions, count):
        stands = f"not counted, {annotation.state}: {annotation.detail}"
        if annotation.state == "counted":
            stands = "not counted: the round is cancelled" if is_cancelled else "counted"
        by = AnnotationsLedger(lake.store).pseudonym(states[0].submission.author)
        for number, revision in enumerate(states, start=1):
            said = revision.submission
            of = f", revision {number} of {len(states)}" if len(states) > 1 else ""
            what = "skipped" if said.skipped else _regions(count_regions(said.payload))
            now = stands if number == len(states) else "edited later"
            detail = f"Place {said.place}{of}: {what}; {now}."
            yield Event("answered", said.updated_at, asked.round_id, by, detail)


def _endings(asked: _Asked, image_id: str, lake: Lake) -> Iterator[Event]:
    """Yield what decisions about the round did to an image."""
    is_out = False
    for decision in asked.decisions:
        by = (
            decision.by
            if decision.by == _POLICY
            else AnnotationsLedger(lake.store).pseudonym(decision.by)
        )
        if decision.action == "reopened":
            if is_out:
                detail = f"The round was re-opened: {decision.reason}."
                yield Event("reopened", decision.at, asked.round_id, by, detail)
            is_out = False
            continue
        count = _count_then(asked, image_id, lake, decision)
        is_annotated = _task(asked, image_id) in count.annotated
        if not count.places or (decision.action == "closed" and is_annotated):
            continue
        is_out = True
        state = "left" if decision.action == "closed" else "cancelled"
        filled = f"{len(count.counted)} of {len(count.places)} places answered"
        detail = f"The round was {decision.action} with {filled}: {decision.reason}."
        yield Event(state, decision.at, asked.round_id, by, detail)


def _accepted(round_id: str, image_id: str, lake: Lake, *, is_published: bool) -> Iterator[Event]:
    """Yield that what was proposed became the labels, and no person was asked.

    The table holds what the present certificate accepts. Labels that an earlier one of the round
    accepted are told by the version that holds them.
    """
    rows = _rows(lake, "auto_labels", round_id, image_id)
    if rows.empty and not is_published:
        return
    detail = "A version holds labels accepted without a person; the round accepts them no more."
    if not rows.empty:
        granted = lake.tables.read(Certificates, round_id)
        overall = granted[granted["class_name"] == ""].iloc[0]
        detail = (
            f"{_labels(rows)}: proposal accepted under the certificate of {round_id} (bound "
            f"{overall['bound']:.1%}, {overall['alpha']:.1%} allowed, confidence "
            f"{1 - overall['delta']:.0%})."
        )
    asked_at = PlacePlan(lake.store, round_id).read().asked_at
    yield Event("accepted", None, round_id, "", detail, not_before=asked_at)


def _resolved(asked: _Asked, image_id: str, lake: Lake, *, is_published: bool) -> Iterator[Event]:
    """Yield that the answers became one set of labels.

    The table holds the present ones only. Those of a round that was cancelled or merged anew since
    are told by the version that holds them, if anybody had answered.
    """
    is_cancelled = bool(asked.decisions) and asked.decisions[-1].action == "cancelled"
    labels = lake.tables.read_rounds(ConsensusLabels, [asked.round_id])
    rows = labels[labels["image_id"] == image_id]
    if not rows.empty and not is_cancelled:
        annotations = int(rows["annotations"].iloc[0])
        held = _rows(lake, "review_tasks", asked.round_id, image_id)
        dispute = f"in dispute ({held['kinds'].iloc[0]})" if len(held) else "nothing is in dispute"
        detail = f"{_labels(rows)} from {annotations} answer{'s' * (annotations != 1)}; {dispute}."
        yield Event("consensus", None, asked.round_id, "", detail)
    elif is_published and any(not each.submission.skipped for each in asked.revisions):
        detail = "A version holds these labels; the round has none of the image any more."
        yield Event("consensus", None, asked.round_id, "", detail)


def _reviews(round_id: str, image_id: str, lake: Lake) -> Iterator[Event]:
    asked = _asked(review_round(round_id), image_id, lake)
    if not asked.waves:
        return
    tasks = _rows(lake, "review_tasks", round_id, image_id)
    why = f": {tasks['kinds'].iloc[0]}" if len(tasks) else ""
    for wave in asked.waves:
        whom = wave.places[0].assignee
        meant = (
            AnnotationsLedger(lake.store).pseudonym(whom)
            if whom
            else "anybody who did not answer it"
        )
        yield Event("in review", wave.asked_at, round_id, "", f"Put before {meant}{why}.")
    barred = {
        revision.submission.author.lower()
        for revision in AnnotationsLedger(lake.store).read(round_id)
        if revision.submission.image_id == image_id
    }
    ids = {revision.submission.task_id for revision in asked.revisions}
    rules = Rules(qualified=Skills(lake.store).had, barred=dict.fromkeys(ids, barred))
    count = count_annotations(asked.revisions, _frame(ids, asked.places), rules)
    for states, annotation in _annotations(asked.revisions, count):
        by = AnnotationsLedger(lake.store).pseudonym(states[0].submission.author)
        yield from _looks(round_id, image_id, states, annotation, by, lake)
    reviewed = _rows(lake, "reviewed_labels", round_id, image_id)
    if len(reviewed) and reviewed["decision"].iloc[0] == "undisputed":
        detail = "Nothing is in dispute any more, since the answers were merged anew."
        yield Event("reviewed", None, round_id, "", detail)


def _looks(
    round_id: str,
    image_id: str,
    states: Sequence[Revision],
    annotation: Annotation,
    by: str,
    lake: Lake,
) -> Iterator[Event]:
    """Yield what one person's look at an image under review came to, state by state.

    What decides nothing is an answer like any other, unless it takes a decision back.
    """
    is_decided = False
    for revision in states:
        at = revision.submission.updated_at
        review = _read(round_id, image_id, revision, lake)
        if annotation.state not in ("counted", "skipped"):
            detail = f"A decision that does not stand, {annotation.state}: {annotation.detail}."
            yield Event("answered", at, round_id, by, detail)
        elif review is not None and not revision.submission.skipped:
            is_decided = True
            yield Event("reviewed", at, round_id, by, _decided(review))
        elif is_decided:
            is_decided = False
            yield Event("in review", at, round_id, by, "The decision was taken back.")
        else:
            yield Event("answered", at, round_id, by, "Looked at by a reviewer, nothing decided.")


def _exports(versions: Iterable[VersionedImage]) -> Iterator[Event]:
    for held in versions:
        came_along = f"by labels that came along ({held.origin})"
        source = {PEOPLE: "by people", AUTO: "without a person"}.get(held.origin, came_along)
        number = f"{held.labels} label{'s' * (held.labels != 1)}"
        detail = f"In version {held.version}, split {held.split}: {number} {source}."
        yield Event("exported", held.published_at, held.round_id, "", detail)


def _count_then(asked: _Asked, image_id: str, lake: Lake, decision: Decision) -> Count:
    """Return which answers held the places of an image when a decision was made."""
    known = [revision for revision in asked.revisions if revision.entry <= decision.entries]
    waves = [wave for wave in asked.waves if wave.asked_at <= decision.at]
    places = [place for wave in waves for place in wave.places]
    rules = Rules(qualified=Skills(lake.store).had)
    return count_annotations(known, _frame([_task(asked, image_id)], places), rules)


def _frame(task_ids: Iterable[str], places: Sequence[Place]) -> pd.DataFrame:
    """Return what ``count_annotations`` needs to know of the places of one image."""
    rows = [
        (task_id, place.place, place.stands_for, place.expertise)
        for task_id in task_ids
        for place in places
    ]
    return pd.DataFrame(rows, columns=["task_id", "place", "stands_for", "expertise"])


def _task(asked: _Asked, image_id: str) -> str:
    return task_name(asked.round_id, image_id)


def _annotations(
    revisions: Sequence[Revision], count: Count
) -> Iterator[tuple[list[Revision], Annotation]]:
    """Yield the states of each annotation, first to last, and what became of it."""
    became = {annotation.revision.digest: annotation for annotation in count.annotations}
    of: dict[tuple[str, str, datetime], list[Revision]] = {}
    for revision in revisions:
        said = revision.submission
        # A back end that is set up anew counts from 1 again.
        of.setdefault((said.backend, said.annotation, said.created_at), []).append(revision)
    for states in of.values():
        states.sort(key=lambda item: (item.submission.updated_at, item.digest))
        yield states, became[states[-1].digest]


def _read(round_id: str, image_id: str, revision: Revision, lake: Lake) -> Review | None:
    said = revision.submission
    images = accepted_images(lake.tables)
    image = images[images["image_id"] == image_id].iloc[0]
    ontology = read_guideline(lake.store, PlacePlan(lake.store, round_id).read().guideline)
    canvas = Canvas(int(image["width"]), int(image["height"]), ontology)
    return decode_review(said.payload, said.proposed, canvas)


def _decided(review: Review) -> str:
    comment = " ".join(review.comment.split())
    return (
        f"{review.decision.capitalize()}: {comment}"
        if comment
        else f"{review.decision.capitalize()}."
    )


def _rows(lake: Lake, name: str, round_id: str, image_id: str) -> pd.DataFrame:
    rows = lake.tables.read_rounds(table_named(name), [round_id])
    return rows[rows["image_id"] == image_id]


def _labels(rows: pd.DataFrame) -> str:
    number = int((~rows["shape"].isin(STATEMENTS)).sum())
    return f"{number} label{'s' * (number != 1)}"


def _regions(number: int) -> str:
    return f"{number} region{'s' * (number != 1)}" if number else "nothing here"
