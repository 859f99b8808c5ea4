"""The answers ledger: every state of every answer ever seen. Nothing in it is ever changed.

It lies in the lake as numbered entries, each created once and never written again:
``ledger/answers/<round>/000001.jsonl``. One line is one revision of one annotation, as the back
end gave it. Real names stay in here; what leaves carries a pseudonym.
"""

import hashlib
import hmac
import json
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.labeling import results
from annotation_platform.labeling.client import Submission
from annotation_platform.labeling.parsed_entries import ParsedEntries
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables import make_table
from annotation_platform.storage.journal import ERASED, Journal
from annotation_platform.storage.objects import ObjectStore

_KEY = "ledger/pseudonym-key"
_NOT_YET = 1 << 62


@dataclass(frozen=True)
class Revision:
    """One state of one annotation; ``digest`` names it, ``entry`` is where the ledger has it.

    What the ledger has not yet is behind everything that it has. ``answer_id`` is the same for
    all states of an annotation; ``count_answers`` gives it.
    """

    digest: str
    submission: Submission
    entry: int = _NOT_YET
    answer_id: str = ""


@dataclass(frozen=True)
class Answer:
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

    answers: list[Answer]
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
            (answer.revision.submission.task_id, answer.revision.submission.place)
            for answer in self.surplus
            if answer.state != "skipped"
        }

    @property
    def counted(self) -> dict[tuple[str, int], Revision]:
        """The answers that hold a place, by (task_id, place)."""
        return {place: held for place, held in self.places.items() if held is not None}

    @property
    def surplus(self) -> list[Answer]:
        """The answers that hold none: kept, listed, not counted."""
        return [answer for answer in self.answers if answer.state != "counted"]

    @property
    def answered(self) -> set[str]:
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


class AnswersLedger:
    """Append revisions, read them back. Several processes may append at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def append(self, round_id: str, submissions: Iterable[Submission], *, now: datetime) -> int:
        """Write those states that the ledger has not seen yet; return how many there were."""
        known = {revision.digest for revision in self.read(round_id)}
        new = [item for item in map(as_revision, submissions) if item.digest not in known]
        if not new:
            return 0
        lines = [_to_line(revision, seen_at=now) for revision in new]
        # What two processes saw is written twice, which reading undoes: a revision is known by
        # its digest.
        self._journal(round_id).append("".join(lines).encode())
        return len(new)

    def read(self, round_id: str) -> list[Revision]:
        """Return every revision of a round, in the order in which they were seen."""
        found: dict[str, Revision] = {}
        for number, entry in enumerate(self._journal(round_id).read(), start=1):
            for revision in _PARSED.get(entry, number):
                found.setdefault(revision.digest, revision)
        return list(found.values())

    def entries(self, round_id: str) -> int:
        """Return how many entries the ledger has of a round."""
        return len(self._journal(round_id))

    def pseudonym(self, author: str) -> str:
        """Return the name under which ``author`` appears outside the ledger: stable, keyed."""
        key = pseudonym_key(self._store)
        digest = hmac.new(key, author.lower().encode(), hashlib.sha256).hexdigest()
        return f"annotator-{digest[:10]}"

    def _journal(self, round_id: str) -> Journal:
        return Journal(self._store, f"ledger/answers/{round_id}", private=True)


def pseudonym_key(store: ObjectStore) -> bytes:
    """Return the key of a lake's pseudonyms; it is drawn when it is first asked for."""
    if not store.exists(_KEY):
        store.create(_KEY, secrets.token_bytes(32), private=True)
    return store.get(_KEY)


def as_revision(submission: Submission) -> Revision:
    """Return the submission under the digest of what it says, and when it came to say so.

    Who says it does not count: a back end may forget its people, and the first name stays.
    """
    said = {
        "backend": submission.backend,
        "annotation": submission.annotation,
        "task": submission.task_id,
        "place": submission.place,
        "updated_at": submission.updated_at.isoformat(),
        "skipped": submission.skipped,
        "result": submission.result,
    }
    text = json.dumps(said, sort_keys=True)
    return Revision(hashlib.sha256(text.encode()).hexdigest(), submission)


