"""Objects by key in the lake. An object is written whole or not at all."""

import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from pyarrow import fs

from annotation_platform.errors import DataError
from annotation_platform.storage.files import UNFINISHED, create_file, sync, write_file


class ObjectStore(Protocol):
    """Bytes by key. Keys are relative POSIX paths such as ``manifests/round-0001.json``."""

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing any earlier object, in one step."""

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if it is free; return whether this call wrote it.

        A ``private`` object is readable by the current user only.
        """

    def copy(self, source: str, target: str) -> None:
        """Copy the object under ``source`` to ``target``, unless ``target`` exists.

        The bytes stay within the store where it can copy; a missing ``source`` is a DataError.
        """

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""

    def exists(self, key: str) -> bool:
        """Return whether there is an object under ``key``."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys in the folder ``prefix`` and below it, sorted."""

    def local_path(self, key: str) -> Path:
        """Return a file on this machine with the bytes under ``key``."""

    def url(self, key: str) -> str:
        """Return the address of the object under ``key``: an absolute path, or ``s3://…``."""

    def remove(self, key: str) -> None:
        """Delete the object under ``key`` and its earlier versions, if there are any.

        Only erasures and migrations call it; see ``governance/erasure/``.
        """

    def purge(self, key: str) -> None:
        """Delete the earlier versions of the object under ``key``."""

    def arrow_filesystem(self) -> tuple[fs.FileSystem, str]:
        """Return Arrow's file system for the objects, and the root that keys are relative to."""


class LocalObjectStore:
    """A folder as an object store. Writes go through a temporary file, fsync and a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing any earlier object, in one step.

        The permissions of an existing file are kept.
        """
        path = self._path(key)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            mode = 0o644
        write_file(path, data, mode=mode)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if it is free; return whether this call wrote it.

        A ``private`` object is readable by the current user only.
        """
        return create_file(self._path(key), data, mode=0o600 if private else 0o644)

    def copy(self, source: str, target: str) -> None:
        """Link the file under ``source`` as ``target`` too, unless ``target`` exists."""
        path = self._path(target)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(self._path(source))
        except FileExistsError:
            return
        except OSError:
            # Some file systems have no hard links, and all limit their number per file.
            self.create(target, self.get(source))
        else:
            sync(path.parent)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError as error:
            raise DataError(
                f"{self.root}: the lake has no object {key!r}. Run the round that writes it."
            ) from error

    def exists(self, key: str) -> bool:
        """Return whether there is an object under ``key``."""
        return self._path(key).is_file()

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys in the folder ``prefix`` and below it, sorted."""
        folder = self._path(prefix)
        found = (path for path in folder.rglob("*") if path.is_file())
        keys = (path.relative_to(self.root).as_posix() for path in found if _is_whole(path))
        yield from sorted(keys)

    def local_path(self, key: str) -> Path:
        """Return the file with the bytes under ``key``."""
        return self._path(key)

    def url(self, key: str) -> str:
        """Return the absolute path of the file under ``key``."""
        return str(self._path(key).absolute())

    def remove(self, key: str) -> None:
        """Delete the file under ``key``, if there is one."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync(path.parent)

    def purge(self, key: str) -> None:
        """Do nothing: a replaced file leaves no earlier version."""

    def arrow_filesystem(self) -> tuple[fs.FileSystem, str]:
        """Return Arrow's file system for the objects, and the root that keys are relative to."""
        return fs.LocalFileSystem(), str(self.root)

    def _path(self, key: str) -> Path:
        return self.root / checked_key(key)


def checked_key(key: str) -> str:
    """Return ``key``; one that leads out of the lake is a DataError."""
    parts = PurePosixPath(key)
    if parts.is_absolute() or ".." in parts.parts:
        raise DataError(f"{key!r} is not a key of the lake: a key must not lead out of it.")
    return key


def _is_whole(path: Path) -> bool:
    return not path.name.startswith(UNFINISHED)
