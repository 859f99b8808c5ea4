"""A dry run of the cleaning pass: what would become of each file of a folder."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.images.cleaning import Look, judge, look_at, put_away
from annotation_platform.images.folders import FoundFile, list_folder, read_file
from annotation_platform.images.likeness import likeness_rows
from annotation_platform.images.parallel import map_each
from annotation_platform.params import CleaningPolicy
from annotation_platform.schema.tables import empty_table
from annotation_platform.storage.regular import NOT_UTF8, is_unfinished

_PENDING = "still being transferred, by its name"
_EMPTY_ROW: dict[str, object] = {"round_id": "", "stamp": ""}


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
class LookAtFile:
    """Looks at the picture in a file."""

    policy: CleaningPolicy

    def __call__(self, path: Path) -> tuple[str | None, Look]:
        """Return the image id, None if the file cannot be read, and what the look finds."""
        image_id = None
        try:
            data = read_file(path, maximum_bytes=self.policy.maximum_bytes)
            image_id = hashlib.sha256(data).hexdigest()
            return image_id, look_at(data, self.policy)
        except DataError as error:
            return image_id, Look(reason=str(error))


def inspect_folder(
    folder: Path,
    policy: CleaningPolicy,
    *,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Inspected]:
    """Return what the cleaning pass would make of each file in ``folder`` and below it, by name.

    Nothing is stored. Links are not followed and pipes not opened: they end in quarantine. Hidden
    files are looked at; names of unfinished transfers (``.part``, ``.tmp``, …) make a file
    pending. Look-alikes are looked for among these files alone, and metadata is not asked for.
    However many files there are, only a few are in memory at a time. ``progress`` is told how many
    of how many were looked at.

    Raises:
        DataError: the folder cannot be read.
    """
    found = list_folder(folder)
    problems = {file.name: _problem(file) for file in found}
    files = [file for file in found if not problems[file.name]]
    likenesses = likeness_rows(len(files))
    seen: dict[str, Look] = {}
    ids: dict[str, str] = {}
    looks = map_each(LookAtFile(policy), [file.path for file in files])
    for done, (file, (image_id, look)) in enumerate(zip(files, looks, strict=True), start=1):
        if image_id is None:
            problems[file.name] = look.reason
        else:
            ids[file.name] = image_id
            if image_id not in seen:
                seen[image_id] = put_away(look, image_id, likenesses, len(seen))
        progress(done, len(files))
    rows: list[dict[str, object]] = [
        dict(_EMPTY_ROW, source_key=file.name, image_id=ids.get(file.name), problem=problem)
        for file, problem in zip(found, problems.values(), strict=True)
    ]
    without_metadata = policy.model_copy(update={"mandatory_metadata": ()})
    judged = judge(rows, seen, empty_table("cleaned_images"), likenesses, without_metadata)
    return [_inspected(row) for row in judged]


def count_outcomes(rows: list[Inspected]) -> dict[str, int]:
    """Return how many files have each outcome, in a fixed order, without those that none has."""
    counts = Counter(row.outcome for row in rows)
    order = ("accepted", "duplicate", "quarantined", "pending")
    return {outcome: counts[outcome] for outcome in order if counts[outcome]}


def _problem(file: FoundFile) -> str:
    """Return why a file is not to be looked at; empty if it is."""
    if is_unfinished(file.name):
        return _PENDING
    return file.problem or ("" if file.is_utf8 else NOT_UTF8)


def _inspected(row: Mapping[str, Any]) -> Inspected:
    return Inspected(
        path=row["source_key"],
        outcome="pending" if row["reason"] == _PENDING else row["outcome"],
        reason=row["reason"],
        flags=[flag for flag in row["flags"].split(",") if flag],
        image_id=row["image_id"],
        width=row["width"],
        height=row["height"],
        duplicate_of=row["duplicate_of"],
    )
