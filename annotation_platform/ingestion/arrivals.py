"""Files from a source, before they are in the landing zone, and their names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from annotation_platform.errors import DataError

# A folder allows 255 bytes per part and S3 1024 in total; the landing zone adds a few bytes.
_LONGEST_PART, _LONGEST_NAME = 220, 900


@dataclass(frozen=True)
class IncomingFile:
    """A file from a source, to be written to the landing zone.

    ``name`` is a relative POSIX path below the landing zone, without ``..``. ``metadata`` is the
    content of the file's sidecar; None means no sidecar.
    """

    name: str
    data: bytes
    metadata: Mapping[str, object] | None = None


def landing_name(name: str) -> str:
    """Return the name of a file in the landing zone: ``a/b`` for ``./a//b``, else unchanged.

    A name may contain any character, line breaks included.

    Raises:
        DataError: the name leads out of the folder (``..``, ``/``, ``C:``, a backslash), is empty,
            is not UTF-8, or is longer than 220 bytes per part or 900 in total.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise DataError(f"the name {shown_name(name)} is not UTF-8; rename it") from error
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or re.match("[A-Za-z]:", name):
        raise DataError(f"{shown_name(name)} leads out of the folder; give it a plain name")
    if not path.parts or "\0" in name:
        raise DataError(f"{shown_name(name)} is not a file name; rename it")
    if length > _LONGEST_NAME or max(len(part.encode()) for part in path.parts) > _LONGEST_PART:
        raise DataError(f"the name {shown_name(name)} is too long; shorten it")
    return str(path)


def shown_name(name: str | bytes) -> str:
    """Return a name for a message: printable, in quotes, cut at 200 bytes."""
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogateescape")
    return repr(name[:200].decode("utf-8", "backslashreplace"))
