"""The files of a folder, listed and read without following links or waiting for pipes."""

import os
from dataclasses import dataclass
from pathlib import Path

from annotation_platform.errors import DataError
from annotation_platform.storage.regular import NOT_UTF8, open_regular, printable_name


@dataclass(frozen=True)
class FoundFile:
    """A file below a folder; ``problem`` is the reason why it cannot be read, else empty.

    ``name`` is relative to the folder; bytes that are not UTF-8 are written as ``\\xe9``.
    """

    name: str
    path: Path
    problem: str = ""


def list_folder(folder: Path) -> list[FoundFile]:
    """Return every file in ``folder`` and below it, by name, with links and unreadable subfolders.

    Raises:
        DataError: the folder itself cannot be listed.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a readable folder. Pass a folder of images.")
    unreadable: list[OSError] = []
    found = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        # os.walk lists links to folders as folders, and does not follow them.
        linked = [name for name in folders if Path(parent, name).is_symlink()]
        paths = [Path(parent, name) for name in [*names, *linked]]
        found += [_found(path, folder) for path in paths]
    for error in unreadable:
        path = Path(error.filename)
        if path == folder:
            raise DataError(f"{folder}: cannot be read ({error.strerror}). Check its permissions.")
        problem = f"cannot be read: {error.strerror}"
        found.append(FoundFile(printable_name(path, folder), path, problem))
    return sorted(found, key=lambda file: file.name)


def _found(path: Path, folder: Path) -> FoundFile:
    name = printable_name(path, folder)
    as_on_disk = os.fsencode(path).endswith(name.encode())
    return FoundFile(name, path, "" if as_on_disk else NOT_UTF8)


def read_file(path: Path, *, maximum_bytes: int) -> bytes:
    """Return the bytes of a regular file; anything else, or a larger one, is a DataError."""
    with open_regular(path) as (stream, info):
        if info.st_size > maximum_bytes:
            raise DataError(f"too many bytes: {info.st_size}, at most {maximum_bytes}")
        return stream.read()