def count_answers(
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
    answers = []
    for said in of_task.values():
        latest = _latest(said)
        held = _held(said, copies, lambda each: not _barred(each, copies, expertise, rules))
        by_id = {each.answer_id: each for each, _ in latest}
        places |= {place: by_id[answer] for place, answer in held.items()}
        for revision, seen in latest:
            reason = _barred(revision, copies, expertise, rules)
            if revision.answer_id in held.values():
                reason = ("counted", "")
            answers.append(Answer(revision, *(reason or _surplus(revision, held, by_id)), seen))
    answers.sort(key=lambda answer: _arrival(answer.revision))
    return Count(answers, places, copies)


def _with_ids(revisions: Iterable[Revision]) -> list[Revision]:
    """Return the revisions in the order of their arrival, each with the id of its annotation.

    A back end that is set up anew counts its annotations from 1 again: what was begun at another
    moment is another one.
    """
    begun: dict[str, list[datetime]] = defaultdict(list)
    named = []
    for revision in sorted(revisions, key=_arrival):
        said = revision.submission
        answer = f"{said.backend}:{said.annotation}"
        if said.created_at not in begun[answer]:
            begun[answer].append(said.created_at)
        number = begun[answer].index(said.created_at)
        answer_id = f"{answer}.{number + 1}" if number else answer
        named.append(replace(revision, answer_id=answer_id))
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
        now = {each.answer_id: each.submission for each, _ in known}
        held = {place: answer for place, answer in held.items() if not now[answer].skipped}
        for revision, _ in sorted(known, key=lambda pair: _arrival(pair[0])):
            said = revision.submission
            place = copies.get((said.task_id, said.place))
            holders = {now[other].author.lower() for other in held.values()}
            is_free = place is not None and place not in held
            if place and is_free and said.author.lower() not in holders and may_hold(revision):
                held[place] = revision.answer_id
    return held


def _surplus(
    revision: Revision,
    held: Mapping[tuple[str, int], str],
    by_id: Mapping[str, Revision],
) -> tuple[str, str]:
    """Return why an answer that could hold a place does not."""
    holders = {by_id[answer].submission.author.lower() for answer in held.values()}
    if revision.submission.author.lower() in holders:
        return "repeated", "its author holds a place of the task already"
    return "late", "somebody else had taken the place"


def _latest(revisions: Iterable[Revision]) -> list[tuple[Revision, int]]:
    """Return of each annotation its latest state, by its first author and entry, and how many."""
    of: dict[str, list[Revision]] = defaultdict(list)
    for revision in revisions:
        of[revision.answer_id].append(revision)
    latest = []
    for answer_id, states in of.items():
        states.sort(key=lambda item: (item.submission.updated_at, item.digest))
        digests = {state.digest for state in states}
        first = states[0].submission
        # Who skips gives the place up: who answers after all comes when they do.
        skips = [n for n, state in enumerate(states) if state.submission.skipped]
        standing = states[skips[-1] + 1 :] if skips else states
        since = standing[0].submission.updated_at if skips and standing else first.created_at
        named = replace(states[-1].submission, author=first.author, created_at=since)
        entry = min(state.entry for state in standing or states)
        latest.append((Revision(states[-1].digest, named, entry, answer_id), len(digests)))
    return latest


def require_complete(round_id: str, count: Count, *, lost: int = 0) -> None:
    """Raise a NotReadyError that says what a round waits for, unless every place is filled."""
    if not count.complete:
        gone = f" {lost_sentence(lost)}" if lost else ""
        raise NotReadyError(
            f"{round_id} waits for people: {len(count.counted)} of {len(count.places)} answers are"
            f" in.{gone} labeling_complete_sensor merges it when the last one is submitted;"
            f" `annotation-platform round close {round_id} --reason TEXT` does not wait for it."
        )


def lost_sentence(lost: int) -> str:
    """Return what became of tasks that were deleted where people label, and what to do."""
    return (
        f"{lost} unanswered tasks were deleted where people label; with `labeling.resend_lost:"
        " true` in params.yaml they are made again."
    )


def answers_table(
    round_id: str, count: Count, tasks: pd.DataFrame, pseudonyms: Mapping[str, str]
) -> pd.DataFrame:
    """Return the ``answers`` table: what became of every answer ever seen in a round."""
    purpose = dict(zip(tasks["task_id"], tasks["purpose"], strict=True))
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "answer_id": answer.revision.answer_id,
            "task_id": answer.revision.submission.task_id,
            "image_id": answer.revision.submission.image_id,
            "place": answer.revision.submission.place,
            "purpose": purpose.get(answer.revision.submission.task_id, ""),
            "annotator": pseudonyms[answer.revision.submission.author],
            "state": answer.state,
            "detail": answer.detail,
            "revisions": answer.revisions,
            "lead_time_seconds": answer.revision.submission.lead_time_seconds,
            "created_at": answer.revision.submission.created_at,
            "submitted_at": answer.revision.submission.updated_at,
        }
        for answer in sorted(count.answers, key=lambda item: item.revision.answer_id)
    ]
    return make_table("answers", rows)


