"""Putting images into the landing zone, from wherever they are: what ``ingest`` does."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath

from annotation_platform.errors import AnnotationPlatformError, DataError
from annotation_platform.ingestion.archives import is_archive, read_archive
from annotation_platform.ingestion.arrivals import Arrival
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

_UNFINISHED = "its name is that of an unfinished transfer, so it would never be taken: rename it"
_OTHER_METADATA = "lies there with other metadata or labels, which stay: land it as a new file"
_LIST_SUFFIXES = {".csv", ".tsv"}
_LABEL_SUFFIXES = {".json", ".xml", ".txt", ".yaml", ".yml"}


@dataclass(frozen=True)
class Problem:
    """Something that could not be sent: where it is (a name, or a line of a list), and why."""

    where: str
    problem: str


@dataclass
class Sent:
    """How many files were copied, how many lay there already, and what could not be sent."""

    copied: int = 0
    known: int = 0
    problems: list[Problem] = field(default_factory=list)


def send(
    source: str,
    place: LandingZone,
    *,
    downloads: Downloads,
    policy: CleaningPolicy,
    labels: LabelFiles | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Sent:
    """Copy images into the landing zone, each with its sidecar, and return what came of it.

    What lies there already with the same bytes is left alone, so a broken-off transfer is taken
    up by sending again. A folder keeps its layout under its own name, so does an archive.

    Args:
        source: an image, a folder, a zip or tar archive, a CSV of images (see `read_list`), or
            ``s3://bucket/prefix``.
        place: the landing zone.
        downloads: fetches what a list names by ``http://`` or ``https://``.
        policy: the limits within which an image's header is read for its labels.
        labels: what the images are labelled with already; files that look like labels
            themselves (JSON, XML, text, YAML) are then left out of a folder or archive.
        progress: told how many files were dealt with.

    Raises:
        DataError: there is nothing to send, the archive or list is refused as a whole, or it
            cannot be read.
    """
    sent = Sent()
    matched: dict[str, ImageLabels] = {}
    if labels is not None:
        found = match_labels(labels, _names(source))
        matched = found.by_image
        sent.problems += [Problem("labels", each) for each in (*labels.problems, *found.unmatched)]
    for count, arrival in enumerate(_arrivals(source, downloads), start=1):
        if isinstance(arrival, Problem):
            sent.problems.append(arrival)
        elif labels is not None and PurePosixPath(arrival.name).suffix in _LABEL_SUFFIXES:
            continue
        elif is_unfinished(arrival.name):
            sent.problems.append(Problem(arrival.name, _UNFINISHED))
        else:
            sidecar = _sidecar(arrival, matched.get(arrival.name), policy)
            became = place.put(arrival.name, arrival.data, sidecar=sidecar)
            sent.copied += became is Put.COPIED
            sent.known += became is not Put.COPIED
            if became is Put.DIFFERS:
                sent.problems.append(Problem(arrival.name, _OTHER_METADATA))
        progress(count)
    if not (sent.copied or sent.known or sent.problems):
        raise DataError(f"{source}: holds no file. Pass an image or a folder of images.")
    return sent


def _sidecar(arrival: Arrival, labels: ImageLabels | None, policy: CleaningPolicy) -> bytes:
    fields = dict(arrival.metadata or {})
    said = sidecar_labels(labels, arrival.data, policy) if labels is not None else None
    if said is not None:
        fields["labels"] = said
    return json.dumps(fields, ensure_ascii=False, default=str).encode() if fields else b""


def _names(source: str) -> list[str]:
    """Return what the files of a source will be called in the landing zone; none is fetched."""
    path = Path(source)
    if is_s3(source) or path.is_dir():
        place, name = _place(source)
        return [f"{name}/{item.key}" for item in place.list(now=datetime.now(UTC)).objects]
    if path.suffix.lower() in _LIST_SUFFIXES:
        return [entry.name for entry in read_list(path).entries]
    if is_archive(path):
        return [arrival.name for arrival in _from_archive(path)]
    return [path.name]


def _arrivals(source: str, downloads: Downloads) -> Iterator[Arrival | Problem]:
    path = Path(source)
    if is_s3(source) or path.is_dir():
        return _from_place(*_place(source))
    if not path.exists():
        raise DataError(f"{path}: there is no such file. Check the path.")
    if path.suffix.lower() in _LIST_SUFFIXES:
        return _from_list(path, downloads)
    if is_archive(path):
        return _from_archive(path)
    return iter([Arrival(path.name, _read_file(path))])


def _place(source: str) -> tuple[LandingZone, str]:
    """Return a folder or a prefix in S3 as a place, and the name that its files go under."""
    if is_s3(source):
        return open_landing_zone(source), PurePosixPath(source).name
    return FolderLandingZone(Path(source)), Path(source).resolve().name


def _from_place(place: LandingZone, name: str) -> Iterator[Arrival | Problem]:
    for landed in place.list(now=datetime.now(UTC)).objects:
        try:
            data = place.read(landed)
            metadata = _metadata(place, landed.sidecar)
        except AnnotationPlatformError as error:
            yield Problem(landed.key, str(error))
        else:
            yield Arrival(f"{name}/{landed.key}", data, metadata)


def _metadata(place: LandingZone, sidecar: str) -> dict[str, object] | None:
    if not sidecar:
        return None
    try:
        return sidecar_fields(place.read_sidecar(sidecar))
    except DataError as error:
        raise DataError(f"its metadata cannot be used: {error}") from error


def _from_archive(path: Path) -> Iterator[Arrival]:
    folder = path.name.split(".")[0]
    return (replace(each, name=f"{folder}/{each.name}") for each in read_archive(path))


def _from_list(path: Path, downloads: Downloads) -> Iterator[Arrival | Problem]:
    listed = read_list(path)
    fetch = partial(_fetch, folder=path.parent, downloads=downloads)
    yield from (_on_line(path, found) for found in listed.problems)
    for arrival in fetch_entries(listed.entries, fetch):
        yield _on_line(path, arrival) if isinstance(arrival, ListProblem) else arrival


def _on_line(path: Path, found: ListProblem) -> Problem:
    return Problem(f"{path}:{found.line}", found.problem)


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
