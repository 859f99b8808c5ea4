"""Files that are whole or absent, never half, and still there after a power cut."""

import errno
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from annotation_platform.errors import SettingsError

UNFINISHED = ".tmp-"
"""How the name of a file begins that is still being written."""


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write ``data`` to ``path``, replacing what was there, in one step.

    Missing folders are made. ``mode`` says who may read the file; until it is whole, this user
    alone can. What cannot be written is a SettingsError.
    """
    unfinished = _write_aside(path, data, mode)
    unfinished.replace(path)
    sync(path.parent)


def create_file(path: Path, data: bytes, *, mode: int = 0o644) -> bool:
    """Write ``data`` to ``path`` if nothing is there; return whether this call did it.

    Of many that do so at once one wins; see ``write_file`` for the rest.
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
    """Have the file or folder ``path`` on disk before returning.

    A rename survives a power cut only once the folder that holds the name is on disk too.
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


def disk_full(place: Path | str) -> SettingsError:
    """Return the error for a place without room."""
    return SettingsError(f"disk full at {place}: free some space and run again.")


def cannot_write(path: Path, error: OSError) -> SettingsError:
    """Return the error for a file that cannot be written, by what the system said."""
    if error.errno == errno.ENOSPC:
        return disk_full(path)
    return SettingsError(
        f"{path}: cannot be written ({error.strerror}). Choose another ANNOTATION_HOME."
    )
