"""A cache of parsed ledger entries, keyed by their bytes."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Generic, TypeVar

_CACHED_BYTES = 64 * 2**20

Parsed = TypeVar("Parsed")


class ParsedEntries(Generic[Parsed]):
    """The parsed content of ledger entries, least recently used first out.

    Entries never change and are identified by the digest of their bytes, so the cache is never out
    of date; an erasure changes an entry and thus its digest. Threads may share a cache.

    Args:
        parse: returns the content of an entry, given its bytes and its number.
        cached_bytes: the most bytes of entries that are cached.
    """

    def __init__(
        self,
        parse: Callable[[bytes, int], Sequence[Parsed]],
        *,
        cached_bytes: int = _CACHED_BYTES,
    ) -> None:
        self._parse = parse
        self._limit = cached_bytes
        self._cache: OrderedDict[tuple[str, int], tuple[int, Sequence[Parsed]]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, entry: bytes, number: int) -> Sequence[Parsed]:
        """Return the content of an entry; it is parsed once as long as it is cached."""
        key = hashlib.sha256(entry).hexdigest(), number
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key][1]
        parsed = self._parse(entry, number)
        with self._lock:
            if key not in self._cache and len(entry) <= self._limit:
                self._cache[key] = (len(entry), parsed)
                self._bytes += len(entry)
                while self._bytes > self._limit:
                    self._bytes -= self._cache.popitem(last=False)[1][0]
        return parsed
