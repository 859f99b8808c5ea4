"""The base of object stores that change some calls of another object store."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class ForwardingStore:
    """An object store that passes each call to ``store``; a subclass overrides what differs."""

    store: ObjectStore

    def route(self, key: str, access: str = "") -> tuple[ObjectStore, str]:  # noqa: ARG002
        """Return the store that holds ``key``, and its key there; called before each access.

        ``access`` is ``put``, ``create``, ``get``, ``remove`` or ``purge``; empty for a call that
        neither returns nor changes content.
        """
        return self.store, key

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing any earlier object, in one step."""
        store, inner = self.route(key, "put")
        store.put(inner, data)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if it is free; return whether this call wrote it."""
        store, inner = self.route(key, "create")
        return store.create(inner, data, private=private)

    def copy(self, source: str, target: str) -> None:
        """Copy the object under ``source`` to ``target``, unless ``target`` exists."""
        from_store, from_key = self.route(source, "get")
        to_store, to_key = self.route(target, "create")
        if from_store is to_store:
            to_store.copy(from_key, to_key)
        elif not to_store.exists(to_key):
            to_store.create(to_key, from_store.get(from_key))

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        store, inner = self.route(key, "get")
        return store.get(inner)

    def exists(self, key: str) -> bool:
        """Return whether there is an object under ``key``."""
        store, inner = self.route(key)
        return store.exists(inner)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys in the folder ``prefix`` and below it, sorted."""
        return self.store.list(prefix)

    def local_path(self, key: str) -> Path:
        """Return a file on this machine with the bytes under ``key``."""
        store, inner = self.route(key, "get")
        return store.local_path(inner)

    def url(self, key: str) -> str:
        """Return the address of the object under ``key``: an absolute path, or ``s3://…``."""
        store, inner = self.route(key, "get")
        return store.url(inner)

    def remove(self, key: str) -> None:
        """Delete the object under ``key`` and its earlier versions, if there are any."""
        store, inner = self.route(key, "remove")
        store.remove(inner)

    def purge(self, key: str) -> None:
        """Delete the earlier versions of the object under ``key``."""
        store, inner = self.route(key, "purge")
        store.purge(inner)

    def arrow_filesystem(self) -> tuple[fs.FileSystem, str]:
        """Return Arrow's file system for the objects of ``store``, and their root in it."""
        return self.store.arrow_filesystem()
