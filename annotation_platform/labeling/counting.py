"""Which annotations of a round are counted, and why the others are not."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.labeling.backends.protocol import AssignmentKey
from annotation_platform.labeling.ledger import Revision
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.schema.tables.shared import AnnotationState


@dataclass(frozen=True)
class Annotation:
    """One annotation in its latest state, and whether it counts.

    ``state`` is ``counted``, or the reason why not: ``skipped``; ``repeated`` (its author has
    another counted annotation of the task); ``late`` (its assignment was filled, or the round was
    closed); ``foreign`` (no such assignment, or its author may not annotate it). ``detail`` gives
    the reason as a sentence. ``revisions`` is the number of its states.
    """

    revision: Revision
    state: str
    detail: str
    revisions: int


@dataclass(frozen=True)
class Rules:
    """Who may annotate what in a round.

    Attributes:
        qualified: whether an author had an expertise at a given time.
        barred: by task, the authors who may not annotate it: reviewers do not review their own
            annotations.
        entries: how many ledger entries count, for a closed round; None for all.
    """

    qualified: Callable[[str, str, datetime], bool] = lambda _author, _skill, _at: True
    barred: Mapping[str, Collection[str]] = field(default_factory=dict)
    entries: int | None = None


@dataclass(frozen=True)
class Count:
    """The outcome of every annotation of a round.

    ``assignments`` maps each assignment to its counted annotation, or None. ``replicas`` maps each
    published replica to the assignment that it fills.
    """

    annotations: list[Annotation]
    assignments: dict[AssignmentKey, Revision | None]
    replicas: dict[AssignmentKey, AssignmentKey]

    @property
    def used_up(self) -> list[AssignmentKey]:
        """The unfilled assignments whose replicas all hold annotations that do not count.

        Back ends show such replicas to no further annotator, so only a new replica can fill them.
        """
        used = self._used
        open_ = {filled for replica, filled in self.replicas.items() if replica not in used}
        return [
            assignment
            for assignment, held in self.assignments.items()
            if held is None and assignment not in open_
        ]

    def lost(self, shown: Collection[AssignmentKey]) -> list[AssignmentKey]:
        """Return the replicas that could fill an assignment but are not in ``shown`` any more.

        Where another replica of the assignment is still shown, none of its replicas is lost.
        """
        unused = {
            replica: filled
            for replica, filled in self.replicas.items()
            if replica not in self._used
        }
        open_ = {filled for replica, filled in unused.items() if replica in shown}
        return sorted(
            replica
            for replica, filled in unused.items()
            if replica not in shown and filled not in open_ and self.assignments[filled] is None
        )

    @property
    def _used(self) -> set[AssignmentKey]:
        return {
            annotation.revision.submission.key
            for annotation in self.not_counted
            if annotation.state != AnnotationState.SKIPPED
        }

    @property
    def counted(self) -> dict[AssignmentKey, Revision]:
        """The counted annotations, by assignment."""
        return {key: held for key, held in self.assignments.items() if held is not None}

    @property
    def not_counted(self) -> list[Annotation]:
        """The annotations that are kept and listed but do not count."""
        return [each for each in self.annotations if each.state != AnnotationState.COUNTED]

    @property
    def annotated(self) -> set[str]:
        """The tasks in which every assignment is filled."""
        tasks = {task_id for task_id, _ in self.assignments}
        return tasks - {task_id for (task_id, _), held in self.assignments.items() if held is None}

    @property
    def complete(self) -> bool:
        """Whether every assignment is filled; a round without tasks is complete."""
        return None not in self.assignments.values()

    @property
    def digest(self) -> str:
        """SHA-256 of the counted annotations in their current state; an edit changes it."""
        lines = sorted(revision.digest for revision in self.counted.values())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def count_annotations(
    revisions: Iterable[Revision], tasks: pd.DataFrame, rules: Rules | None = None
) -> Count:
    """Return which annotations fill the assignments of a round, and why the others do not.

    Each annotation counts in its latest state, under its first author. It fills the assignment of
    its replica if that is free, its author may annotate it and has no other counted annotation of
    the task. Annotations are considered in the order in which the ledger saw them, then by
    creation time. A counted annotation keeps its assignment, whatever is found later, until its
    author skips the task. Otherwise the order of ``revisions`` does not matter.

    Args:
        revisions: revisions in the ledger, and those that are not in it yet.
        tasks: the round's ``label_tasks``.
        rules: who may annotate what; by default any author any task.
    """
    rules = rules or Rules()
    replicas: dict[AssignmentKey, AssignmentKey] = {}
    expertise: dict[AssignmentKey, str] = {}
    columns = tasks[
        [
            *(LabelTasks.task_id, LabelTasks.assignment),
            *(LabelTasks.fills_assignment, LabelTasks.expertise),
        ]
    ]
    for task_id, number, fills_assignment, skill in columns.itertuples(index=False):
        replicas[task_id, number] = (task_id, fills_assignment)
        expertise[task_id, number] = skill
    assignments: dict[AssignmentKey, Revision | None] = dict.fromkeys(replicas.values())
    by_task: dict[str, list[Revision]] = defaultdict(list)
    for revision in _with_ids(revisions):
        by_task[revision.submission.task_id].append(revision)
    annotations = []
    for of_task in by_task.values():
        latest = _latest(of_task)
        held = _held(of_task, replicas, lambda each: not _barred(each, replicas, expertise, rules))
        by_id = {each.annotation_id: each for each, _ in latest}
        assignments |= {key: by_id[annotation] for key, annotation in held.items()}
        for revision, states in latest:
            reason = _barred(revision, replicas, expertise, rules)
            if revision.annotation_id in held.values():
                reason = (AnnotationState.COUNTED, "")
            annotations.append(
                Annotation(revision, *(reason or _not_counted(revision, held, by_id)), states)
            )
    annotations.sort(key=lambda annotation: _arrival(annotation.revision))
    return Count(annotations, assignments, replicas)


def _with_ids(revisions: Iterable[Revision]) -> list[Revision]:
    """Return the revisions in the order of arrival, each with the id of its annotation.

    A reinstalled back end numbers its annotations from 1 again, so annotations with one number
    but different creation times are different annotations.
    """
    created: dict[str, list[datetime]] = defaultdict(list)
    named = []
    for revision in sorted(revisions, key=_arrival):
        submission = revision.submission
        annotation = f"{submission.backend}:{submission.annotation}"
        if submission.created_at not in created[annotation]:
            created[annotation].append(submission.created_at)
        number = created[annotation].index(submission.created_at)
        annotation_id = f"{annotation}.{number + 1}" if number else annotation
        named.append(replace(revision, annotation_id=annotation_id))
    return named


def _barred(
    revision: Revision,
    replicas: Mapping[AssignmentKey, AssignmentKey],
    expertise: Mapping[AssignmentKey, str],
    rules: Rules,
) -> tuple[AnnotationState, str] | None:
    """Return why an annotation cannot fill any assignment; None if it can fill a free one."""
    submission = revision.submission
    author = submission.author.lower()
    if submission.skipped:
        return AnnotationState.SKIPPED, "its author skipped the task"
    if submission.key not in replicas:
        return AnnotationState.UNASSIGNED, "the round has no such assignment"
    if author in rules.barred.get(submission.task_id, ()):
        return AnnotationState.UNASSIGNED, "its author may not review their own annotation"
    needed = expertise[submission.key]
    if not rules.qualified(author, needed, submission.created_at):
        return AnnotationState.UNASSIGNED, f"its author lacks the expertise {needed}"
    if rules.entries is not None and revision.entry > rules.entries:
        return AnnotationState.LATE, "it came after the round was closed"
    return None


def _held(
    revisions: Sequence[Revision],
    replicas: Mapping[AssignmentKey, AssignmentKey],
    may_hold: Callable[[Revision], bool],
) -> dict[AssignmentKey, str]:
    """Return the annotation id that fills each assignment of a task, ledger entry by entry.

    Later annotations never displace a counted one. A skip frees its assignment, which then goes to
    the waiting annotations in the order of arrival.
    """
    held: dict[AssignmentKey, str] = {}
    for entry in sorted({revision.entry for revision in revisions}):
        known = _latest([revision for revision in revisions if revision.entry <= entry])
        now = {each.annotation_id: each.submission for each, _ in known}
        held = {key: annotation for key, annotation in held.items() if not now[annotation].skipped}
        for revision, _ in sorted(known, key=lambda pair: _arrival(pair[0])):
            submission = revision.submission
            filled = replicas.get(submission.key)
            holders = {now[other].author.lower() for other in held.values()}
            is_free = filled is not None and filled not in held
            is_new = submission.author.lower() not in holders
            if filled and is_free and is_new and may_hold(revision):
                held[filled] = revision.annotation_id
    return held


def _not_counted(
    revision: Revision, held: Mapping[AssignmentKey, str], by_id: Mapping[str, Revision]
) -> tuple[AnnotationState, str]:
    """Return why an annotation that could fill an assignment does not."""
    holders = {by_id[annotation].submission.author.lower() for annotation in held.values()}
    if revision.submission.author.lower() in holders:
        return AnnotationState.REPEATED, "its author has another counted annotation of the task"
    return AnnotationState.LATE, "another annotation filled the assignment first"


def _latest(revisions: Iterable[Revision]) -> list[tuple[Revision, int]]:
    """Return the latest state of each annotation and the number of its states.

    The state carries the first author and the earliest ledger entry.
    """
    by_annotation: dict[str, list[Revision]] = defaultdict(list)
    for revision in revisions:
        by_annotation[revision.annotation_id].append(revision)
    latest = []
    for annotation_id, states in by_annotation.items():
        states.sort(key=lambda item: (item.submission.updated_at, item.digest))
        digests = {state.digest for state in states}
        first = states[0].submission
        # A skip gives the assignment up: an annotation after it arrives when it is made.
        skips = [n for n, state in enumerate(states) if state.submission.skipped]
        current = states[skips[-1] + 1 :] if skips else states
        since = current[0].submission.updated_at if skips and current else first.created_at
        named = replace(states[-1].submission, author=first.author, created_at=since)
        entry = min(state.entry for state in current or states)
        latest.append((Revision(states[-1].digest, named, entry, annotation_id), len(digests)))
    return latest


def require_complete(round_id: str, count: Count, *, lost: int = 0) -> None:
    """Raise a NotReadyError with the missing annotations, unless every assignment is filled."""
    if not count.complete:
        deleted = f" {lost_message(lost)}" if lost else ""
        raise NotReadyError(
            f"{round_id} waits for annotators: {len(count.counted)} of {len(count.assignments)}"
            f" assignments are annotated.{deleted} labeling_complete_sensor merges the round after"
            f" the last one; `annotation-platform round close {round_id} --reason TEXT` does not"
            " wait for it."
        )


def lost_message(lost: int) -> str:
    """Return how many tasks were deleted in the back end, and how to restore them."""
    return (
        f"{lost} tasks without a counted annotation were deleted in the back end; set"
        " `labeling.republish_deleted: true` in params.yaml to publish them again."
    )


def _arrival(revision: Revision) -> tuple[int, datetime, str, str]:
    submission = revision.submission
    return revision.entry, submission.created_at, submission.backend, submission.annotation
