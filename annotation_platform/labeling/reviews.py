"""What a person decides where the answers do not: review tasks and their decisions."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

import pandas as pd

from annotation_platform.consensus.overlap import labels_of
from annotation_platform.errors import NotReadyError
from annotation_platform.governance.audit_log.recording import record_policy, record_reviews
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.annotations import Canvas, Review
from annotation_platform.labeling.assignment_plan import AnnotationRequest, PlacePlan, assign_places
from annotation_platform.labeling.backends.protocol import (
    LabelingBackend,
    Proposal,
    Submission,
    TaskCopy,
)
from annotation_platform.labeling.backends.registry import decode_review
from annotation_platform.labeling.counting import Count, Rules, count_annotations
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger, Revision, as_revision
from annotation_platform.labeling.review_sampling import SAMPLE, review_sample
from annotation_platform.labeling.shown_images import ShownImages
from annotation_platform.labeling.skills import REVIEWER, Skills
from annotation_platform.labeling.snapshots import as_of, review_inputs
from annotation_platform.policy import Policy
from annotation_platform.schema.shapes import NOTHING, STATEMENTS, UNSURE, Label
from annotation_platform.schema.tables import ReviewedLabels, ReviewTasks, records
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.table_files import table_digest


@dataclass(frozen=True)
class Decided:
    """What reviewers said so far, by the image it is about."""

    reviews: dict[str, Review]
    by: dict[str, str]  # pseudonym of the reviewer
    at: dict[str, datetime]
    digest: str

    def without(self, reviewers: Collection[str]) -> "Decided":
        """Return what is decided if the word of these, by pseudonym, does not count."""
        kept = {image for image, name in self.by.items() if name not in reviewers}
        return Decided(
            {image: review for image, review in self.reviews.items() if image in kept},
            {image: name for image, name in self.by.items() if image in kept},
            {image: moment for image, moment in self.at.items() if image in kept},
            self.digest,
        )


def review_round(round_id: str) -> str:
    """Return the name under which back ends and the ledger know the reviews of a round."""
    return f"{round_id}-review"


def ask_reviewers(
    round_id: str,
    consensus: pd.DataFrame,
    conflicts: pd.DataFrame,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    *,
    images: ShownImages,
    now: datetime,
) -> pd.DataFrame:
    """Return the ``review_tasks`` of a round, and put them before reviewers if policy says so.

    Every image with a conflict that no rule settled is one, and so is a random share of the
    others. A reviewer sees the resolved labels and what is in dispute; who answered an image does
    not review it, and once somebody is a reviewer, nobody else reviews. With the gate on ``auto``
    nobody is asked: the tasks are listed all the same.

    Args:
        round_id: the round.
        consensus: its ``consensus_labels``.
        conflicts: its ``conflicts``.
        labeling: where reviewers decide.
        lake: where everything is kept.
        policy: of the moment.
        images: what people see of each image.
        now: the time.

    Raises:
        NotReadyError: something is to be masked, and no model has looked at an image.
        SettingsError: the model that looked does not know what is to be masked.
    """
    reasons = _reasons(round_id, consensus, conflicts, policy)
    if not reasons:
        return ReviewTasks.empty()
    asked: dict[str, str] = {}
    reviewers: dict[str, str] = {}
    if policy.review.gate == "manual":
        shown = images.keys(reasons)
        copies = _copies(round_id, reasons, consensus, labeling, lake, policy, shown, now)
        ontology = read_guideline(lake.store, _guideline(round_id, lake))
        ids = labeling.publish(review_round(round_id), ontology, copies)
        asked = {copy.image_id: ids[copy.task_id, copy.place] for copy in copies}
        reviewers = {copy.image_id: copy.assignee for copy in copies}
    tasks = dict(zip(consensus["image_id"], consensus["task_id"], strict=True))
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "review_id": _review_id(round_id, image),
            "task_id": tasks[image],
            "image_id": image,
            "kinds": _joined(kinds),
            "reasons": "\n".join(line for lines in kinds.values() for line in lines),
            "reviewer": AnnotationsLedger(lake.store).pseudonym(reviewers[image])
            if reviewers.get(image)
            else "",
            "backend": labeling.backend_of(_review_id(round_id, image)) if image in asked else "",
            "backend_task": asked.get(image, ""),
        }
        for image, kinds in sorted(reasons.items())
    ]
    return ReviewTasks.from_rows(rows)


def reviews_due(
    round_id: str, consensus: pd.DataFrame, conflicts: pd.DataFrame, policy: Policy
) -> pd.DataFrame:
    """Return the images of a round that a reviewer has to see: ``image_id`` and ``kinds``."""
    reasons = _reasons(round_id, consensus, conflicts, policy)
    rows = [(image, _joined(kinds)) for image, kinds in sorted(reasons.items())]
    return pd.DataFrame(rows, columns=["image_id", "kinds"], dtype="str")


def _joined(kinds: Iterable[str]) -> str:
    return ", ".join(sorted(kinds))


def submitted_reviews(round_id: str, labeling: LabelingBackend) -> list[Submission]:
    """Return what reviewers of a round submitted, as the back end shows it now."""
    return labeling.collect(review_round(round_id))


def decisions(
    round_id: str, review_tasks: pd.DataFrame, submitted: Sequence[Submission], lake: Lake
) -> Decided:
    """Return what reviewers decided by now, from the ledger and from what they submitted.

    Nothing is written: a sensor's tick may call it. Skips and "unsure" decide nothing, and neither
    does whoever answered the image or was no reviewer.
    """
    asked = review_tasks[review_tasks["backend"] != ""]
    if asked.empty:
        return Decided({}, {}, {}, "")
    ledger = AnnotationsLedger(lake.store).read(review_round(round_id))
    return _decided(round_id, asked, [*ledger, *map(as_revision, submitted)], lake)


def _decided(
    round_id: str, asked: pd.DataFrame, revisions: Iterable[Revision], lake: Lake
) -> Decided:
    if asked.empty:
        return Decided({}, {}, {}, "")
    barred = {_review_id(round_id, image): names for image, names in _authors(round_id, lake)}
    skills = Skills(lake.store)
    plan = PlacePlan(lake.store, review_round(round_id)).read()
    expertise = {place.image_id: place.expertise for place in plan.places}
    tasks = _as_tasks(asked, expertise)
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

    Images that nobody had to look at are ``undisputed``. Those under review are ``accepted`` or
    ``fixed``, which may be published, or ``rejected`` or ``undecided``, which may not.

    Raises:
        NotReadyError: a decision is missing, and policy says to wait for it.
    """
    record_policy(policy, lake, used_for=f"reviewed_labels of {round_id}", now=now)
    AnnotationsLedger(lake.store).append(review_round(round_id), submitted, now=now)
    made_of = review_inputs(
        round_id,
        review_round(round_id),
        lake,
        policy.consensus,
        consensus_labels=consensus,
        review_tasks=review_tasks,
    )
    decided = ledger_decisions(round_id, review_tasks, as_of(lake, made_of))
    missing = sorted(set(review_tasks["image_id"]) - set(decided.reviews))
    if missing and policy.review.gate == "manual" and policy.review.undecided == "wait":
        raise NotReadyError(
            f"{round_id} waits for reviewers: {len(decided.reviews)} of {len(review_tasks)} images"
            " are decided. review_complete_sensor releases it after the last one; with"
            " `review.undecided: hold_out` in params.yaml it goes without them."
        )
    # Whoever decided has decided: where that counts no more, nobody is waited for.
    counting = decided.without(policy.consensus.disregarded)
    labels = reviewed_labels(consensus, review_tasks, counting)
    digest = table_digest(ReviewedLabels, labels)
    lake.tables.lineage.write("reviewed_labels", round_id, digest, made_of)
    record_reviews(round_id, decided, lake, now=now)
    return labels


