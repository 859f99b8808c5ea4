"""Objects by key in the lake. What is written is whole or absent, never half."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from pyarrow import fs

from annotation_platform.errors import DataError
from annotation_platform.storage.files import UNFINISHED, create_file, write_file


class ObjectStore(Protocol):
    """Bytes by key. Keys are relative POSIX paths such as ``manifests/round-0001.json``."""

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step."""

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it.

        What is ``private`` is readable by this user alone.
        """

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""

    def exists(self, key: str) -> bool:
        """Return whether there is something under ``key``."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the folder ``prefix``, sorted."""

    def local_path(self, key: str) -> Path:
        """Return a file on this machine that holds the bytes under ``key``."""

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Return how Arrow gets at the objects: a file system, and the root that keys follow."""


class LocalObjectStore:
    """A folder as an object store. Writes go through a temporary file, fsync and a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step."""
        write_file(self._path(key), data)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it.

        What is ``private`` is readable by this user alone.
        """
        return create_file(self._path(key), data, mode=0o600 if private else 0o644)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError as error:
            raise DataError(
                f"{self.root}: the lake has no object {key!r}. Was the round that makes it run?"
            ) from error

    def exists(self, key: str) -> bool:
        """Return whether there is something under ``key``."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the folder ``prefix``, sorted."""
        folder = self._path(prefix)
        found = (path for path in folder.rglob("*") if path.is_file())
        keys = (path.relative_to(self.root).as_posix() for path in found if _is_whole(path))
        yield from sorted(keys)

    def local_path(self, key: str) -> Path:
        """Return the file that holds the bytes under ``key``."""
        return self._path(key)

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Return how Arrow gets at the objects."""
        return fs.LocalFileSystem(), str(self.root)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)


def checked_key(key: str) -> str:
    """Return ``key`` if it stays within the lake; one that does not is a DataError."""
    parts = PurePosixPath(key)
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"{key!r} is not a key of the lake: keys never leave it.")
    return key


def _is_whole(path: Path) -> bool:
    return not path.name.startswith(UNFINISHED)
