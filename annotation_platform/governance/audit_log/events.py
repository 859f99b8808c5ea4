"""The events of a lake: releases, reviews, decisions and policies, one line of JSON each.

They lie in the lake as ``audit/000001.jsonl`` and so on, each entry created once, with one line or
several. Each line has the digest of the one before it, over entries too (``storage/chain.py``),
and says where the log of uses on its writer's machine stood (``reads_head``). That log in turn
notes the event, so neither can be cut off without the other showing it.
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
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.lineage import entry_key
from annotation_platform.storage.objects import ObjectStore

FOLDER = "audit"
"""The folder of the lake with the events."""

NOTED = "event"
"""What the log of uses calls the noting of an event."""

ACTIONS = ("policy", "round", "review", "release", "stage", "skill", "people", "erasure")

_THREADS = 16
_ENTRY = re.compile(rf"{FOLDER}/\d{{6,}}\.jsonl")


@dataclass(frozen=True)
class Event:
    """Something that was done.

    Attributes:
        action: one of ``ACTIONS``.
        subject: what it was done to, such as a round, an image or a version's tag.
        reason: why; None: what the run or command says of itself.
        author: who did it; empty: who started the run, or gave the command.
        facts: what else there is to say, as JSON knows it. Never a secret, never an address.
    """

    action: str
    subject: str
    reason: str | None = None
    author: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


class EventLog:
    """The events of a lake, first to last; none is ever changed.

    Args:
        store: of the lake. Where its uses are written down, events and uses vouch for each other.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._journal = Journal(store, FOLDER)
        self._uses: AccessLog | None = None
        bare = store
        if isinstance(store, AccessLoggedStore):
            # Asking for the place would be a use by itself.
            bare, self._uses = store.store, store.log
        self.lake = hashlib.sha256(bare.url(FOLDER).encode()).hexdigest()[:12]

    def append(self, events: Sequence[Event], *, now: datetime) -> None:
        """Write events behind all others, together in one entry."""
        self.append_if(lambda _policy: (events, None), now=now)

    def append_if(
        self,
        due: Callable[[str], tuple[Sequence[Event], str | None]],
        *,
        now: datetime,
    ) -> None:
        """Write what is due after the last line there is, if anything.

        Several processes may do so at once; whoever comes second asks again. In S3 this takes four
        requests, three where nothing is due, and where others wrote since this machine last did,
        twice the logarithm of how many entries that were.

        Args:
            due: is given the digest of the policy that was noted last, empty if none was; returns
                the events, and the digest of the policy from now on, or None: as it was.
            now: the time.
        """
        known = self._uses.entries() if self._uses else 0
        head: LogHead | None = None
        while True:
            known = self._journal.find_end(known)
            last, noted = self._last(known)
            events, policy = due(noted)
            if not events:
                return
            if self._uses is not None and head is None:
                head = self._uses.head()
            lines = self._lines(events, last, policy or noted, head, now)
            data = b"".join(line + b"\n" for line in lines)
            if self._create(known + 1, data):
                break
        if self._uses is not None:
            key, sha256 = entry_key(FOLDER, known + 1), digest_of(lines[-1])
            self._uses.write(NOTED, key, entries=known + 1, sha256=sha256, lake=self.lake)

    def has(self, key: str) -> bool:
        """Return whether there is an entry under a key."""
        return self._store.exists(key)

    def strays(self) -> list[str]:
        """Return the keys of what lies among the entries and is none."""
        return [key for key in self._store.list(FOLDER) if not _ENTRY.fullmatch(key)]

    def read(self) -> Iterator[tuple[str, list[Line] | None]]:
        """Yield every entry by its key, with its lines, in order; None for one that is missing."""
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
        # Where the answer of S3 got lost, the entry may be there and nobody knows who wrote it.
        return self._journal.create(number, data) or self._journal.get(number) == data

    def _last(self, entries: int) -> tuple[ChainLink, str]:
        """Return where the chain stands, and the digest of the policy that was noted last."""
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
        about = self._uses.who() if self._uses else {}
        lines = []
        for event in events:
            facts = {key: about[key] for key in about if key not in {"author", "reason"}}
            content = {
                "at": now.astimezone(UTC).isoformat(timespec="microseconds"),
                "author": event.author or about.get("author") or system_user(),
                "action": event.action,
                "subject": event.subject,
                "reason": about.get("reason", "") if event.reason is None else event.reason,
                "facts": {**event.facts, **facts},
                "policy": policy,
                "reads_head": asdict(head) if head else None,
            }
            line = make_line(last, content)
            last = ChainLink(last.number + 1, digest_of(line))
            lines.append(line)
        return lines
