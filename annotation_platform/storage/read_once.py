"""An object store of which some folders are read once: for the time of one run."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import fs

from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class ReadOnceStore:
    """An object store that asks for each object below some folders only once.

    For folders whose objects do not change while a run goes on, but by the run itself.

    Attributes:
        store: where the objects are.
        folders: keys, without a slash at the end.
        held: the objects read or written so far, by key; several stores of a run share it.
    """

    store: ObjectStore
    folders: tuple[str, ...]
    held: dict[str, bytes] = field(default_factory=dict, repr=False)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        if not self._is_held(key):
            return self.store.get(key)
        if key not in self.held:
            self.held[key] = self.store.get(key)
        return self.held[key]

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step."""
        self.store.put(key, data)
        if self._is_held(key):
            self.held[key] = data

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it."""
        return self.store.create(key, data, private=private)

    def copy(self, source: str, target: str) -> None:
        """Have the object under ``source`` under ``target`` too, unless something is there."""
        self.store.copy(source, target)

    def exists(self, key: str) -> bool:
        """Return whether there is something under ``key``."""
        return key in self.held or self.store.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the folder ``prefix``, sorted."""
        return self.store.list(prefix)

    def local_path(self, key: str) -> Path:
        """Return a file on this machine that holds the bytes under ``key``."""
        return self.store.local_path(key)

    def url(self, key: str) -> str:
        """Return where others find the object: an absolute path, or ``s3://…``."""
        return self.store.url(key)

    def remove(self, key: str) -> None:
        """Take away what is under ``key``, and all that ever was."""
        self.held.pop(key, None)
        self.store.remove(key)

    def purge(self, key: str) -> None:
        """Take away what was under ``key`` before what is there now."""
        self.store.purge(key)

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Return how Arrow gets at the objects."""
        return self.store.arrow_place()

    def _is_held(self, key: str) -> bool:
        return key.rpartition("/")[0] in self.folders
