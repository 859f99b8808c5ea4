"""Where images land: a folder, or a prefix of a bucket in S3."""

import hashlib
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from annotation_platform.errors import DataError
from annotation_platform.ingestion.rounds import Arrivals, pair_sidecars
from annotation_platform.ingestion.sidecars import MAXIMUM_BYTES
from annotation_platform.schema.rounds import Arrival
from annotation_platform.storage.files import create_file
from annotation_platform.storage.regular import (
    NOT_UTF8,
    is_unfinished,
    open_regular,
    printable,
    printable_name,
)
from annotation_platform.storage.s3 import Bucket, S3Entry, is_s3


class Put(Enum):
    """What became of a file that was put into the landing zone.

    Where its bytes lay there already, its sidecar is added if there was none; otherwise it is the
    same (``KNOWN``), or another one (``DIFFERS``), which stays.
    """

    COPIED = "copied"
    KNOWN = "known"
    DIFFERS = "differs"


REPLACED = "replaced after its round was formed"


class LandingZone(Protocol):
    """A place that other people and programs fill, and that may change at any moment."""

    address: str

    def list(self, *, now: datetime) -> Arrivals:
        """Return what lies there, sidecars noted at their images.

        Names of unfinished transfers (``.part``, ``.tmp``, …) are left alone.
        """

    def read(self, landed: Arrival) -> bytes:
        """Return the bytes of an object as it was listed.

        Raises:
            DataError: it is gone, was replaced, or is nothing that can be read.
        """

    def read_sidecar(self, key: str) -> bytes:
        """Return the bytes of a sidecar as it is now; one that cannot be read is a DataError."""

    def remove_content(
        self, may_be: Callable[[str, int], bool], is_one: Callable[[bytes], bool]
    ) -> int:
        """Take away every file with bytes of a kind, and return how many. Only an erasure does.

        So goes what a bucket keeps of a file that was replaced or deleted.

        Args:
            may_be: told name and size, says whether to look at the bytes.
            is_one: says whether bytes are of that kind.
        """

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> Put:
        """Write a file, its sidecar first; nothing is ever written over.

        A name that is taken by other bytes is left alone: the new file gets a name of its own,
        with some digits of its SHA-256.
        """


