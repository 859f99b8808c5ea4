"""The states of vendor annotations, as lines of the lake's journals."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from annotation_platform.labeling.backends.vendor.annotations import ReturnedAnnotation
from annotation_platform.labeling.backends.vendor.first_codec import in_first_codec
from annotation_platform.labeling.stored_names import from_stored, to_stored
from annotation_platform.schema.annotations import FIRST_CODEC, Payload
from annotation_platform.storage.journal import ERASED, Journal

_STEP = timedelta(microseconds=1)


@dataclass(frozen=True)
class AnnotationVersion:
    """One state of one annotation; ``digest`` identifies its content."""

    digest: str
    annotation: str
    task_id: str
    assignment: int
    author: str
    created_at: datetime
    updated_at: datetime
    lead_time_seconds: float
    skipped: bool
    payload: Payload


class FilledAssignments:
    """The assignments that are filled, and by which annotations, during an import."""

    def __init__(self, histories: Mapping[str, Sequence[AnnotationVersion]]) -> None:
        self._held: dict[tuple[str, int], str] = {}
        self._by_author: dict[tuple[str, str], int] = {}
        for history in histories.values():
            self.add(history[-1])

    def add(self, state: AnnotationVersion) -> None:
        """Record the annotation of an assignment; a skip fills none."""
        if not state.skipped:
            self._held.setdefault((state.task_id, state.assignment), state.annotation)
            self._by_author.setdefault((state.task_id, state.author), state.assignment)

    def fill(self, given: ReturnedAnnotation, history: Sequence[AnnotationVersion]) -> int:
        """Return the assignment of an annotation: its former, its only, or the first free one.

        Further annotations of one person share an assignment, and if all are filled the last one is
        shared: such annotations are not counted, and the count gives the reason.
        """
        if history and not history[-1].skipped:
            return history[-1].assignment
        own = self._by_author.get((given.task_id, given.annotator))
        if own is not None and own in given.assignments:
            return own
        free = (
            assignment
            for assignment in given.assignments
            if (given.task_id, assignment) not in self._held
        )
        return next(free, given.assignments[-1])


def next_version(
    annotation: str,
    digest: str,
    given: ReturnedAnnotation,
    assignment: int,
    history: Sequence[AnnotationVersion],
    now: datetime,
) -> AnnotationVersion:
    """Return the state that a returned annotation adds to its history, oldest first."""
    finished = given.finished_at or now
    # A correction is later than the corrected state, whatever its file says.
    updated = max(finished, history[-1].updated_at + _STEP) if history else finished
    return AnnotationVersion(
        digest=digest,
        annotation=annotation,
        task_id=given.task_id,
        assignment=assignment,
        author=given.annotator,
        created_at=history[0].created_at if history else finished,
        updated_at=updated,
        lead_time_seconds=given.lead_time_seconds,
        skipped=given.skipped,
        payload=given.payload,
    )


def annotation_id(given: ReturnedAnnotation) -> str:
    """Return the id of an annotation: the same for every state of it."""
    identity = json.dumps([given.task_id, given.annotator, given.key])
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def content_digest(given: ReturnedAnnotation, payload: Payload) -> str:
    """Return the digest of an annotation's content, with the given payload."""
    finished = given.finished_at.isoformat() if given.finished_at else None
    content = [finished, given.lead_time_seconds, given.skipped, payload.content]
    if payload.codec != FIRST_CODEC:
        content.append(payload.codec)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def first_digest(given: ReturnedAnnotation) -> str:
    """Return the digest that release 0.1.0 gave the same annotation."""
    content = in_first_codec(given.payload, given.width, given.height)
    return content_digest(given, Payload(FIRST_CODEC, content))


def read_lines(journal: Journal) -> list[Any]:
    """Return the JSON lines of a journal, without erased ones."""
    lines = [json.loads(line) for entry in journal.read() for line in entry.splitlines()]
    return [each for each in lines if ERASED not in each]


def write_lines(entries: Iterable[Any]) -> bytes:
    """Return entries as JSON lines."""
    return "".join(json.dumps(entry, sort_keys=True) + "\n" for entry in entries).encode()


def to_line(state: AnnotationVersion, now: datetime) -> dict[str, Any]:
    """Return a state as an entry of the journal, with the time of the import."""
    content = to_stored(asdict(state))
    for name in ("created_at", "updated_at"):
        content[name] = content[name].isoformat()
    return {**content, "imported_at": now.isoformat()}


def from_line(line: dict[str, Any]) -> AnnotationVersion:
    """Return the state of an entry."""
    # Lines of release 0.1.0 hold Label Studio's regions as ``result``.
    payload = line.get("payload") or {"codec": FIRST_CODEC, "content": line["result"]}
    named = from_stored(line)
    names = (each.name for each in fields(AnnotationVersion) if each.name != "payload")
    content = {**{name: named[name] for name in names}, "payload": Payload(**payload)}
    for name in ("created_at", "updated_at"):
        content[name] = datetime.fromisoformat(content[name])
    return AnnotationVersion(**content)
