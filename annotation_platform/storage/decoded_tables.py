"""Tables that were decoded before, by the digest of what they were decoded from."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import pandas as pd

_KEPT_BYTES = 256 * 2**20


class DecodedTables:
    """Keeps tables that were decoded and checked, the latest used ones.

    A run reads some tables ten times, a sensor the same ones at every look: to read a file and to
    take its SHA-256 is nothing beside decoding and checking it. Told by the bytes themselves, what
    is kept is never out of date. Frames are copied on write, so nobody's changes are seen
    by others; values of columns of objects, such as vectors, are shared. Threads may share one.

    Args:
        kept_bytes: of memory that kept tables take at most; a larger one is not kept.
    """

    def __init__(self, kept_bytes: int = _KEPT_BYTES) -> None:
        self._limit = kept_bytes
        self._kept: OrderedDict[str, tuple[int, pd.DataFrame]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: str, decode: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        """Return what ``decode`` returns, or returned before for the same key.

        The key names the bytes by their digest, and how they are decoded.
        """
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key][1].copy(deep=False)
        frame = decode()
        with self._lock:
            size = int(frame.memory_usage(index=False).sum())
            if key not in self._kept and size <= self._limit:
                self._kept[key] = (size, frame.copy(deep=False))
                self._bytes += size
                while self._bytes > self._limit:
                    self._bytes -= self._kept.popitem(last=False)[1][0]
        return frame
