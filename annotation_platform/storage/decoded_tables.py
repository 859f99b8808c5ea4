"""A cache of decoded tables, by the digest of the bytes that they were decoded from."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import pandas as pd

_LARGEST_CACHE = 256 * 2**20


class DecodedTables:
    """Caches the most recently used tables that were decoded and checked.

    A run reads some tables ten times, a sensor the same tables in every poll. Reading a file and
    computing its SHA-256 takes far less time than decoding and checking it. The keys are digests
    of the bytes, so an entry is never out of date. Frames are copied on write, so callers do not
    see each other's changes; values of object columns, such as vectors, are shared. The cache is
    safe to use from several threads.

    Args:
        maximum_bytes: memory that the cached tables may take; a larger table is not cached.
    """

    def __init__(self, maximum_bytes: int = _LARGEST_CACHE) -> None:
        self._limit = maximum_bytes
        self._tables: OrderedDict[str, tuple[int, pd.DataFrame]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: str, decode: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return the cached table of ``key``, or else the result of ``decode``.

        The key consists of the digest of the bytes and of how they are decoded.
        """
        with self._lock:
            if key in self._tables:
                self._tables.move_to_end(key)
                return self._tables[key][1].copy(deep=False)
        frame = decode()
        with self._lock:
            size = int(frame.memory_usage(index=False).sum())
            if key not in self._tables and size <= self._limit:
                self._tables[key] = (size, frame.copy(deep=False))
                self._bytes += size
                while self._bytes > self._limit:
                    self._bytes -= self._tables.popitem(last=False)[1][0]
        return frame
