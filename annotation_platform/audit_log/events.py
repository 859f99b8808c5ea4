"""The events of a lake: releases, reviews, decisions and policies, one line of JSON each.

They are stored as ``audit/000001.jsonl`` and so on; each entry is created once and has one or more
lines. Each line holds the digest of the previous one, across entries (``storage/chain.py``), and
the last line of the access log on its writer's machine (``reads_head``). The access log in turn
records the event, so truncation of either log shows in the other.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from annotation_platform.actor import system_user
from annotation_platform.storage.audited import AccessLog, AccessLoggedStore, LogHead
from annotation_platform.storage.chain import (
    ChainLink,
    Line,
    digest_of,
    last_link,
    make_line,
    parse_line,
    split_lines,
)
from annotation_platform.storage.journal import Journal, entry_key
from annotation_platform.storage.objects import ObjectStore

FOLDER = "audit"
"""The folder of the lake with the events."""

RECORDED = "event"
"""The action in the access log that records an event."""

ACTIONS = ("policy", "round", "review", "release", "stage", "skill", "people", "erasure")

_THREADS = 16
_ENTRY = re.compile(rf"{FOLDER}/\d{{6,}}\.jsonl")


@dataclass(frozen=True)
class Event:
    """One event of the audit log.

    Attributes:
        action: one of ``ACTIONS``.
        subject: the object of the action, such as a round, an image or a version's tag.
        reason: the reason; None: that of the run or command.
        author: the actor; empty: the actor of the run or command.
        facts: further JSON values. Never a secret, never an e-mail address.
    """

    action: str
    subject: str
    reason: str | None = None
    author: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class EventLog:
    """The events of a lake, in order; none is ever changed.

    Args:
        store: the store of the lake. If its accesses are logged, each log vouches for the other.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._journal = Journal(store, FOLDER)
        self._accesses: AccessLog | None = None
        bare = store
        if isinstance(store, AccessLoggedStore):
            # A request for the URL would be logged as an access.
            bare, self._accesses = store.store, store.log
        self.lake = hashlib.sha256(bare.url(FOLDER).encode()).hexdigest()[:12]

    def append(self, events: Sequence[Event], *, now: datetime) -> None:
        """Append events, together in one entry."""
        self.append_if(lambda _policy: (events, None), now=now)

    def append_if(
        self,
        due: Callable[[str], tuple[Sequence[Event], str | None]],
        *,
        now: datetime,
    ) -> None:
        """Append the events that are due after the present last line, if any.

        Several processes may append at once; the second one calls ``due`` again. In S3 this takes
        four requests, or three without events; if other machines appended N entries since this one
        last did, 2 log N more.

        Args:
            due: called with the digest of the last recorded policy, empty without one; returns the
                events, and the digest of the policy from now on, or None: unchanged.
            now: the time.
        """
        known = self._accesses.entries() if self._accesses else 0
        head: LogHead | None = None
        while True:
            known = self._journal.find_end(known)
            last, recorded = self._last(known)
            events, policy = due(recorded)
            if not events:
                return
            if self._accesses is not None and head is None:
                head = self._accesses.head()
            lines = self._lines(events, last, policy or recorded, head, now)
            data = b"".join(line + b"\n" for line in lines)
            if self._create(known + 1, data):
                break
        if self._accesses is not None:
            key, sha256 = entry_key(FOLDER, known + 1), digest_of(lines[-1])
            self._accesses.write(RECORDED, key, entries=known + 1, sha256=sha256, lake=self.lake)

    def has(self, key: str) -> bool:
        """Return whether an entry with this key exists."""
        return self._store.exists(key)

    def strays(self) -> list[str]:
        """Return the keys of other objects in the folder of the entries."""
        return [key for key in self._store.list(FOLDER) if not _ENTRY.fullmatch(key)]

    def read(self) -> Iterator[tuple[str, list[Line] | None]]:
        """Yield the key and lines of every entry, in order; None for a missing entry."""
        listed = [key for key in self._store.list(FOLDER) if _ENTRY.fullmatch(key)]
        entries = int(PurePosixPath(listed[-1]).stem) if listed else 0
        keys = [entry_key(FOLDER, number) for number in range(1, entries + 1)]
        with ThreadPoolExecutor(_THREADS) as pool:
            for key, data in zip(keys, pool.map(self._get, keys), strict=True):
                lines = None if data is None else split_lines(key, io.BytesIO(data), len(data))
                yield key, None if lines is None else list(lines)

    def _get(self, key: str) -> bytes | None:
        return self._store.get(key) if self._store.exists(key) else None

    def _create(self, number: int, data: bytes) -> bool:
        # If the response of S3 was lost, the entry may exist: it is ours if its bytes are.
        return self._journal.create(number, data) or self._journal.get(number) == data

    def _last(self, entries: int) -> tuple[ChainLink, str]:
        """Return the last link of the chain, and the digest of the last recorded policy."""
        contents: list[dict[str, Any]] = []

        def backwards() -> Iterator[bytes]:
            for number in range(entries, 0, -1):
                data = self._journal.get(number)
                lines = list(split_lines("", io.BytesIO(data), len(data)))
                for line in reversed(lines):
                    contents.append(parse_line(line.data) or {})
                    yield line.data

        link = last_link(backwards())
        return link, str(contents[-1].get("policy", "")) if contents else ""

    def _lines(
        self,
        events: Sequence[Event],
        last: ChainLink,
        policy: str,
        head: LogHead | None,
        now: datetime,
    ) -> list[bytes]:
        context = self._accesses.who() if self._accesses else {}
        lines = []
        for event in events:
            facts = {key: context[key] for key in context if key not in {"author", "reason"}}
            content = {
                "at": now.astimezone(UTC).isoformat(timespec="microseconds"),
                "author": event.author or context.get("author") or system_user(),
                "action": event.action,
                "subject": event.subject,
                "reason": context.get("reason", "") if event.reason is None else event.reason,
                "facts": {**event.facts, **facts},
                "policy": policy,
                "reads_head": asdict(head) if head else None,
            }
            line = make_line(last, content)
            last = ChainLink(last.number + 1, digest_of(line))
            lines.append(line)
        return lines
