"""A folder of an object store that lies elsewhere: in another folder, or in another bucket."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class MountedStore:
    """An object store, but for the keys below one folder, which another store holds.

    That store knows them without the folder's name. ``list`` yields them where that folder or
    something in it is asked for. Arrow sees the first store alone.
    """

    store: ObjectStore
    folder: str
    other: ObjectStore

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step."""
        store, inner = self._of(key)
        store.put(inner, data)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it."""
        store, inner = self._of(key)
        return store.create(inner, data, private=private)

    def copy(self, source: str, target: str) -> None:
        """Have what is under ``source`` under ``target`` too, unless something is there."""
        (from_store, from_key), (to_store, to_key) = self._of(source), self._of(target)
        if from_store is to_store:
            to_store.copy(from_key, to_key)
        elif not to_store.exists(to_key):
            to_store.create(to_key, from_store.get(from_key))

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        store, inner = self._of(key)
        return store.get(inner)

    def exists(self, key: str) -> bool:
        """Return whether there is something under ``key``."""
        store, inner = self._of(key)
        return store.exists(inner)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the folder ``prefix``, sorted."""
        if f"{prefix}/".startswith(f"{self.folder}/"):
            inner = prefix.removeprefix(self.folder).strip("/")
            return (f"{self.folder}/{key}" for key in self.other.list(inner))
        return self.store.list(prefix)

    def local_path(self, key: str) -> Path:
        """Return a file on this machine that holds the bytes under ``key``."""
        store, inner = self._of(key)
        return store.local_path(inner)

    def url(self, key: str) -> str:
        """Return where others find what is under ``key``: an absolute path, or ``s3://…``."""
        store, inner = self._of(key)
        return store.url(inner)

    def remove(self, key: str) -> None:
        """Take away what is under ``key``, and all that ever was."""
        store, inner = self._of(key)
        store.remove(inner)

    def purge(self, key: str) -> None:
        """Take away what was under ``key`` before what is there now."""
        store, inner = self._of(key)
        store.purge(inner)

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Return how Arrow gets at the objects of the first store."""
        return self.store.arrow_place()

    def _of(self, key: str) -> tuple[ObjectStore, str]:
        inner = key.removeprefix(f"{self.folder}/")
        return (self.store, key) if inner == key else (self.other, inner)
