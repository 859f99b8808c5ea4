"""A round of questions from asking to collecting."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pandas as pd

from annotation_platform.consensus.lead import leads
from annotation_platform.errors import NotReadyError
from annotation_platform.governance.audit_log.recording import record_decisions, record_policy
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.annotation_tables import (
    annotations_table,
    human_labels,
    round_tasks,
)
from annotation_platform.labeling.assignment_plan import PlacePlan
from annotation_platform.labeling.backends.protocol import LabelingBackend, Place
from annotation_platform.labeling.counting import (
    Count,
    count_annotations,
    lost_message,
    require_complete,
)
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.round_annotations import (
    RoundAnnotations,
    collect_new,
    counting_rules,
    look_at_annotations,
)
from annotation_platform.labeling.round_decisions import RoundRecord, State
from annotation_platform.labeling.snapshots import annotation_inputs, as_of
from annotation_platform.policy import LabelingPolicy, Policy
from annotation_platform.schema.tables import (
    Annotations,
    Frame,
    HumanLabels,
    LabelTasks,
    RoundTasks,
    table_named,
)
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.table_files import table_digest


@dataclass(frozen=True)
class Standing:
    """How far people are with a round, and what is due.

    ``more`` holds the tasks that need further answers before they lead by enough, and how many;
    ``lost`` the copies that nobody can answer any more, because the back end's task was deleted,
    and ``resend`` whether policy has them made again; ``close`` says why the policy closes the
    round now, and is empty if it does not.
    """

    count: Count
    state: State
    more: dict[str, int]
    close: str
    lost: list[Place] = field(default_factory=list)
    resend: bool = False

    @property
    def asks_again(self) -> bool:
        """Whether people must be asked again: with the copies there are nothing more can come."""
        if self.state != "open":
            return False
        free = len(self.count.places) - len(self.count.counted)
        lost = {self.count.copies[copy] for copy in self.lost}
        used_up = len(self.count.stuck) + len(lost) == free
        further = used_up and bool(self.count.stuck or self.more)
        return further or (self.resend and bool(self.lost))

    @property
    def mergeable(self) -> bool:
        """Whether nothing more is to come."""
        enough = self.count.complete and not self.more
        return enough or self.state != "open" or bool(self.close)

    @property
    def sentence(self) -> str:
        """How far it is, for people."""
        count = self.count
        lost = f" {lost_message(len(self.lost))}" if self.lost else ""
        filled = f"{len(count.counted)} of {len(count.places)} places filled"
        return f"{filled}, {len(count.surplus)} surplus.{lost}"

    @property
    def digest(self) -> str:
        """Changes when the round must be merged anew."""
        return f"{self.count.digest}-{self.state}"


@dataclass(frozen=True)
class CollectedAnnotations:
    """The counted answers of a round, what was left out of them, and how far each task is."""

    labels: Frame[HumanLabels]
    annotations: Frame[Annotations]
    tasks: Frame[RoundTasks]

    @property
    def surplus(self) -> dict[str, int]:
        """Answers kept but not counted, by reason."""
        states = self.annotations["state"]
        return dict(Counter(states[states != "counted"]))

    @property
    def minutes(self) -> float:
        """Time that people spent on all answers, as the back end measured it."""
        return float(self.annotations["lead_time_seconds"].sum()) / 60.0


def stand(
    round_id: str,
    tasks: pd.DataFrame,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    *,
    now: datetime,
) -> Standing:
    """Return how far people are, from the ledger and from what the back end shows now.

    Nothing is written: a sensor's tick may call it.
    """
    seen = look_at_annotations(round_id, tasks, labeling, lake)
    return standing_of(round_id, tasks, seen, labeling, lake, policy, now=now)


def standing_of(
    round_id: str,
    tasks: pd.DataFrame,
    seen: RoundAnnotations,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    *,
    now: datetime,
) -> Standing:
    """Return how far people are, by annotations that were looked at before."""
    record, count = RoundRecord(lake.store, round_id), seen.count
    if record.state != "open":
        return Standing(count, record.state, {}, "")
    more = _more_annotations(round_id, count, tasks, lake, policy.labeling)
    asked_at = PlacePlan(lake.store, round_id).read().asked_at
    close = "" if count.complete and not more else _why_close(count, asked_at, policy, now)
    lost = [] if count.complete else _lost(round_id, count, labeling)
    return Standing(count, "open", more, close, lost, policy.labeling.resend_lost)


def _lost(round_id: str, count: Count, labeling: LabelingBackend) -> list[Place]:
    """Return the copies whose tasks were deleted; none where the back end cannot tell."""
    held = labeling.held_places(round_id)
    return [] if held is None else count.lost(held)


def deadline_passed(round_id: str, lake: Lake, policy: LabelingPolicy, *, now: datetime) -> bool:
    """Return whether a round is past its deadline, cheaply."""
    asked_at = PlacePlan(lake.store, round_id).read().asked_at
    wait = timedelta(hours=policy.deadline_hours)
    return bool(wait) and asked_at is not None and now >= asked_at + wait


def collected_annotations(
    round_id: str,
    tasks: pd.DataFrame,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    *,
    now: datetime,
) -> CollectedAnnotations:
    """Write what people submitted into the ledger and return the round's answers.

    The lineage of the labels is recorded; the caller writes the tables. A round that is past its
    deadline, with enough annotations, is closed here, and that is recorded.

    Raises:
        NotReadyError: an answer is still missing; what came so far is in the ledger all the same.
    """
    record_policy(policy, lake, used_for=f"human_labels of {round_id}", now=now)
    seen = collect_new(round_id, tasks, labeling, lake, now=now)
    standing = standing_of(round_id, tasks, seen, labeling, lake, policy, now=now)
    if not standing.mergeable:
        if not standing.asks_again:
            require_complete(round_id, standing.count, lost=len(standing.lost))
        raise NotReadyError(
            f"{round_id} needs further answers: on {len(standing.more)} tasks people disagree,"
            f" {len(standing.count.stuck)} places were answered by somebody who may not have"
            f" them, and {len(standing.lost)} tasks were deleted. Materialise"
            " label_tasks to ask for them; labeling_complete_sensor does so by"
            " itself."
        )
    if standing.close:
        close_round(round_id, standing.close, "policy", labeling, lake, now=now)
    record_decisions(round_id, lake, now=now)
    made_of = annotation_inputs(round_id, lake, policy.consensus)
    disregarded = policy.consensus.disregarded
    annotations = annotations_as_of(round_id, as_of(lake, made_of), disregarded=disregarded)
    for name, table in (("human_labels", annotations.labels), ("round_tasks", annotations.tasks)):
        lake.tables.lineage.write(name, round_id, table_digest(table_named(name), table), made_of)
    return annotations


def annotations_as_of(
    round_id: str, lake: Lake, *, disregarded: Collection[str] = ()
) -> CollectedAnnotations:
    """Return the answers of a round from what the lake holds alone; nobody is asked.

    Nothing is written. A round that was not closed and lacks an answer is a NotReadyError. Tasks
    that only annotators answered who are ``disregarded``, by pseudonym, are left for others.
    """
    tasks = lake.tables.read(LabelTasks, round_id)
    count = ledger_count(round_id, tasks, lake)
    state = RoundRecord(lake.store, round_id).state
    if state == "open":
        require_complete(round_id, count)
    authors = {annotation.revision.submission.author for annotation in count.annotations}
    pseudonyms = {author: AnnotationsLedger(lake.store).pseudonym(author) for author in authors}
    labels = HumanLabels.empty()
    if state != "cancelled" and not tasks.empty:
        ontology = read_guideline(lake.store, str(tasks["guideline"].iloc[0]))
        images = accepted_images(lake.tables)
        labels = human_labels(round_id, count, tasks, images, ontology, pseudonyms)
    seen = annotations_table(round_id, count, tasks, pseudonyms)
    left = _only_by(disregarded, count, pseudonyms)
    return CollectedAnnotations(
        labels, seen, round_tasks(round_id, count, tasks, state=state, left=left)
    )


def _only_by(disregarded: Collection[str], count: Count, pseudonyms: Mapping[str, str]) -> set[str]:
    """Return the tasks that these annotators answered and nobody else."""
    by: dict[str, set[str]] = defaultdict(set)
    for (task_id, _), revision in count.counted.items():
        by[task_id].add(pseudonyms[revision.submission.author])
    return {task_id for task_id, names in by.items() if names <= set(disregarded)}


def seen_annotations(
    round_id: str, labeling: LabelingBackend, lake: Lake, *, names: bool, now: datetime
) -> pd.DataFrame:
    """Return the ``answers`` table of a round as it stands now; what is new goes into the ledger.

    With ``names`` the annotators are e-mail addresses instead of pseudonyms.
    """
    tasks = lake.tables.read(LabelTasks, round_id)
    fetch_annotations(round_id, labeling, lake, now=now)
    count = ledger_count(round_id, tasks, lake)
    authors = {annotation.revision.submission.author for annotation in count.annotations}
    shown = {
        author: author if names else AnnotationsLedger(lake.store).pseudonym(author)
        for author in authors
    }
    return annotations_table(round_id, count, tasks, shown)


def ledger_count(round_id: str, tasks: pd.DataFrame, lake: Lake) -> Count:
    """Return what became of the answers that the ledger has of a round."""
    return count_annotations(
        AnnotationsLedger(lake.store).read(round_id), tasks, counting_rules(round_id, lake)
    )


def fetch_annotations(
    round_id: str, labeling: LabelingBackend, lake: Lake, *, now: datetime
) -> int:
    """Write what people submitted into the ledger; return how much of it was new."""
    return AnnotationsLedger(lake.store).append(round_id, labeling.collect(round_id), now=now)


def close_round(
    round_id: str, reason: str, by: str, labeling: LabelingBackend, lake: Lake, *, now: datetime
) -> None:
    """Close a round: what people said so far counts, what is missing is left, later is late."""
    fetch_annotations(round_id, labeling, lake, now=now)
    entries = AnnotationsLedger(lake.store).entries(round_id)
    RoundRecord(lake.store, round_id).write(
        "closed", reason=reason, by=by, now=now, entries=entries
    )
    record_decisions(round_id, lake, now=now)


def _more_annotations(
    round_id: str, count: Count, tasks: pd.DataFrame, lake: Lake, policy: LabelingPolicy
) -> dict[str, int]:
    """Return the answered tasks that need further answers to lead by enough, and how many.

    Of a task whose answer is known nobody needs to hear more.
    """
    if not policy.stop_at_lead or not count.annotated:
        return {}
    ontology = read_guideline(lake.store, str(tasks["guideline"].iloc[0]))
    authors = {annotation.revision.submission.author for annotation in count.annotations}
    same = {author: author for author in authors}
    labels = human_labels(round_id, count, tasks, accepted_images(lake.tables), ontology, same)
    labels = labels[labels["purpose"] == "label"]
    places = Counter(task_id for task_id, _ in count.places)
    short = {
        task_id: min(policy.stop_at_lead - lead, policy.most_annotations - places[task_id])
        for task_id, lead in leads(labels).items()
    }
    return {task_id: annotations for task_id, annotations in short.items() if annotations > 0}


def _why_close(count: Count, asked_at: datetime | None, policy: Policy, now: datetime) -> str:
    labeling = policy.labeling
    wait = timedelta(hours=labeling.deadline_hours)
    share = len(count.counted) / max(1, len(count.places))
    if not wait or asked_at is None or now < asked_at + wait or share < labeling.minimum_share:
        return ""
    return f"its {labeling.deadline_hours:g} hours are over and {share:.0%} of the answers are in"
