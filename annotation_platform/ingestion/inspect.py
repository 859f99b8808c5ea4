"""A dry run of cleaning: the outcome that each file of a folder would have."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotation_platform.errors import DataError
from annotation_platform.images.folders import FoundFile, list_folder, read_file
from annotation_platform.images.outcomes import decide_outcomes, move_signature
from annotation_platform.images.parallel import map_each
from annotation_platform.images.probing import Probe, probe_image
from annotation_platform.images.signature import signature_rows
from annotation_platform.ingestion.rounds import pair_sidecars
from annotation_platform.ingestion.sidecars import NO_METADATA, read_sidecar
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.rounds import Arrival
from annotation_platform.schema.tables import CleanedImages
from annotation_platform.storage.regular import is_unfinished
from annotation_platform.storage.s3 import Bucket, is_s3

_PENDING = "still being transferred, by its name"
_EMPTY_ROW: dict[str, object] = {"round_id": "", "arrival_version": "", **NO_METADATA}


@dataclass(frozen=True)
class Inspected:
    """The outcome that one file would have.

    ``path`` is relative to the folder; bytes of a name that are not UTF-8 are written as ``\\xe9``.
    ``outcome`` is accepted, duplicate, quarantined or pending; ``duplicate_of`` is an image id.
    ``width`` and ``height`` are those of the upright image, 0 if it could not be decoded.
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
    """Probes the image in a file of a folder, or under a key of a bucket."""

    policy: CleaningPolicy
    bucket: Bucket | None = None

    def read(self, file: FoundFile) -> bytes:
        """Return the bytes of a file; one that cannot be read is a DataError."""
        if self.bucket is None:
            return read_file(file.path, maximum_bytes=self.policy.maximum_bytes)
        return self.bucket.get(file.name)

    def __call__(self, file: FoundFile) -> tuple[str | None, Probe]:
        """Return the image id, None if the file cannot be read, and the result of the probe."""
        image_id = None
        try:
            data = self.read(file)
            image_id = hashlib.sha256(data).hexdigest()
            return image_id, probe_image(data, self.policy)
        except DataError as error:
            return image_id, Probe(reason=str(error))


def inspect_files(
    source: str | Path,
    policy: CleaningPolicy,
    *,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[Inspected]:
    """Return the outcome of cleaning for each file in a folder and below it, by name.

    Nothing is stored. Links are not followed and pipes are not opened: they are quarantined.
    Hidden files are probed; files with names of unfinished transfers (``.part``, ``.tmp``, …) are
    pending. Near-duplicates are searched for among these files only. A sidecar has the outcome
    accepted and the flag ``metadata``, and counts for the outcome of its image. Only a few files
    are in memory at a time.

    Args:
        source: a folder, or ``s3://bucket/prefix``.
        policy: the limits.
        progress: called with the number of probed files and the number of all.

    Raises:
        DataError: the folder cannot be read.
        SettingsError: the bucket cannot be read.
    """
    bucket = Bucket(str(source)) if is_s3(str(source)) else None
    found = list_folder(Path(source)) if bucket is None else _list_bucket(bucket)
    sidecars = _sidecars(found)
    image_of = {sidecar: image for image, sidecar in sidecars.items()}
    images = [file for file in found if file.name not in image_of]
    by_name = {file.name: file for file in found}
    problems = {file.name: _problem(file) for file in images}
    files = [file for file in images if not problems[file.name]]
    signatures = signature_rows(len(files))
    probes: dict[str, Probe] = {}
    ids: dict[str, str] = {}
    probe_file = ProbeFile(policy, bucket)
    results = map_each(probe_file, files)
    for done, (file, (image_id, probe)) in enumerate(zip(files, results, strict=True), start=1):
        if image_id is None:
            problems[file.name] = probe.reason
        else:
            ids[file.name] = image_id
            if image_id not in probes:
                probes[image_id] = move_signature(probe, image_id, signatures, len(probes))
        progress(done, len(files))
    rows: list[dict[str, object]] = []
    for file in images:
        row = dict(_EMPTY_ROW, source_key=file.name, image_id=ids.get(file.name), problem="")
        if file.name in sidecars:
            row.update(_metadata(probe_file, by_name[sidecars[file.name]]))
        rows.append(row | ({"problem": problems[file.name]} if problems[file.name] else {}))
    decided = decide_outcomes(rows, probes, CleanedImages.empty(), signatures, policy)
    inspected = {str(row[CleanedImages.source_key]): _inspected(row) for row in decided}
    inspected.update({name: _as_sidecar(name, image) for name, image in image_of.items()})
    return [inspected[file.name] for file in found]


def count_outcomes(rows: list[Inspected]) -> dict[str, int]:
    """Return the number of files by outcome, in a fixed order, without outcomes of no file."""
    counts = Counter(row.outcome for row in rows)
    order = ("accepted", "duplicate", "quarantined", "pending")
    return {outcome: counts[outcome] for outcome in order if counts[outcome]}


def _list_bucket(bucket: Bucket) -> list[FoundFile]:
    # Some programs write a key that ends in a slash for a folder.
    keys = (entry.key for entry in bucket.list() if not entry.key.endswith("/"))
    return [FoundFile(key, Path(key)) for key in keys]


def _sidecars(found: Sequence[FoundFile]) -> dict[str, str]:
    """Return the name of each image's sidecar, by the name of the image."""
    names = [Arrival(file.name, "", 0) for file in found if not _problem(file)]
    return {item.key: item.sidecar for item in pair_sidecars(names) if item.sidecar}


def _metadata(probe_file: ProbeFile, sidecar: FoundFile) -> dict[str, object]:
    try:
        return read_sidecar(probe_file.read(sidecar)).metadata
    except DataError as error:
        return {"problem": f"bad metadata: {error}"}


def _as_sidecar(name: str, image: str) -> Inspected:
    reason = f"metadata of {image}"
    return Inspected(name, "accepted", reason, ["metadata"], None, 0, 0, None)


def _problem(file: FoundFile) -> str:
    """Return why a file cannot be probed; empty if it can."""
    if is_unfinished(file.name):
        return _PENDING
    return file.problem


def _inspected(row: Mapping[str, Any]) -> Inspected:
    return Inspected(
        path=row[CleanedImages.source_key],
        outcome="pending" if row[CleanedImages.reason] == _PENDING else row[CleanedImages.outcome],
        reason=row[CleanedImages.reason],
        flags=[flag for flag in row[CleanedImages.flags].split(",") if flag],
        image_id=row[CleanedImages.image_id],
        width=row[CleanedImages.width],
        height=row[CleanedImages.height],
        duplicate_of=row[CleanedImages.duplicate_of],
    )
