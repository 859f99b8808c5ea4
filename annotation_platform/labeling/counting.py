"""Which annotations of a round hold its places, and why the others do not."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.labeling.ledger import Revision


@dataclass(frozen=True)
class Annotation:
    """One annotation in its latest state, and whether it counts.

    ``state`` is ``counted``, or why not: ``skipped``; ``repeated`` (its author holds a place of
    the task already); ``late`` (its place is taken, or the round was closed); ``foreign`` (no
    such place, or its author may not answer it). ``detail`` says so in a sentence.
    """

    revision: Revision
    state: str
    detail: str
    revisions: int


@dataclass(frozen=True)
class Rules:
    """Who may answer what in a round.

    Attributes:
        qualified: whether an author had an expertise at a moment.
        barred: by task, the authors who may not answer it: reviewers do not judge themselves.
        entries: how many entries of the ledger count, where the round was closed; or None.
    """

    qualified: Callable[[str, str, datetime], bool] = lambda _author, _skill, _at: True
    barred: Mapping[str, Collection[str]] = field(default_factory=dict)
    entries: int | None = None


@dataclass(frozen=True)
class Count:
    """What became of every answer of a round: ``places`` and who holds them, by task and number.

    ``copies`` says for each copy that people answer which place it fills.
    """

    annotations: list[Annotation]
    places: dict[tuple[str, int], Revision | None]
    copies: dict[tuple[str, int], tuple[str, int]]

    @property
    def stuck(self) -> list[tuple[str, int]]:
        """The free places whose copies all look answered, by somebody who may not have them.

        Nobody is shown them any more, so only a further copy can fill them.
        """
        used = self._used
        open_ = {place for copy, place in self.copies.items() if copy not in used}
        return [place for place, held in self.places.items() if held is None and place not in open_]

    def lost(self, shown: Collection[tuple[str, int]]) -> list[tuple[str, int]]:
        """Return the copies that could fill a free place but are not among those still shown.

        Where another copy of the place is, none of it is lost.
        """
        unused = {copy: place for copy, place in self.copies.items() if copy not in self._used}
        open_ = {place for copy, place in unused.items() if copy in shown}
        return sorted(
            copy
            for copy, place in unused.items()
            if copy not in shown and place not in open_ and self.places[place] is None
        )

    @property
    def _used(self) -> set[tuple[str, int]]:
        return {
            (annotation.revision.submission.task_id, annotation.revision.submission.place)
            for annotation in self.surplus
            if annotation.state != "skipped"
        }

    @property
    def counted(self) -> dict[tuple[str, int], Revision]:
        """The answers that hold a place, by (task_id, place)."""
        return {place: held for place, held in self.places.items() if held is not None}

    @property
    def surplus(self) -> list[Annotation]:
        """The answers that hold none: kept, listed, not counted."""
        return [annotation for annotation in self.annotations if annotation.state != "counted"]

    @property
    def annotated(self) -> set[str]:
        """The tasks of which every place holds an answer."""
        tasks = {task_id for task_id, _ in self.places}
        return tasks - {task_id for (task_id, _), held in self.places.items() if held is None}

    @property
    def complete(self) -> bool:
        """Whether every place of every task holds an answer; a round without tasks is complete."""
        return None not in self.places.values()

    @property
    def digest(self) -> str:
        """SHA-256 of the counted answers in their present state: an edit changes it."""
        lines = sorted(revision.digest for revision in self.counted.values())
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def count_annotations(
    revisions: Iterable[Revision], tasks: pd.DataFrame, rules: Rules | None = None
) -> Count:
    """Return which answers hold the places of a round, and why the others do not.

    Of each annotation the latest state counts, under the name of its first. An answer takes the
    place of its copy if that is free and its author holds no other place of the task and may
    answer it. Who the ledger saw first comes first, then who answered first: so whoever holds a
    place keeps it, whatever is still found later, until they skip. Otherwise the order of
    ``revisions`` does not matter.

    Args:
        revisions: of the ledger, and such as are not in it yet.
        tasks: the round's ``label_tasks``.
        rules: who may answer what; by default anybody everything.
    """
    rules = rules or Rules()
    copies: dict[tuple[str, int], tuple[str, int]] = {}
    expertise: dict[tuple[str, int], str] = {}
    columns = tasks[["task_id", "place", "stands_for", "expertise"]]
    for task_id, number, stands_for, skill in columns.itertuples(index=False):
        copies[task_id, number] = (task_id, stands_for)
        expertise[task_id, number] = skill
    places: dict[tuple[str, int], Revision | None] = dict.fromkeys(copies.values())
    of_task: dict[str, list[Revision]] = defaultdict(list)
    for revision in _with_ids(revisions):
        of_task[revision.submission.task_id].append(revision)
    annotations = []
    for said in of_task.values():
        latest = _latest(said)
        held = _held(said, copies, lambda each: not _barred(each, copies, expertise, rules))
        by_id = {each.annotation_id: each for each, _ in latest}
        places |= {place: by_id[annotation] for place, annotation in held.items()}
        for revision, seen in latest:
            reason = _barred(revision, copies, expertise, rules)
            if revision.annotation_id in held.values():
                reason = ("counted", "")
            annotations.append(
                Annotation(revision, *(reason or _surplus(revision, held, by_id)), seen)
            )
    annotations.sort(key=lambda annotation: _arrival(annotation.revision))
    return Count(annotations, places, copies)


def _with_ids(revisions: Iterable[Revision]) -> list[Revision]:
    """Return the revisions in the order of their arrival, each with the id of its annotation.

    A back end that is set up anew counts its annotations from 1 again: what was begun at another
    moment is another one.
    """
    begun: dict[str, list[datetime]] = defaultdict(list)
    named = []
    for revision in sorted(revisions, key=_arrival):
        said = revision.submission
        annotation = f"{said.backend}:{said.annotation}"
        if said.created_at not in begun[annotation]:
            begun[annotation].append(said.created_at)
        number = begun[annotation].index(said.created_at)
        annotation_id = f"{annotation}.{number + 1}" if number else annotation
        named.append(replace(revision, annotation_id=annotation_id))
    return named


def _barred(
    revision: Revision,
    copies: Mapping[tuple[str, int], tuple[str, int]],
    expertise: Mapping[tuple[str, int], str],
    rules: Rules,
) -> tuple[str, str] | None:
    """Return why an answer cannot hold a place, whether or not it is free; None if it can."""
    said = revision.submission
    copy, author = (said.task_id, said.place), said.author.lower()
    if said.skipped:
        return "skipped", "its author skipped the task"
    if copy not in copies:
        return "foreign", "the round asked for no such answer"
    if author in rules.barred.get(said.task_id, ()):
        return "foreign", "its author may not judge their own work"
    if not rules.qualified(author, expertise[copy], said.created_at):
        return "foreign", f"its author lacks the expertise {expertise[copy]}"
    if rules.entries is not None and revision.entry > rules.entries:
        return "late", "it came after the round was closed"
    return None


def _held(
    revisions: Sequence[Revision],
    copies: Mapping[tuple[str, int], tuple[str, int]],
    may_hold: Callable[[Revision], bool],
) -> dict[tuple[str, int], str]:
    """Return which answer holds each place of a task, entry after entry of the ledger.

    Nobody is moved from a place by what others do later: who skips frees it, and then those who
    wait for it come in the order in which they arrived.
    """
    held: dict[tuple[str, int], str] = {}
    for entry in sorted({revision.entry for revision in revisions}):
        known = _latest([revision for revision in revisions if revision.entry <= entry])
        now = {each.annotation_id: each.submission for each, _ in known}
        held = {
            place: annotation for place, annotation in held.items() if not now[annotation].skipped
        }
        for revision, _ in sorted(known, key=lambda pair: _arrival(pair[0])):
            said = revision.submission
            place = copies.get((said.task_id, said.place))
            holders = {now[other].author.lower() for other in held.values()}
            is_free = place is not None and place not in held
            if place and is_free and said.author.lower() not in holders and may_hold(revision):
                held[place] = revision.annotation_id
    return held


def _surplus(
    revision: Revision,
    held: Mapping[tuple[str, int], str],
    by_id: Mapping[str, Revision],
) -> tuple[str, str]:
    """Return why an answer that could hold a place does not."""
    holders = {by_id[annotation].submission.author.lower() for annotation in held.values()}
    if revision.submission.author.lower() in holders:
        return "repeated", "its author holds a place of the task already"
    return "late", "somebody else had taken the place"


def _latest(revisions: Iterable[Revision]) -> list[tuple[Revision, int]]:
    """Return of each annotation its latest state, by its first author and entry, and how many."""
    of: dict[str, list[Revision]] = defaultdict(list)
    for revision in revisions:
        of[revision.annotation_id].append(revision)
    latest = []
    for annotation_id, states in of.items():
        states.sort(key=lambda item: (item.submission.updated_at, item.digest))
        digests = {state.digest for state in states}
        first = states[0].submission
        # Who skips gives the place up: who answers after all comes when they do.
        skips = [n for n, state in enumerate(states) if state.submission.skipped]
        standing = states[skips[-1] + 1 :] if skips else states
        since = standing[0].submission.updated_at if skips and standing else first.created_at
        named = replace(states[-1].submission, author=first.author, created_at=since)
        entry = min(state.entry for state in standing or states)
        latest.append((Revision(states[-1].digest, named, entry, annotation_id), len(digests)))
    return latest


def require_complete(round_id: str, count: Count, *, lost: int = 0) -> None:
    """Raise a NotReadyError that says what a round waits for, unless every place is filled."""
    if not count.complete:
        gone = f" {lost_message(lost)}" if lost else ""
        raise NotReadyError(
            f"{round_id} waits for people: {len(count.counted)} of {len(count.places)} answers are"
            f" in.{gone} labeling_complete_sensor merges it when the last one is submitted;"
            f" `annotation-platform round close {round_id} --reason TEXT` does not wait for it."
        )


def lost_message(lost: int) -> str:
    """Return what became of tasks that were deleted where people label, and what to do."""
    return (
        f"{lost} unanswered tasks were deleted where people label; with `labeling.resend_lost:"
        " true` in params.yaml they are made again."
    )


def _arrival(revision: Revision) -> tuple[int, datetime, str, str]:
    said = revision.submission
    return revision.entry, said.created_at, said.backend, said.annotation
