"""A dry run of the cleaning pass: what would become of each file of a folder."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.images.folders import FoundFile, list_folder, read_file
from annotation_platform.images.outcomes import judge, put_away
from annotation_platform.images.parallel import map_each
from annotation_platform.images.probing import Probe, look_at
from annotation_platform.images.signature import signature_rows
from annotation_platform.ingestion.rounds import pair_sidecars
from annotation_platform.ingestion.sidecars import NO_METADATA, read_sidecar
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.rounds import Arrival
from annotation_platform.schema.tables import CleanedImages
from annotation_platform.storage.regular import is_unfinished
from annotation_platform.storage.s3 import Bucket, is_s3

_PENDING = "still being transferred, by its name"
_EMPTY_ROW: dict[str, object] = {"round_id": "", "stamp": "", **NO_METADATA}


@dataclass(frozen=True)
class Inspected:
    """What would become of one file.

    ``path`` is relative to the folder, bytes of a name that are not UTF-8 written as ``\\xe9``.
    ``outcome`` is accepted, duplicate, quarantined or pending; ``duplicate_of`` is an image id.
    Width and height are of the upright image, 0 if it was never decoded.
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
class ProbeFile:
    """Looks at the image in a file of a folder, or under a key of a bucket."""

    policy: CleaningPolicy
    bucket: Bucket | None = None

    def read(self, file: FoundFile) -> bytes:
        """Return the bytes of a file; one that cannot be read is a DataError."""
        if self.bucket is None:
            return read_file(file.path, maximum_bytes=self.policy.maximum_bytes)
        return self.bucket.get(file.name)

    def __call__(self, file: FoundFile) -> tuple[str | None, Probe]:
        """Return the image id, None if the file cannot be read, and what the look finds."""
        image_id = None
        try:
            data = self.read(file)
            image_id = hashlib.sha256(data).hexdigest()
            return image_id, look_at(data, self.policy)
        except DataError as error:
            return image_id, Probe(reason=str(error))


def inspect_files(
    source: str | Path,
    policy: CleaningPolicy,
    *,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Inspected]:
    """Return what the cleaning pass would make of each file in a folder and below it, by name.

    ``source`` is a folder, or ``s3://bucket/prefix``. Nothing is stored. Links are not followed
    and pipes not opened: they end in quarantine. Hidden files are looked at; names of unfinished
    transfers (``.part``, ``.tmp``, …) make a file pending. Look-alikes are looked for among these
    files alone. A sidecar has the outcome accepted and the flag ``metadata``; its image is judged
    with it. However many files there are, only a few are in memory at a time. ``progress`` is told
    how many of how many were looked at.

    Raises:
        DataError: the folder cannot be read.
        SettingsError: the bucket cannot.
    """
    bucket = Bucket(str(source)) if is_s3(str(source)) else None
    found = list_folder(Path(source)) if bucket is None else _list_bucket(bucket)
    sidecars = _sidecars(found)
    described = {sidecar: image for image, sidecar in sidecars.items()}
    images = [file for file in found if file.name not in described]
    by_name = {file.name: file for file in found}
    problems = {file.name: _problem(file) for file in images}
    files = [file for file in images if not problems[file.name]]
    signatures = signature_rows(len(files))
    seen: dict[str, Probe] = {}
    ids: dict[str, str] = {}
    look_at_file = ProbeFile(policy, bucket)
    looks = map_each(look_at_file, files)
    for done, (file, (image_id, look)) in enumerate(zip(files, looks, strict=True), start=1):
        if image_id is None:
            problems[file.name] = look.reason
        else:
            ids[file.name] = image_id
            if image_id not in seen:
                seen[image_id] = put_away(look, image_id, signatures, len(seen))
        progress(done, len(files))
    rows: list[dict[str, object]] = []
    for file in images:
        row = dict(_EMPTY_ROW, source_key=file.name, image_id=ids.get(file.name), problem="")
        if file.name in sidecars:
            row.update(_metadata(look_at_file, by_name[sidecars[file.name]]))
        rows.append(row | ({"problem": problems[file.name]} if problems[file.name] else {}))
    judged = judge(rows, seen, CleanedImages.empty(), signatures, policy)
    inspected = {str(row["source_key"]): _inspected(row) for row in judged}
    inspected.update({name: _as_sidecar(name, of) for name, of in described.items()})
    return [inspected[file.name] for file in found]


def count_outcomes(rows: list[Inspected]) -> dict[str, int]:
    """Return how many files have each outcome, in a fixed order, without those that none has."""
    counts = Counter(row.outcome for row in rows)
    order = ("accepted", "duplicate", "quarantined", "pending")
    return {outcome: counts[outcome] for outcome in order if counts[outcome]}


def _list_bucket(bucket: Bucket) -> list[FoundFile]:
    # A key that ends in a slash is what some programs write for a folder.
    keys = (entry.key for entry in bucket.list() if not entry.key.endswith("/"))
    return [FoundFile(key, Path(key)) for key in keys]


def _sidecars(found: Sequence[FoundFile]) -> dict[str, str]:
    """Return the names of images, with those of their sidecars."""
    names = [Arrival(file.name, "", 0) for file in found if not _problem(file)]
    return {item.key: item.sidecar for item in pair_sidecars(names) if item.sidecar}


def _metadata(look: ProbeFile, sidecar: FoundFile) -> dict[str, object]:
    try:
        return read_sidecar(look.read(sidecar)).metadata
    except DataError as error:
        return {"problem": f"bad metadata: {error}"}


def _as_sidecar(name: str, image: str) -> Inspected:
    reason = f"metadata of {image}"
    return Inspected(name, "accepted", reason, ["metadata"], None, 0, 0, None)


def _problem(file: FoundFile) -> str:
    """Return why a file is not to be looked at; empty if it is."""
    if is_unfinished(file.name):
        return _PENDING
    return file.problem


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