class FolderLandingZone:
    """A folder and all below it. Links and devices are listed, but never followed or opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def list(self, *, now: datetime) -> Arrivals:
        """Return what lies there; see `LandingZone`."""
        objects, ages, moment = [], {}, now.timestamp()
        root = str(self.folder)
        for path in _walk(self.folder):
            try:
                info = os.lstat(path)
            except FileNotFoundError:  # moved away between the listing and the look
                continue
            except OSError:
                # What cannot even be looked at has to be read in vain to end in quarantine.
                info = os.stat_result((0,) * 10)
            key = printable(path[len(root) :].lstrip(os.sep))
            stamp = f"{info.st_size}-{info.st_mtime_ns}"
            landed = Arrival(key=key, stamp=stamp, byte_size=info.st_size)
            objects.append(landed)
            # The time of the last change here; what a camera or a copy says may lie ahead.
            ages[landed] = max(0.0, moment - info.st_ctime)
        return Arrivals(pair_sidecars(objects), ages)

    def read(self, landed: Arrival) -> bytes:
        """Return the bytes of an object as it was listed; see `LandingZone`."""
        path = self.folder / landed.key
        if "\\x" in landed.key and not path.exists():
            raise DataError(NOT_UTF8)
        with open_regular(path) as (stream, info):
            if f"{info.st_size}-{info.st_mtime_ns}" != landed.stamp:
                raise DataError(REPLACED)
            return stream.read()

    def read_sidecar(self, key: str) -> bytes:
        """Return the bytes of a sidecar as it is now; see `LandingZone`."""
        with open_regular(self.folder / key) as (stream, info):
            if info.st_size > MAXIMUM_BYTES:
                raise DataError(f"has {info.st_size} bytes, at most {MAXIMUM_BYTES} are read")
            return stream.read()

    def remove_content(
        self, may_be: Callable[[str, int], bool], is_one: Callable[[bytes], bool]
    ) -> int:
        """Take away every file with bytes of a kind; see `LandingZone`."""
        removed = 0
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            name = printable_name(path, self.folder)
            if may_be(name, path.stat().st_size) and is_one(path.read_bytes()):
                path.unlink()
                removed += 1
        return removed

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> Put:
        """Write a file through an unfinished one, in one step; see `LandingZone`."""
        return _put(self._create, self._read, name, data, sidecar)

    def _create(self, name: str, data: bytes) -> bool:
        return create_file(self.folder / name, data)

    def _read(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None


class S3LandingZone:
    """The objects under a prefix. S3 shows an object only once it is complete."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.address = bucket.url

    # S3 has a clock of its own.
    def list(self, *, now: datetime) -> Arrivals:  # noqa: ARG002
        """Return what lies there; see `LandingZone`."""
        objects, ages = [], {}
        for entry in self.bucket.list():
            if not entry.key or entry.key.endswith("/") or is_unfinished(entry.key):
                continue
            landed = _landed(entry)
            objects.append(landed)
            ages[landed] = entry.age_seconds
        return Arrivals(pair_sidecars(objects), ages)

    def find(self, bucket: str, key: str) -> Arrival | None:
        """Return one object as a listing has it, without sidecar; None if it is not of here."""
        address = f"s3://{bucket}/{key}"
        name = address.removeprefix(f"{self.address}/")
        if not name or name == address or is_unfinished(name) or name.endswith((".json", "/")):
            return None
        there = self.bucket.head(name)
        return None if there is None else _landed(there)

    def read(self, landed: Arrival) -> bytes:
        """Return the bytes of an object as it was listed; see `LandingZone`."""
        return self.bucket.get(landed.key, etag=landed.stamp.partition("-")[2])

    def read_sidecar(self, key: str) -> bytes:
        """Return the bytes of a sidecar as it is now; see `LandingZone`."""
        return self.bucket.get(key, maximum_bytes=MAXIMUM_BYTES)

    def remove_content(
        self, may_be: Callable[[str, int], bool], is_one: Callable[[bytes], bool]
    ) -> int:
        """Take away every version of an object with bytes of a kind; see `LandingZone`."""
        return self.bucket.remove_content(may_be, is_one)

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> Put:
        """Write an object unless its name is taken; see `LandingZone`."""
        return _put(self.bucket.create, self._read, name, data, sidecar)

    def _read(self, name: str) -> bytes | None:
        return None if self.bucket.head(name) is None else self.bucket.get(name)


def open_landing_zone(url: str, client: Any = None) -> LandingZone:
    """Return the landing zone at a folder's path or an ``s3://bucket/prefix``."""
    return S3LandingZone(Bucket(url, client)) if is_s3(url) else FolderLandingZone(Path(url))


def _landed(entry: S3Entry) -> Arrival:
    return Arrival(entry.key, f"{entry.byte_size}-{entry.etag}", entry.byte_size)


def _put(
    create: Callable[[str, bytes], bool],
    read: Callable[[str], bytes | None],
    name: str,
    data: bytes,
    sidecar: bytes,
) -> Put:
    path = PurePosixPath(name)
    digits = hashlib.sha256(data + sidecar).hexdigest()[:16]
    for free in (name, str(path.with_stem(f"{path.stem}-{digits}"))):
        there = read(free)
        if there not in {None, data}:
            continue
        described = not sidecar or create(f"{free}.json", sidecar)
        is_same = described or read(f"{free}.json") == sidecar
        if there is None and is_same and create(free, data):
            return Put.COPIED
        if read(free) == data:
            return Put.KNOWN if is_same else Put.DIFFERS
    raise DataError(f"{name}: its name is taken, and so is the one made of its digest. Rename it.")


def _walk(folder: Path) -> Iterator[str]:
    # As text: a sensor looks every few seconds, and 100,000 paths take seconds to make.
    unlisted: list[OSError] = []
    # os.walk does not follow links to folders; they come among the folders' names.
    for root, folders, files in os.walk(folder, onerror=unlisted.append):
        linked = [name for name in folders if (Path(root) / name).is_symlink()]
        names = (name for name in [*files, *linked] if not is_unfinished(name))
        yield from (f"{root}{os.sep}{name}" for name in names)
    for error in unlisted:
        if Path(error.filename) == folder:
            raise DataError(
                f"{folder}: the landing folder cannot be read ({error.strerror}). "
                "Check that it exists and its permissions."
            ) from error
        # A folder in it that cannot be listed is an object that cannot be read.
        yield str(error.filename)
