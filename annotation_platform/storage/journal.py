"""Append-only, numbered entries, written by any number of processes."""

from pathlib import PurePosixPath

from annotation_platform.storage.objects import ObjectStore

ERASED = "erased"
"""The only key of a line that replaces an erased line."""


class Journal:
    """Numbered entries under one folder of a store: ``000001.jsonl`` and so on.

    No entry is ever changed, except by an erasure, which leaves a line for each erased one. An
    entry becomes visible only after all earlier ones, so the entries of one reading are the first
    entries of every later reading.

    Args:
        store: the lake's objects.
        folder: key of the journal's folder.
        private: whether entries are readable by the current user only.
    """

    def __init__(self, store: ObjectStore, folder: str, *, private: bool = False) -> None:
        self._store = store
        self._folder = folder
        self._private = private

    def read(self) -> list[bytes]:
        """Return every entry, in order; the first is number 1."""
        return [self.get(number) for number in range(1, len(self) + 1)]

    def __len__(self) -> int:
        """Return the number of entries."""
        # By the last number: a listing during a write may show an entry and miss an earlier one.
        keys = list(self._store.list(self._folder))
        return int(PurePosixPath(keys[-1]).stem) if keys else 0

    def find_end(self, known: int = 0) -> int:
        """Return the number of entries without listing them.

        Requests single entries: two if there are exactly ``known`` entries, else about twice the
        logarithm of the number of further ones. For journals too long to be listed each time.
        """
        end = known if known and self._store.exists(self._key(known)) else 0
        step = 1
        while self._store.exists(self._key(end + step)):
            end += step
            step *= 2
        while step > 1:
            step //= 2
            if self._store.exists(self._key(end + step)):
                end += step
        return end

    def get(self, number: int) -> bytes:
        """Return entry ``number``; a missing one is a DataError."""
        return self._store.get(self._key(number))

    def append(self, data: bytes) -> int:
        """Append an entry and return its number."""
        number = len(self) + 1
        # Another process may have taken the number.
        while not self.create(number, data):
            number += 1
        return number

    def create(self, number: int, data: bytes) -> bool:
        """Write entry ``number`` unless it exists; return whether this call wrote it.

        It makes a decision atomic that depends on the entries read so far: with ``number`` one
        more than their count, the call succeeds only if nothing was appended in the meantime.
        """
        return self._store.create(self._key(number), data, private=self._private)

    def _key(self, number: int) -> str:
        return entry_key(self._folder, number)


def entry_key(folder: str, number: int) -> str:
    """Return the lake's key of an entry of a journal; ``number`` counts from 1."""
    return f"{folder}/{number:06d}.jsonl"
