"""Copying images from a source into the landing zone, for the command ``ingest``."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

from annotation_platform.errors import AnnotationPlatformError, DataError
from annotation_platform.ingestion.archives import is_archive, read_archive
from annotation_platform.ingestion.arrivals import IncomingFile
from annotation_platform.ingestion.downloads import Downloads
from annotation_platform.ingestion.labels import (
    ImageLabels,
    LabelFiles,
    match_labels,
    sidecar_labels,
)
from annotation_platform.ingestion.landing_zone import (
    FolderLandingZone,
    LandingZone,
    Put,
    open_landing_zone,
)
from annotation_platform.ingestion.lists import ListProblem, fetch_entries, read_list
from annotation_platform.ingestion.sidecars import sidecar_fields
from annotation_platform.policy import CleaningPolicy
from annotation_platform.storage.regular import is_unfinished, open_regular
from annotation_platform.storage.s3 import Bucket, is_s3

_UNFINISHED = "its name is that of an unfinished transfer, which no round takes: rename it"
_OTHER_METADATA = (
    "is in the landing zone with other metadata or labels, which are kept: rename it to land it as "
    "a new file"
)
_LIST_SUFFIXES = {".csv", ".tsv"}
_LABEL_SUFFIXES = {".json", ".xml", ".txt", ".yaml", ".yml"}


@dataclass(frozen=True)
class SendProblem:
    """A file that could not be sent: its location (a name, or a line of a list), and the reason."""

    where: str
    problem: str


@dataclass
class Sent:
    """The result of sending: numbers of copied and of already landed files, and the problems."""

    copied: int = 0
    known: int = 0
    problems: list[SendProblem] = field(default_factory=list)


def send(
    source: str,
    landing: LandingZone,
    *,
    downloads: Downloads,
    policy: CleaningPolicy,
    labels: LabelFiles | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Sent:
    """Copy images into the landing zone, each with its sidecar, and return the result.

    Files that are there already with the same bytes are skipped, so an interrupted transfer is
    continued by sending again. Files of a folder or an archive keep their paths, below its name.

    Args:
        source: an image, a folder, a zip or tar archive, a CSV of images (see `read_list`), or
            ``s3://bucket/prefix``.
        landing: the landing zone.
        downloads: downloads the images of a list with ``http://`` or ``https://``.
        policy: the limits for reading an image's header, which its labels may need.
        labels: existing labels of the images; with them, files that could be labels themselves
            (JSON, XML, text, YAML) are left out.
        progress: called with the number of processed files.

    Raises:
        DataError: there is nothing to send, the archive or list is refused as a whole, or it
            cannot be read.
    """
    sent = Sent()
    matched: dict[str, ImageLabels] = {}
    if labels is not None:
        found = match_labels(labels, _names(source))
        matched = found.by_image
        sent.problems += [
            SendProblem("labels", each) for each in (*labels.problems, *found.unmatched)
        ]
    for count, file in enumerate(_files(source, downloads), start=1):
        if isinstance(file, SendProblem):
            sent.problems.append(file)
        elif labels is not None and PurePosixPath(file.name).suffix in _LABEL_SUFFIXES:
            continue
        elif is_unfinished(file.name):
            sent.problems.append(SendProblem(file.name, _UNFINISHED))
        else:
            sidecar = _sidecar(file, matched.get(file.name), policy)
            result = landing.put(file.name, file.data, sidecar=sidecar)
            sent.copied += result is Put.COPIED
            sent.known += result is not Put.COPIED
            if result is Put.DIFFERS:
                sent.problems.append(SendProblem(file.name, _OTHER_METADATA))
        progress(count)
    if not (sent.copied or sent.known or sent.problems):
        raise DataError(f"{source}: has no file. Pass an image or a folder of images.")
    return sent


def _sidecar(file: IncomingFile, labels: ImageLabels | None, policy: CleaningPolicy) -> bytes:
    fields = dict(file.metadata or {})
    imported = sidecar_labels(labels, file.data, policy) if labels is not None else None
    if imported is not None:
        fields["labels"] = imported
    return json.dumps(fields, ensure_ascii=False, default=str).encode() if fields else b""


def _names(source: str) -> list[str]:
    """Return the names of a source's files in the landing zone, without downloading them."""
    path = Path(source)
    if is_s3(source) or path.is_dir():
        folder, name = _open_folder(source)
        return [f"{name}/{item.key}" for item in folder.list(now=datetime.now(UTC)).objects]
    if path.suffix.lower() in _LIST_SUFFIXES:
        return [entry.name for entry in read_list(path).entries]
    if is_archive(path):
        return [file.name for file in _from_archive(path)]
    return [path.name]


def _files(source: str, downloads: Downloads) -> Iterator[IncomingFile | SendProblem]:
    path = Path(source)
    if is_s3(source) or path.is_dir():
        return _from_folder(*_open_folder(source))
    if not path.exists():
        raise DataError(f"{path}: there is no such file. Check the path.")
    if path.suffix.lower() in _LIST_SUFFIXES:
        return _from_list(path, downloads)
    if is_archive(path):
        return _from_archive(path)
    return iter([IncomingFile(path.name, _read_file(path))])


def _open_folder(source: str) -> tuple[LandingZone, str]:
    """Return a folder or a prefix in S3 as a landing zone, and the folder name of its files."""
    if is_s3(source):
        return open_landing_zone(source), PurePosixPath(source).name
    return FolderLandingZone(Path(source)), Path(source).resolve().name


def _from_folder(folder: LandingZone, name: str) -> Iterator[IncomingFile | SendProblem]:
    for found in folder.list(now=datetime.now(UTC)).objects:
        try:
            data = folder.read(found)
            metadata = _metadata(folder, found.sidecar)
        except AnnotationPlatformError as error:
            yield SendProblem(found.key, str(error))
        else:
            yield IncomingFile(f"{name}/{found.key}", data, metadata)


def _metadata(folder: LandingZone, sidecar: str) -> dict[str, object] | None:
    if not sidecar:
        return None
    try:
        return sidecar_fields(folder.read_sidecar(sidecar))
    except DataError as error:
        raise DataError(f"its metadata cannot be used: {error}") from error


def _from_archive(path: Path) -> Iterator[IncomingFile]:
    folder = path.name.split(".")[0]
    return (replace(each, name=f"{folder}/{each.name}") for each in read_archive(path))


def _from_list(path: Path, downloads: Downloads) -> Iterator[IncomingFile | SendProblem]:
    listed = read_list(path)
    fetch = partial(_fetch, folder=path.parent, downloads=downloads)
    yield from (_in_file(path, problem) for problem in listed.problems)
    for file in fetch_entries(listed.entries, fetch):
        yield _in_file(path, file) if isinstance(file, ListProblem) else file


def _in_file(path: Path, problem: ListProblem) -> SendProblem:
    return SendProblem(f"{path}:{problem.line}", problem.problem)


def _fetch(location: str, *, folder: Path, downloads: Downloads) -> bytes:
    if is_s3(location):
        parent, _, key = location.rpartition("/")
        return Bucket(parent).get(key)
    if "://" in location:
        return downloads.fetch(location)
    return _read_file(folder / location)


def _read_file(path: Path) -> bytes:
    with open_regular(path) as (stream, _):
        return stream.read()
