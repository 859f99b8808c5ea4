"""Files that are written whole or not at all, and survive a power cut."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from annotation_platform.errors import SettingsError

UNFINISHED = ".tmp-"
"""Prefix of the names of files that are still being written."""


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` to ``path``, replacing any earlier file, in one step.

    Missing folders are created. ``mode`` is the file's permissions; until the file is complete,
    only the current user can read it. A failure to write is a SettingsError.
    """
    unfinished = _write_aside(path, data, mode)
    unfinished.replace(path)
    sync(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write ``data`` to ``path`` if it does not exist; return whether this call wrote it.

    Of several concurrent calls one wins; see ``write_file`` for the rest.
    """
    if path.exists():
        return False
    unfinished = _write_aside(path, data, mode)
    try:
        os.link(unfinished, path)
    except FileExistsError:
        return False
    finally:
        unfinished.unlink(missing_ok=True)
    sync(path.parent)
    return True


def sync(path: str | Path) -> None:
    """Flush the file or folder ``path`` to disk.

    A rename survives a power cut only once the folder that contains the name is on disk too.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_aside(path: Path, data: bytes, mode: int) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.chmod(mode)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise cannot_write(path, error) from error
    return unfinished


def disk_full(path: Path | str) -> SettingsError:
    """Return the error for a path on a full disk."""
    return SettingsError(f"disk full at {path}: free some space and run again.")


def cannot_write(path: Path, error: OSError) -> SettingsError:
    """Return the error for a file that cannot be written, from the system's error."""
    if error.errno == errno.ENOSPC:
        return disk_full(path)
    return SettingsError(
        f"{path}: cannot be written ({error.strerror}). Choose another ANNOTATION_HOME."
    )
