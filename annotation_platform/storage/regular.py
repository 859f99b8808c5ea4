"""Files that other people put somewhere: which are whole, and how to open them without harm."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from annotation_platform.errors import DataError
from annotation_platform.storage.files import UNFINISHED

NOT_UTF8 = "its name is not UTF-8; rename it and it lands anew"
"""Why such a file cannot be taken: no table and no archive could carry its name."""

_UNFINISHED = (".part", ".tmp", ".crdownload", ".partial")


def is_unfinished(name: str) -> bool:
    """Return whether a file is still being transferred, by its name."""
    last = name.rpartition("/")[2].lower()
    return last.endswith(_UNFINISHED) or last.startswith(UNFINISHED)


def printable_name(path: Path, folder: Path) -> str:
    """Return a file's name relative to ``folder``; bytes that are not UTF-8 as ``\\xe9``."""
    return printable(str(path.relative_to(folder)))


def printable(name: str) -> str:
    """Return a file's name as text that any table can carry; other bytes as ``\\xe9``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, os.stat_result]]:
    """Open a regular file for reading, with what is known of it; anything else is a DataError.

    Neither a link nor a pipe that nobody writes to may hold up or mislead whoever reads.
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
