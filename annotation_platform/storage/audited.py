"""Who read and wrote what in the lake: one line of JSON each, a file a day."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pyarrow import fs

from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class AuditLog:
    """A folder of ``2026-05-01.jsonl`` files, which several processes write at once.

    ``who`` says on whose behalf, such as the run and the asset; it is asked for every line. Days
    that nobody needs may be deleted.
    """

    folder: Path
    who: Callable[[], dict[str, str]]

    def write(self, action: str, key: str) -> None:
        """Append one line, in one write."""
        now = datetime.now(UTC)
        entry = {"at": now.isoformat(timespec="milliseconds"), "action": action, "key": key}
        line = json.dumps({**entry, **self.who()}, ensure_ascii=False).encode() + b"\n"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{now:%Y-%m-%d}.jsonl"
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


@dataclass(frozen=True)
class AuditedStore:
    """An object store that writes down each use of it, before the use."""

    store: ObjectStore
    log: AuditLog

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step."""
        self.log.write("put", key)
        self.store.put(key, data)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it."""
        self.log.write("create", key)
        return self.store.create(key, data, private=private)

    def copy(self, source: str, target: str) -> None:
        """Have what is under ``source`` under ``target`` too, unless something is there."""
        self.log.write("get", source)
        self.log.write("create", target)
        self.store.copy(source, target)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        self.log.write("get", key)
        return self.store.get(key)

    def exists(self, key: str) -> bool:
        """Return whether there is something under ``key``; that is no use of it."""
        return self.store.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the folder ``prefix``, sorted; that is no use of them."""
        return self.store.list(prefix)

    def local_path(self, key: str) -> Path:
        """Return a file on this machine that holds the bytes under ``key``."""
        self.log.write("get", key)
        return self.store.local_path(key)

    def url(self, key: str) -> str:
        """Return where others find what is under ``key``: who asks will read it."""
        self.log.write("get", key)
        return self.store.url(key)

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Return how Arrow gets at the objects: all of the tables are taken for read."""
        self.log.write("query", "tables")
        return self.store.arrow_place()
