"""Entries of the ledger that were parsed before, by their bytes."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

_KEPT_BYTES = 64 * 2**20

Parsed = TypeVar("Parsed")


class ParsedEntries(Generic[Parsed]):
    """Keeps what entries were parsed into, those used last.

    An entry never changes, and is known by the digest of its bytes: what is kept is never out of
    date, and an erasure, which changes an entry, makes it another one. Threads may share one.

    Args:
        parse: returns what is in an entry, given its bytes and its number.
        kept_bytes: of entries that are kept at most.
    """

    def __init__(
        self,
        parse: Callable[[bytes, int], Sequence[Parsed]],
        *,
        kept_bytes: int = _KEPT_BYTES,
    ) -> None:
        self._parse = parse
        self._limit = kept_bytes
        self._kept: OrderedDict[tuple[str, int], tuple[int, Sequence[Parsed]]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, entry: bytes, number: int) -> Sequence[Parsed]:
        """Return what is in an entry; each is parsed once as long as it is kept."""
        key = hashlib.sha256(entry).hexdigest(), number
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][1]
        parsed = self._parse(entry, number)
        with self._lock:
            if key not in self._kept and len(entry) <= self._limit:
                self._kept[key] = (len(entry), parsed)
                self._bytes += len(entry)
                while self._bytes > self._limit:
                    self._bytes -= self._kept.popitem(last=False)[1][0]
        return parsed
