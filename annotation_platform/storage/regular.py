"""Files from outside: detecting incomplete ones, and opening the others safely."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from annotation_platform.errors import DataError
from annotation_platform.storage.files import UNFINISHED

NOT_UTF8 = "its name is not UTF-8; rename it and it lands again"
"""The reason to refuse such a file: neither a table nor an archive can store its name."""

_UNFINISHED = (".part", ".tmp", ".crdownload", ".partial")


def is_unfinished(name: str) -> bool:
    """Return whether the name of a file is that of an unfinished transfer."""
    last = name.rpartition("/")[2].lower()
    return last.endswith(_UNFINISHED) or last.startswith(UNFINISHED)


def printable_name(path: Path, folder: Path) -> str:
    """Return a file's name relative to ``folder``; bytes that are not UTF-8 as ``\\xe9``."""
    return printable(str(path.relative_to(folder)))


def printable(name: str) -> str:
    """Return a file's name as text that any table can store; other bytes as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a regular file for reading, with its status; anything else is a DataError.

    Links are not followed, and a pipe without a writer does not block.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}") from error
    with os.fdopen(handle, "rb") as stream:
        info = os.fstat(stream.fileno())
        if not stat.S_ISREG(info.st_mode):
            raise DataError("not a regular file")
        yield stream, info
