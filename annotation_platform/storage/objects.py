"""Objects by key in the lake. What is written is whole or absent, never half."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Protocol

from annotation_platform.errors import DataError, SettingsError


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


class LocalObjectStore:
    """A folder as an object store. Writes go through a temporary file, fsync and a rename."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step."""
        temporary, target = self._write_aside(key, data)
        temporary.replace(target)
        _sync_folder(target.parent)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it.

        What is ``private`` is readable by this user alone.
        """
        if self._path(key).exists():
            return False
        temporary, target = self._write_aside(key, data, mode=0o600 if private else 0o644)
        try:
            os.link(temporary, target)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(target.parent)
        return True

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
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.name.startswith(".tmp-"):
                yield path.relative_to(self.root).as_posix()

    def local_path(self, key: str) -> Path:
        """Return the file that holds the bytes under ``key``."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key)
        if parts.is_absolute() or ".." in parts.parts:
            raise DataError(f"{key!r} is not a key of the lake: keys never leave it.")
        return self.root / parts

    def _write_aside(self, key: str, data: bytes, *, mode: int = 0o644) -> tuple[Path, Path]:
        target = self._path(key)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=".tmp-", dir=target.parent)
        except OSError as error:
            raise _cannot_write(target, error) from error
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(mode)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise _cannot_write(target, error) from error
        return temporary, target


def _cannot_write(target: Path, error: OSError) -> SettingsError:
    if error.errno == errno.ENOSPC:
        return SettingsError(f"disk full at {target}: free some space and run again.")
    return SettingsError(
        f"{target}: cannot be written ({error.strerror}). Choose another ANNOTATION_HOME."
    )


def _sync_folder(folder: Path) -> None:
    # A rename survives a power cut only once the folder that holds the name is on disk too.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
