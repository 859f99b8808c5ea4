"""A cache of values made from bytes that never change under their key."""

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Cache(Generic[Value]):
    """The most recently used values, up to a number of bytes.

    A key identifies the bytes that its value was made from, by their digest, so a value is never
    out of date. The cache is safe to use from several threads.

    Args:
        maximum_bytes: size of all values together; a larger value is not cached.
    """

    def __init__(self, maximum_bytes: int) -> None:
        self._limit = maximum_bytes
        self._values: OrderedDict[str, tuple[int, Value]] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    def get(self, key: str, make: Callable[[], tuple[int, Value]]) -> Value:
        """Return the cached value of a key; else make it, and its size in bytes."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][1]
        size, value = make()
        with self._lock:
            if key not in self._values and size <= self._limit:
                self._values[key] = (size, value)
                self._bytes += size
                while self._bytes > self._limit:
                    self._bytes -= self._values.popitem(last=False)[1][0]
        return value
