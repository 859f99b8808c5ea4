"""The annotation ledger: every state of every annotation ever collected, never changed.

The lake holds it as numbered entries, each created once: ``ledger/answers/<round>/000001.jsonl``.
One line is one revision of one annotation: its payload, unchanged from the back end, and the name
of the codec that reads it. Real names stay in the ledger; tables hold pseudonyms.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from annotation_platform.labeling.backends.protocol import Submission
from annotation_platform.labeling.stored_names import from_stored, to_stored
from annotation_platform.schema.annotations import FIRST_CODEC, Payload
from annotation_platform.storage.cache import Cache
from annotation_platform.storage.journal import ERASED, Journal
from annotation_platform.storage.objects import ObjectStore

_NOT_YET = 1 << 62


@dataclass(frozen=True)
class Revision:
    """One state of one annotation; ``digest`` identifies it, ``entry`` is its ledger entry.

    Revisions that are not in the ledger yet come after all that are. ``annotation_id`` is the
    same for all states of an annotation; ``count_annotations`` sets it.
    """

    digest: str
    submission: Submission
    entry: int = _NOT_YET
    annotation_id: str = ""


class AnnotationsLedger:
    """The revisions of annotations. Several processes may append at once."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def append(self, round_id: str, submissions: Iterable[Submission], *, now: datetime) -> int:
        """Write the states that the ledger does not hold yet; return how many there were."""
        known = {revision.digest for revision in self.read(round_id)}
        new = [item for item in map(as_revision, submissions) if item.digest not in known]
        if not new:
            return 0
        lines = [_to_line(revision, seen_at=now) for revision in new]
        # Two processes may write the same state twice: reading keeps one revision per digest.
        self._journal(round_id).append("".join(lines).encode())
        return len(new)

    def read(self, round_id: str) -> list[Revision]:
        """Return every revision of a round, in the order of arrival."""
        found: dict[str, Revision] = {}
        for number, entry in enumerate(self._journal(round_id).read(), start=1):
            for revision in _parsed(entry, number):
                found.setdefault(revision.digest, revision)
        return list(found.values())

    def entries(self, round_id: str) -> int:
        """Return how many entries the ledger has of a round."""
        return len(self._journal(round_id))

    def _journal(self, round_id: str) -> Journal:
        return Journal(self._store, f"ledger/answers/{round_id}", private=True)


def as_revision(submission: Submission) -> Revision:
    """Return the submission with the digest of its content.

    The author is not part of the digest: a back end may lose its people, and the first name is
    kept. Payloads of the first codec have the digest that release 0.1.0 gave them.
    """
    payload = submission.payload
    content: dict[str, Any] = {
        "backend": submission.backend,
        "annotation": submission.annotation,
        "task": submission.task_id,
        "place": submission.assignment,
        "updated_at": submission.updated_at.isoformat(),
        "skipped": submission.skipped,
        "result": payload.content,
    }
    if payload.codec != FIRST_CODEC:
        content["codec"] = payload.codec
    text = json.dumps(content, sort_keys=True)
    return Revision(hashlib.sha256(text.encode()).hexdigest(), submission)


def _to_line(revision: Revision, *, seen_at: datetime) -> str:
    entry = {"digest": revision.digest, "seen_at": seen_at.isoformat()}
    content = asdict(revision.submission)
    for name in ("created_at", "updated_at"):
        content[name] = content[name].isoformat()
    return json.dumps({**entry, "submission": to_stored(content)}) + "\n"


def _from_line(line: str, entry_number: int) -> Revision | None:
    """Return the revision in a line; None for an erased one."""
    entry = json.loads(line)
    if ERASED in entry:
        return None
    content = from_stored(entry["submission"])
    for name in ("created_at", "updated_at"):
        content[name] = datetime.fromisoformat(content[name])
    if "payload" not in content:
        # Release 0.1.0 had one codec, without a name.
        content["payload"] = {"codec": FIRST_CODEC, "content": content.pop("result")}
        shown = content["pre_annotations"]
        content["pre_annotations"] = {"codec": FIRST_CODEC, "content": shown}
    for name in ("payload", "pre_annotations"):
        content[name] = Payload(**content[name]) if content[name] else None
    return Revision(entry["digest"], Submission(**content), entry_number)


def _from_entry(entry: bytes, number: int) -> list[Revision]:
    """Return the revisions in an entry, without erased ones."""
    lines = entry.decode().split("\n")[:-1]
    return [each for line in lines if (each := _from_line(line, number)) is not None]


_PARSED: Cache[list[Revision]] = Cache(64 * 2**20)


def _parsed(entry: bytes, number: int) -> list[Revision]:
    """Return the revisions in an entry, parsed once; an erasure gives an entry other bytes."""
    key = f"{number} {hashlib.sha256(entry).hexdigest()}"
    return _PARSED.get(key, lambda: (len(entry), _from_entry(entry, number)))
