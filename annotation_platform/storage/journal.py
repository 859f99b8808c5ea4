"""Entries that are written once, one after the other, by any number of processes."""

from pathlib import PurePosixPath

from annotation_platform.storage.objects import ObjectStore

ERASED = "erased"
"""The key of the one value of a line that stands where something was erased."""


class Journal:
    """Numbered entries under one folder of a store: ``000001.jsonl`` and so on.

    None is ever changed, but by an erasure, which leaves a line for each that it takes. An entry
    can be seen only after all before it can, so what was read once is the beginning of whatever is
    read later.

    Args:
        store: where.
        folder: under which key.
        private: whether entries are readable by this user alone.
    """

    def __init__(self, store: ObjectStore, folder: str, *, private: bool = False) -> None:
        self._store = store
        self._folder = folder
        self._private = private

    def read(self) -> list[bytes]:
        """Return every entry, in order; the first is number 1."""
        return [self.get(number) for number in range(1, len(self) + 1)]

    def __len__(self) -> int:
        """Return how many entries there are."""
        # The last one tells: a folder that is listed while entries come may show one and not the
        # one before it.
        keys = list(self._store.list(self._folder))
        return int(PurePosixPath(keys[-1]).stem) if keys else 0

    def find_end(self, known: int = 0) -> int:
        """Return how many entries there are, without listing them.

        Asks for single entries: two where there are as many as were ``known``, else twice the
        logarithm of how many more there are. For a journal too long to be listed each time.
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
        """Return entry ``number``; one that is not there is a DataError."""
        return self._store.get(self._key(number))

    def append(self, data: bytes) -> int:
        """Write an entry behind all others and return its number."""
        number = len(self) + 1
        # Another process may take the number first.
        while not self.create(number, data):
            number += 1
        return number

    def create(self, number: int, data: bytes) -> bool:
        """Write entry ``number`` unless it is there; return whether this call did it.

        For those who decide by what they have read: with ``number`` one more than the entries
        they read, they win only if nothing was written meanwhile.
        """
        return self._store.create(self._key(number), data, private=self._private)

    def _key(self, number: int) -> str:
        return f"{self._folder}/{number:06d}.jsonl"
