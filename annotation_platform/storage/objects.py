"""Objects by key in the lake. What is written is whole or absent, never half."""

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
        """Write ``data`` under ``key``, replacing what was there, in one step."""

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it.

        What is ``private`` is readable by this user alone.
        """

    def copy(self, source: str, target: str) -> None:
        """Have what is under ``source`` under ``target`` too, unless something is there already.

        The store does so itself where it can; a missing ``source`` is a DataError.
        """

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""

    def exists(self, key: str) -> bool:
        """Return whether there is something under ``key``."""

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the folder ``prefix``, sorted."""

    def local_path(self, key: str) -> Path:
        """Return a file on this machine that holds the bytes under ``key``."""

    def url(self, key: str) -> str:
        """Return where others find what is under ``key``: an absolute path, or ``s3://…``."""

    def remove(self, key: str) -> None:
        """Take away what is under ``key``, and all that ever was, if there is anything.

        Only an erasure does; see ``erasing/``.
        """

    def purge(self, key: str) -> None:
        """Take away what was under ``key`` before what is there now."""

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Return how Arrow gets at the objects: a file system, and the root that keys follow."""


class LocalObjectStore:
    """A folder as an object store. Writes go through a temporary file, fsync and a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step.

        Who may read it stays as it was.
        """
        path = self._path(key)
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except FileNotFoundError:
            mode = 0o644
        write_file(path, data, mode=mode)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it.

        What is ``private`` is readable by this user alone.
        """
        return create_file(self._path(key), data, mode=0o600 if private else 0o644)

    def copy(self, source: str, target: str) -> None:
        """Have what is under ``source`` under ``target`` too: one file with two names."""
        path = self._path(target)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(self._path(source))
        except FileExistsError:
            return
        except OSError:
            # Some file systems know no second names, and none has any number of them.
            self.create(target, self.get(source))
        else:
            sync(path.parent)

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

    def url(self, key: str) -> str:
        """Return the absolute path of the file under ``key``."""
        return str(self._path(key).absolute())

    def remove(self, key: str) -> None:
        """Take away the file under ``key``, if there is one."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            sync(path.parent)

    def purge(self, key: str) -> None:
        """Do nothing: of a file that was written anew nothing is left."""

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
