"""The progress of a round, and collecting its annotations."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pandas as pd

from annotation_platform.audit_log.recording import record_policy
from annotation_platform.consensus.vote_margin import vote_margins
from annotation_platform.errors import NotReadyError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.annotation_tables import (
    annotations_table,
    human_labels,
    round_tasks,
)
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.labeling.backends.protocol import AssignmentKey, LabelingBackend
from annotation_platform.labeling.counting import Count, lost_message, require_complete
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger, as_revision
from annotation_platform.labeling.round_annotations import ledger_count
from annotation_platform.labeling.round_decisions import (
    Action,
    RoundRecord,
    State,
    record_decisions,
)
from annotation_platform.labeling.snapshots import annotation_inputs, as_of
from annotation_platform.policy import LabelingPolicy, Policy
from annotation_platform.schema.tables import (
    Annotations,
    Frame,
    HumanLabels,
    LabelTasks,
    RoundTasks,
)
from annotation_platform.schema.tables.shared import AnnotationState, Purpose
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.storage.table_files import table_digest


@dataclass(frozen=True)
class RoundProgress:
    """How complete a round is, and what it needs next.

    Attributes:
        count: its annotations, counted and not counted.
        state: open, closed or cancelled.
        more: by task, the further annotations needed to reach the vote margin.
        close: why the policy closes the round now; empty if it does not.
        lost: replicas whose tasks were deleted in the back end.
        resend: whether the policy creates lost tasks again.
    """

    count: Count
    state: State
    more: dict[str, int]
    close: str
    lost: list[AssignmentKey] = field(default_factory=list)
    resend: bool = False

    @property
    def asks_again(self) -> bool:
        """Whether further assignments are needed: no replica can receive an annotation now."""
        if self.state != "open":
            return False
        free = len(self.count.assignments) - len(self.count.counted)
        lost = {self.count.replicas[replica] for replica in self.lost}
        used_up = len(self.count.used_up) + len(lost) == free
        further = used_up and bool(self.count.used_up or self.more)
        return further or (self.resend and bool(self.lost))

    @property
    def mergeable(self) -> bool:
        """Whether no further annotation is expected."""
        enough = self.count.complete and not self.more
        return enough or self.state != "open" or bool(self.close)

    @property
    def sentence(self) -> str:
        """The progress as a sentence."""
        count = self.count
        lost = f" {lost_message(len(self.lost))}" if self.lost else ""
        filled = f"{len(count.counted)} of {len(count.assignments)} assignments filled"
        return f"{filled}, {len(count.not_counted)} annotations not counted.{lost}"

    @property
    def digest(self) -> str:
        """A text that changes when the round must be merged again."""
        return f"{self.count.digest}-{self.state}"


@dataclass(frozen=True)
class CollectedAnnotations:
    """The labels of a round, all its annotations, and the progress of each task."""

    labels: Frame[HumanLabels]
    annotations: Frame[Annotations]
    tasks: Frame[RoundTasks]

    @property
    def not_counted(self) -> dict[str, int]:
        """The number of annotations that do not count, by reason."""
        states = self.annotations[Annotations.state]
        return dict(Counter(states[states != AnnotationState.COUNTED]))

    @property
    def minutes(self) -> float:
        """The time spent on all annotations in minutes, as the back end measured it."""
        return float(self.annotations[Annotations.lead_time_seconds].sum()) / 60.0


def round_progress(
    round_id: str,
    tasks: pd.DataFrame,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    *,
    now: datetime,
) -> RoundProgress:
    """Return the progress of a round from the ledger and the back end's current annotations.

    Nothing is written: a sensor's tick may call it.
    """
    live = [as_revision(each) for each in labeling.collect(round_id)]
    count = ledger_count(round_id, tasks, lake, also=live)
    return progress_of(round_id, tasks, count, labeling, lake, policy, now=now)


def progress_of(
    round_id: str,
    tasks: pd.DataFrame,
    count: Count,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    *,
    now: datetime,
) -> RoundProgress:
    """Return the progress of a round from annotations that were collected before."""
    record = RoundRecord(lake.store, round_id)
    if record.state != "open":
        return RoundProgress(count, record.state, {}, "")
    more = _more_annotations(round_id, count, tasks, lake, policy.labeling)
    asked_at = AssignmentPlan(lake.store, round_id).read().asked_at
    close = "" if count.complete and not more else _why_close(count, asked_at, policy, now)
    lost = [] if count.complete else _lost(round_id, count, labeling)
    return RoundProgress(count, "open", more, close, lost, policy.labeling.republish_deleted)


def _lost(round_id: str, count: Count, labeling: LabelingBackend) -> list[AssignmentKey]:
    """Return the replicas with deleted tasks; none where the back end cannot tell."""
    held = labeling.held_assignments(round_id)
    return [] if held is None else count.lost(held)


def deadline_passed(round_id: str, lake: Lake, policy: LabelingPolicy, *, now: datetime) -> bool:
    """Return whether a round is past its deadline; reads only its plan."""
    asked_at = AssignmentPlan(lake.store, round_id).read().asked_at
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
    """Write the submissions of a round into the ledger and return its annotations.

    The lineage of the labels is recorded; the caller writes the tables. A round that is past its
    deadline, with enough annotations, is closed here, and the decision is recorded.

    Raises:
        NotReadyError: an annotation is missing; the submissions so far are in the ledger.
    """
    record_policy(policy, lake, used_for=f"human_labels of {round_id}", now=now)
    # Only annotations in the ledger count.
    fetch_annotations(round_id, labeling, lake, now=now)
    count = ledger_count(round_id, tasks, lake)
    progress = progress_of(round_id, tasks, count, labeling, lake, policy, now=now)
    if not progress.mergeable:
        if not progress.asks_again:
            require_complete(round_id, progress.count, lost=len(progress.lost))
        raise NotReadyError(
            f"{round_id} needs further annotations: annotators disagree on {len(progress.more)}"
            f" tasks, {len(progress.count.used_up)} assignments hold only annotations that do not"
            f" count, and {len(progress.lost)} tasks were deleted. Materialise label_tasks to"
            " publish further tasks; labeling_complete_sensor does so by itself."
        )
    if progress.close:
        close_round(round_id, progress.close, "policy", labeling, lake, now=now)
    record_decisions(round_id, lake, now=now)
    inputs = annotation_inputs(round_id, lake, policy.consensus)
    disregarded = policy.consensus.disregarded
    annotations = annotations_as_of(round_id, as_of(lake, inputs), disregarded=disregarded)
    made = ((HumanLabels, annotations.labels), (RoundTasks, annotations.tasks))
    for table, frame in made:
        lake.tables.lineage.write(table.table_name, round_id, table_digest(table, frame), inputs)
    return annotations


def annotations_as_of(
    round_id: str, lake: Lake, *, disregarded: Collection[str] = ()
) -> CollectedAnnotations:
    """Return the annotations of a round from the lake alone, without the back end.

    Nothing is written. Tasks annotated by ``disregarded`` annotators (pseudonyms) only have the
    state ``left``.

    Raises:
        NotReadyError: the round is open and an annotation is missing.
    """
    tasks = lake.tables.read(LabelTasks, round_id)
    count = ledger_count(round_id, tasks, lake)
    state = RoundRecord(lake.store, round_id).state
    if state == "open":
        require_complete(round_id, count)
    authors = {annotation.revision.submission.author for annotation in count.annotations}
    pseudonyms = {author: pseudonym_of(lake.store, author) for author in authors}
    labels = HumanLabels.empty()
    if state != "cancelled" and not tasks.empty:
        ontology = read_guideline(lake.store, str(tasks[LabelTasks.guideline].iloc[0]))
        images = accepted_images(lake.tables)
        labels = human_labels(round_id, count, tasks, images, ontology, pseudonyms)
    seen = annotations_table(round_id, count, tasks, pseudonyms)
    left = _only_by(disregarded, count, pseudonyms)
    return CollectedAnnotations(
        labels, seen, round_tasks(round_id, count, tasks, state=state, left=left)
    )


def _only_by(disregarded: Collection[str], count: Count, pseudonyms: Mapping[str, str]) -> set[str]:
    """Return the tasks that only these annotators annotated."""
    by: dict[str, set[str]] = defaultdict(set)
    for (task_id, _), revision in count.counted.items():
        by[task_id].add(pseudonyms[revision.submission.author])
    return {task_id for task_id, names in by.items() if names <= set(disregarded)}


def seen_annotations(
    round_id: str, labeling: LabelingBackend, lake: Lake, *, names: bool, now: datetime
) -> pd.DataFrame:
    """Return the ``annotations`` table of a round now; new submissions go into the ledger.

    With ``names`` the annotators are e-mail addresses instead of pseudonyms.
    """
    tasks = lake.tables.read(LabelTasks, round_id)
    fetch_annotations(round_id, labeling, lake, now=now)
    count = ledger_count(round_id, tasks, lake)
    authors = {annotation.revision.submission.author for annotation in count.annotations}
    shown = {author: author if names else pseudonym_of(lake.store, author) for author in authors}
    return annotations_table(round_id, count, tasks, shown)


def fetch_annotations(
    round_id: str, labeling: LabelingBackend, lake: Lake, *, now: datetime
) -> int:
    """Write the submissions of a round into the ledger; return how many states were new."""
    return AnnotationsLedger(lake.store).append(round_id, labeling.collect(round_id), now=now)


def close_round(
    round_id: str, reason: str, by: str, labeling: LabelingBackend, lake: Lake, *, now: datetime
) -> None:
    """Close a round: annotations so far count, unannotated tasks are left, later ones are late."""
    fetch_annotations(round_id, labeling, lake, now=now)
    decide_round(round_id, "closed", reason, by, lake, now=now)


def decide_round(
    round_id: str, action: Action, reason: str, by: str, lake: Lake, *, now: datetime
) -> None:
    """Record a decision about a round, in its own record and in the audit log.

    Raises:
        NotReadyError: the round has no tasks yet.
        LabelingError: there is no reason, or the round is in that state already.
    """
    lake.tables.read(LabelTasks, round_id)
    entries = AnnotationsLedger(lake.store).entries(round_id)
    RoundRecord(lake.store, round_id).write(action, reason=reason, by=by, now=now, entries=entries)
    record_decisions(round_id, lake, now=now)


def _more_annotations(
    round_id: str, count: Count, tasks: pd.DataFrame, lake: Lake, policy: LabelingPolicy
) -> dict[str, int]:
    """Return the annotated tasks below the vote margin, and how many annotations they need.

    Gold tasks, whose ground truth is known, need none.
    """
    if not policy.vote_margin or not count.annotated:
        return {}
    ontology = read_guideline(lake.store, str(tasks[LabelTasks.guideline].iloc[0]))
    authors = {annotation.revision.submission.author for annotation in count.annotations}
    same = {author: author for author in authors}
    labels = human_labels(round_id, count, tasks, accepted_images(lake.tables), ontology, same)
    labels = labels[labels[HumanLabels.purpose] == Purpose.LABEL]
    assignments = Counter(task_id for task_id, _ in count.assignments)
    short = {
        task_id: min(policy.vote_margin - margin, policy.maximum_annotations - assignments[task_id])
        for task_id, margin in vote_margins(labels).items()
    }
    return {task_id: annotations for task_id, annotations in short.items() if annotations > 0}


def _why_close(count: Count, asked_at: datetime | None, policy: Policy, now: datetime) -> str:
    labeling = policy.labeling
    wait = timedelta(hours=labeling.deadline_hours)
    share = len(count.counted) / max(1, len(count.assignments))
    if not wait or asked_at is None or now < asked_at + wait or share < labeling.minimum_share:
        return ""
    return (
        f"its {labeling.deadline_hours:g} hours are over and {share:.0%} of the annotations are in"
    )
