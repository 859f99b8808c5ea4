"""A dry run of the cleaning pass: what would become of each file of a folder."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.images.cleaning import Look, find_originals, judge, look_at_all
from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.params import CleaningPolicy
from annotation_platform.schema.tables import empty_table
from annotation_platform.storage.regular import (
    NOT_UTF8,
    is_unfinished,
    open_regular,
    printable_name,
)


@dataclass(frozen=True)
class Inspected:
    """What would become of one file.

    ``path`` is relative to the folder, bytes of a name that are not UTF-8 written as ``\\xe9``.
    ``outcome`` is accepted, duplicate, quarantined or pending; ``duplicate_of`` is an image id.
    Width and height are of the upright picture, 0 if it was never decoded.
    """

    path: str
    outcome: str
    reason: str
    flags: list[str]
    image_id: str | None
    width: int
    height: int
    duplicate_of: str | None


@dataclass(frozen=True)
class _Found:
    """A file in the folder; ``problem`` says why it cannot be looked at, or what it waits for."""

    name: str
    path: Path
    problem: str = ""
    is_pending: bool = False


def inspect_folder(
    folder: Path,
    policy: CleaningPolicy,
    *,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Inspected]:
    """Return what the cleaning pass would make of each file in ``folder`` and below it, by name.

    Nothing is stored. Links are not followed and pipes not opened: they end in quarantine. Hidden
    files are looked at; names of unfinished transfers (``.part``, ``.tmp``, …) make a file
    pending. Duplicates are looked for among these files alone. However many files there are, only
    a few are in memory at a time. ``progress`` is told how many of how many were looked at.

    Raises:
        DataError: the folder cannot be read.
    """
    found = _list(folder)
    files = {file.name: file for file in found if not file.problem}
    ids: dict[str, str] = {}

    def read(name: str) -> bytes:
        data = _read(files[name].path, policy.maximum_bytes)
        ids[name] = hashlib.sha256(data).hexdigest()
        return data

    # What would be stored is let go at once; where two are alike, their pixels are decoded anew.
    by_name: dict[str, Look] = {}
    for name, look in zip(files, look_at_all(list(files), read, policy), strict=True):
        by_name[name] = replace(look, data=b"")
        progress(len(by_name), len(files))
    seen = {ids[name]: look for name, look in by_name.items() if name in ids}
    names = {image_id: name for name, image_id in reversed(ids.items())}
    distinct = list(dict.fromkeys(ids[name] for name in files if name in ids))

    def load(image_id: str) -> Pixels:
        return decode(_read(files[names[image_id]].path, policy.maximum_bytes))

    originals = find_originals(distinct, seen, empty_table("cleaned_images"), load, policy)
    raw_rows = [_raw_row(file, ids.get(file.name), by_name.get(file.name)) for file in found]
    judged, _ = judge(raw_rows, seen, originals)
    return [_inspected(row, file) for row, file in zip(judged, found, strict=True)]


def count_outcomes(rows: list[Inspected]) -> dict[str, int]:
    """Return how many files have each outcome, in a fixed order, without those that none has."""
    counts = Counter(row.outcome for row in rows)
    order = ("accepted", "duplicate", "quarantined", "pending")
    return {outcome: counts[outcome] for outcome in order if counts[outcome]}


def _raw_row(file: _Found, image_id: str | None, look: Look | None) -> dict[str, object]:
    problem = file.problem or (look.reason if look else "")
    facts = {"source_key": file.name, "image_id": image_id, "problem": problem}
    return {"round_id": "", "stamp": "", **facts}


def _inspected(row: dict[str, Any], file: _Found) -> Inspected:
    return Inspected(
        path=file.name,
        outcome="pending" if file.is_pending else row["outcome"],
        reason=row["reason"],
        flags=[flag for flag in row["flags"].split(",") if flag],
        image_id=row["image_id"],
        width=row["width"],
        height=row["height"],
        duplicate_of=row["duplicate_of"],
    )


def _list(folder: Path) -> list[_Found]:
    """Return every file below ``folder``, by name; also what could not be listed."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is no folder that can be read. Pass a folder of pictures.")
    unreadable: list[OSError] = []
    found = []
    for place, folders, names in os.walk(folder, onerror=unreadable.append):
        # os.walk lists links to folders among the folders, and does not follow them.
        linked = [name for name in folders if Path(place, name).is_symlink()]
        found += [_find(folder, Path(place, name)) for name in [*names, *linked]]
    for error in unreadable:
        path = Path(error.filename)
        if path == folder:
            raise DataError(f"{folder}: cannot be read ({error.strerror}). Check its permissions.")
        found.append(replace(_find(folder, path), problem=f"cannot be read: {error.strerror}"))
    return sorted(found, key=lambda file: file.name)


def _find(folder: Path, path: Path) -> _Found:
    name = printable_name(path, folder)
    if is_unfinished(name):
        return _Found(name, path, "still being transferred, by its name", is_pending=True)
    if os.fsencode(path.relative_to(folder)) != name.encode():
        return _Found(name, path, NOT_UTF8)
    return _Found(name, path)


def _read(path: Path, maximum_bytes: int) -> bytes:
    with open_regular(path) as (stream, info):
        if info.st_size > maximum_bytes:
            raise DataError(f"too many bytes: {info.st_size}, at most {maximum_bytes}")
        return stream.read()