def ledger_decisions(round_id: str, review_tasks: pd.DataFrame, lake: Lake) -> Decided:
    """Return what reviewers decided by the ledger alone; see ``decisions``."""
    asked = review_tasks[review_tasks["backend"] != ""]
    return _decided(
        round_id, asked, AnnotationsLedger(lake.store).read(review_round(round_id)), lake
    )


def reviewed_labels(
    consensus: pd.DataFrame, review_tasks: pd.DataFrame, decided: Decided
) -> pd.DataFrame:
    """Return the ``reviewed_labels`` of a round: its ``consensus_labels``, as decided."""
    reasons = dict(zip(review_tasks["image_id"], review_tasks["kinds"], strict=True))
    rows: list[dict[str, object]] = []
    by_image = consensus.sort_values("image_id", kind="stable")
    for image, labels in groupby(records(by_image), key=lambda row: str(row["image_id"])):
        rows += _reviewed(list(labels), decided, image, reasons.get(image))
    return ReviewedLabels.from_rows(rows)


def _reasons(
    round_id: str, consensus: pd.DataFrame, conflicts: pd.DataFrame, policy: Policy
) -> dict[str, dict[str, list[str]]]:
    """Return by image and kind what a reviewer has to know."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    unsettled = conflicts[~conflicts["settled"]]
    columns = ["image_id", "kind", "detail"]
    for image, kind, detail in unsettled[columns].itertuples(index=False):
        found[image][kind].append(detail)
    for image in review_sample(round_id, consensus, set(found), policy).sample["item"]:
        found[image][SAMPLE].append("Drawn at random, to see how many labels are wrong.")
    return {image: dict(kinds) for image, kinds in found.items()}


def _copies(
    round_id: str,
    reasons: dict[str, dict[str, list[str]]],
    consensus: pd.DataFrame,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    keys: Mapping[str, str],
    now: datetime,
) -> list[TaskCopy]:
    record = PlacePlan(lake.store, review_round(round_id))
    plan = record.read()
    planned = {place.image_id for place in plan.places}
    reviewers = Skills(lake.store).people(REVIEWER)
    skill = REVIEWER if reviewers else ""
    new = [
        AnnotationRequest(image, 1, "review", skill)
        for image in sorted(reasons)
        if image not in planned
    ]
    if new:
        places = assign_places(
            new,
            reviewers or labeling.annotators(),
            taken=plan.places,
            involved=dict(_authors(round_id, lake)),
            qualified={REVIEWER: set(reviewers)},
            seed=policy.seed,
        )
        plan = record.add(plan, places, guideline=_guideline(round_id, lake), now=now)
    images = _images(lake)
    shown = {str(image): rows for image, rows in consensus.groupby("image_id")}
    return [
        TaskCopy(
            task_id=_review_id(round_id, place.image_id),
            image_id=place.image_id,
            place=1,
            assignee=place.assignee,
            image_key=keys[place.image_id],
            width=images[place.image_id].width,
            height=images[place.image_id].height,
            weights_sha256="consensus",
            proposals=tuple(Proposal(label) for label in _labels(shown[place.image_id])),
            purpose="review",
            expertise=place.expertise,
            note="\n".join(line for lines in reasons[place.image_id].values() for line in lines),
        )
        for place in plan.places
        if place.image_id in reasons
    ]


def _read(round_id: str, count: Count, lake: Lake) -> Decided:
    images = _images(lake)
    ontology = read_guideline(lake.store, _guideline(round_id, lake))
    reviews: dict[str, Review] = {}
    by: dict[str, str] = {}
    at: dict[str, datetime] = {}
    for revision in count.counted.values():
        said = revision.submission
        image = images[said.image_id]
        canvas = Canvas(image.width, image.height, ontology)
        review = decode_review(said.payload, said.proposed, canvas)
        if review is not None:
            reviews[said.image_id] = review
            by[said.image_id] = AnnotationsLedger(lake.store).pseudonym(said.author)
            at[said.image_id] = said.updated_at
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
    # Where nobody could tell there is nothing to accept; what the reviewer left says what is there.
    bare = rows[0]["shape"] == UNSURE.shape and review is not None and review.decision == "accepted"
    if review is not None and (bare or review.decision == "fixed"):
        first = rows[0]
        said = review.labels or [NOTHING]
        names = [f"{image}:{number:04d}" for number in range(len(said))]
        rows = [
            {**first, "label_id": name, **vars(label), "support": 1}
            for name, label in zip(names, said, strict=True)
        ]
    return [{**row, **about} for row in rows]


def _images(lake: Lake) -> dict[str, Any]:
    """Return the rows of all accepted images by id."""
    images = accepted_images(lake.tables).drop_duplicates("image_id")
    columns = images[["image_id", "extension", "width", "height"]]
    return {str(row.image_id): row for row in columns.itertuples(index=False)}


def _labels(rows: pd.DataFrame) -> list[Label]:
    return labels_of(rows[~rows["shape"].isin(STATEMENTS)])


def _authors(round_id: str, lake: Lake) -> list[tuple[str, set[str]]]:
    """Return by image everybody who answered it in this round, counted or not."""
    authors = defaultdict(set)
    for revision in AnnotationsLedger(lake.store).read(round_id):
        authors[revision.submission.image_id].add(revision.submission.author.lower())
    return list(authors.items())


def _as_tasks(review_tasks: pd.DataFrame, expertise: Mapping[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task_id": review_tasks["review_id"],
            "place": 1,
            "stands_for": 1,
            "expertise": review_tasks["image_id"].map(expertise).fillna(""),
        }
    )


def _guideline(round_id: str, lake: Lake) -> str:
    return PlacePlan(lake.store, round_id).read().guideline


def _review_id(round_id: str, image_id: str) -> str:
    return f"{round_id}/review/{image_id}"