def round_tasks(
    round_id: str, count: Count, tasks: pd.DataFrame, *, state: str, left: Collection[str] = ()
) -> pd.DataFrame:
    """Return the ``round_tasks`` table: how far each task of a round is.

    Args:
        round_id: the round.
        count: of its answers.
        tasks: its ``label_tasks``.
        state: of the round: open, closed or cancelled.
        left: answered tasks of which no answer counts towards a consensus.
    """
    places = Counter(task_id for task_id, _ in count.places)
    counted = Counter(task_id for task_id, _ in count.counted)
    without = {"open": "waiting", "closed": "left", "cancelled": "cancelled"}[state]

    def state_of(task_id: str) -> str:
        if task_id not in count.answered or state == "cancelled":
            return without
        return "left" if task_id in left else "answered"

    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "task_id": task_id,
            "image_id": image_id,
            "purpose": purpose,
            "places": places[task_id],
            "counted": counted[task_id],
            "state": state_of(task_id),
        }
        for task_id, image_id, purpose in tasks.drop_duplicates("task_id")[
            ["task_id", "image_id", "purpose"]
        ].itertuples(index=False)
    ]
    return make_table("round_tasks", rows)


def human_labels(
    round_id: str,
    count: Count,
    tasks: pd.DataFrame,
    images: pd.DataFrame,
    ontology: Ontology,
    pseudonyms: Mapping[str, str],
) -> pd.DataFrame:
    """Return the ``human_labels`` table of the answers of all answered tasks.

    A region that is no usable label (no area, unknown class, far outside, made on a picture of
    another size) is left out of the table, counted and named in each row of its answer; it stays
    in the ledger. An answer without any label keeps one row with ``shape`` = ``none``, one whose
    author could not tell a single row with ``shape`` = ``unsure``.

    Args:
        round_id: the round.
        count: from ``count_answers``.
        tasks: the round's ``label_tasks``.
        images: ``cleaned_images`` rows, accepted ones only, with every answered image.
        ontology: the classes that may be chosen.
        pseudonyms: for each author.
    """
    sides = zip(images["width"].tolist(), images["height"].tolist(), strict=True)
    sizes = dict(zip(images["image_id"], sides, strict=True))
    asked = {
        (task_id, place): about
        for task_id, place, *about in tasks[
            ["task_id", "place", "purpose", "blind", "guideline"]
        ].itertuples(index=False)
    }
    rows: list[dict[str, object]] = []
    for (task_id, _), revision in sorted(count.counted.items()):
        if task_id not in count.answered:
            continue
        said = revision.submission
        width, height = sizes[said.image_id]
        parsed = results.read_result(said.result, width=width, height=height, ontology=ontology)
        purpose, blind, guideline = asked[task_id, said.place]
        same = {
            "round_id": round_id,
            "task_id": task_id,
            "image_id": said.image_id,
            "place": said.place,
            "answer_id": revision.answer_id,
            "revision": revision.digest,
            "annotator": pseudonyms[said.author],
            "lead_time_seconds": said.lead_time_seconds,
            "submitted_at": said.updated_at,
            "weights_sha256": said.weights_sha256,
            "changed": _values(said.result) != _values(said.proposed),
            "purpose": purpose,
            "blind": blind,
            "guideline": guideline,
            "refused_regions": parsed.refused,
            "problems": json.dumps(parsed.problems, ensure_ascii=False) if parsed.problems else "",
        }
        for number, label in enumerate(parsed.labels or [NOTHING]):
            name = f"{number:04d}" if parsed.labels else "none"
            rows.append({**same, "label_id": f"{revision.answer_id}:{name}", **asdict(label)})
    return make_table("human_labels", rows)


def _values(result: Sequence[Mapping[str, object]]) -> list[str]:
    """Return what regions say, in an order of its own; ids and origins do not matter."""
    return sorted(json.dumps(region.get("value"), sort_keys=True) for region in result)


def _arrival(revision: Revision) -> tuple[int, datetime, str, str]:
    said = revision.submission
    return revision.entry, said.created_at, said.backend, said.annotation


def _to_line(revision: Revision, *, seen_at: datetime) -> str:
    entry = {"digest": revision.digest, "seen_at": seen_at.isoformat()}
    content = asdict(revision.submission)
    for name in ("created_at", "updated_at"):
        content[name] = content[name].isoformat()
    return json.dumps({**entry, "submission": content}) + "\n"


def _from_line(line: str, entry_number: int) -> Revision | None:
    """Return the revision in a line; None for what stands where one was erased."""
    entry = json.loads(line)
    if ERASED in entry:
        return None
    content = entry["submission"]
    for name in ("created_at", "updated_at"):
        content[name] = datetime.fromisoformat(content[name])
    return Revision(entry["digest"], Submission(**content), entry_number)


def _from_entry(entry: bytes, number: int) -> list[Revision]:
    """Return the revisions in an entry; lines that were erased hold none."""
    lines = entry.decode().split("\n")[:-1]
    return [each for line in lines if (each := _from_line(line, number)) is not None]


_PARSED = ParsedEntries(_from_entry)
