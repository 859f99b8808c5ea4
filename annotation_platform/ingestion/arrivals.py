"""What a source gives: files with their names, on their way into the landing zone."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from annotation_platform.errors import DataError

# A folder takes 255 bytes a part and S3 1024 in all; the landing zone adds some of its own.
_LONGEST_PART, _LONGEST_NAME = 220, 900


@dataclass(frozen=True)
class Arrival:
    """A file on its way into the landing zone.

    ``name`` is a relative POSIX path under the landing zone, without ``..``. ``metadata`` is
    what the file's sidecar will say; None stands for no sidecar.
    """

    name: str
    data: bytes
    metadata: Mapping[str, object] | None = None


def landing_name(name: str) -> str:
    """Return the name under which a file may land: ``./a//b`` as ``a/b``, else as it is.

    It may hold anything a name can, newlines included.

    Raises:
        DataError: it leads out of the folder (``..``, ``/``, ``C:``, a backslash), is empty, is
            not UTF-8, or is over 220 bytes a part or 900 in all.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError as error:
        raise DataError(f"the name {shown_name(name)} is not UTF-8; rename it") from error
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or re.match("[A-Za-z]:", name):
        raise DataError(f"{shown_name(name)} leads out of the folder; give it a plain name")
    if not path.parts or "\0" in name:
        raise DataError(f"{shown_name(name)} is no file name; rename it")
    if length > _LONGEST_NAME or max(len(part.encode()) for part in path.parts) > _LONGEST_PART:
        raise DataError(f"the name {shown_name(name)} is too long; shorten it")
    return str(path)


def shown_name(name: str | bytes) -> str:
    """Return a name as it may stand in a message: printable, in quotes, cut at 200 bytes."""
    if isinstance(name, str):
        name = name.encode("utf-8", "surrogateescape")
    return repr(name[:200].decode("utf-8", "backslashreplace"))
