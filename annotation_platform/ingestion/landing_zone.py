"""The landing zone, where images arrive: a folder, or a prefix of a bucket in S3."""

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
    """The result of putting a file into the landing zone.

    If its bytes are there already, a missing sidecar is added; an existing sidecar is either the
    same (``KNOWN``) or another one (``DIFFERS``), which is kept.
    """

    COPIED = "copied"
    KNOWN = "known"
    DIFFERS = "differs"


REPLACED = "replaced after its round was formed"


class LandingZone(Protocol):
    """A location that other people and programs fill, and that may change at any moment."""

    address: str

    def list(self, *, now: datetime) -> Arrivals:
        """Return the objects, each image with the key of its sidecar.

        Names of unfinished transfers (``.part``, ``.tmp``, …) are ignored.
        """

    def read(self, landed: Arrival) -> bytes:
        """Return the bytes of an object in its listed state.

        Raises:
            DataError: the object is missing, was replaced, or cannot be read.
        """

    def read_sidecar(self, key: str) -> bytes:
        """Return the current bytes of a sidecar; one that cannot be read is a DataError."""

    def remove_content(
        self, may_match: Callable[[str, int], bool], matches: Callable[[bytes], bool]
    ) -> int:
        """Delete every file with matching bytes, for an erasure, and return their number.

        Matching versions of replaced or deleted files in a bucket are deleted too.

        Args:
            may_match: returns whether to read the bytes of a file, from its name and size.
            matches: returns whether bytes match.
        """

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> Put:
        """Write a file, its sidecar first; no file is ever overwritten.

        If its name is taken by other bytes, the new file gets a name with digits of its SHA-256.
        """


class FolderLandingZone:
    """A folder and its subfolders. Links and devices are listed, but never followed or opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def list(self, *, now: datetime) -> Arrivals:
        """Return the objects; see `LandingZone`."""
        objects, ages, timestamp = [], {}, now.timestamp()
        root = str(self.folder)
        for path in _walk(self.folder):
            try:
                info = os.lstat(path)
            except FileNotFoundError:  # deleted after the listing
                continue
            except OSError:
                # A file without a status fails when it is read, and is quarantined.
                info = os.stat_result((0,) * 10)
            key = printable(path[len(root) :].lstrip(os.sep))
            stamp = f"{info.st_size}-{info.st_mtime_ns}"
            landed = Arrival(key=key, stamp=stamp, byte_size=info.st_size)
            objects.append(landed)
            # Not the modification time: a camera or a copy may set it to the future.
            ages[landed] = max(0.0, timestamp - info.st_ctime)
        return Arrivals(pair_sidecars(objects), ages)

    def read(self, landed: Arrival) -> bytes:
        """Return the bytes of an object in its listed state; see `LandingZone`."""
        path = self.folder / landed.key
        if "\\x" in landed.key and not path.exists():
            raise DataError(NOT_UTF8)
        with open_regular(path) as (stream, info):
            if f"{info.st_size}-{info.st_mtime_ns}" != landed.stamp:
                raise DataError(REPLACED)
            return stream.read()

    def read_sidecar(self, key: str) -> bytes:
        """Return the current bytes of a sidecar; see `LandingZone`."""
        with open_regular(self.folder / key) as (stream, info):
            if info.st_size > MAXIMUM_BYTES:
                raise DataError(f"has {info.st_size} bytes, at most {MAXIMUM_BYTES} are allowed")
            return stream.read()

    def remove_content(
        self, may_match: Callable[[str, int], bool], matches: Callable[[bytes], bool]
    ) -> int:
        """Delete every file with matching bytes; see `LandingZone`."""
        removed = 0
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file() or path.is_symlink():
                continue
            name = printable_name(path, self.folder)
            if may_match(name, path.stat().st_size) and matches(path.read_bytes()):
                path.unlink()
                removed += 1
        return removed

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> Put:
        """Write a file atomically; see `LandingZone`."""
        return _put(self._create, self._read, name, data, sidecar)

    def _create(self, name: str, data: bytes) -> bool:
        return create_file(self.folder / name, data)

    def _read(self, name: str) -> bytes | None:
        path = self.folder / name
        return path.read_bytes() if path.is_file() else None


class S3LandingZone:
    """The objects under a prefix. S3 lists an object only after it is complete."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.address = bucket.url

    # Ages come from the clock of the S3 server.
    def list(self, *, now: datetime) -> Arrivals:  # noqa: ARG002
        """Return the objects; see `LandingZone`."""
        objects, ages = [], {}
        for entry in self.bucket.list():
            if not entry.key or entry.key.endswith("/") or is_unfinished(entry.key):
                continue
            landed = _landed(entry)
            objects.append(landed)
            ages[landed] = entry.age_seconds
        return Arrivals(pair_sidecars(objects), ages)

    def find(self, bucket: str, key: str) -> Arrival | None:
        """Return one object, without sidecar; None if it is not an image of this landing zone."""
        address = f"s3://{bucket}/{key}"
        name = address.removeprefix(f"{self.address}/")
        if not name or name == address or is_unfinished(name) or name.endswith((".json", "/")):
            return None
        entry = self.bucket.head(name)
        return None if entry is None else _landed(entry)

    def read(self, landed: Arrival) -> bytes:
        """Return the bytes of an object in its listed state; see `LandingZone`."""
        return self.bucket.get(landed.key, etag=landed.stamp.partition("-")[2])

    def read_sidecar(self, key: str) -> bytes:
        """Return the current bytes of a sidecar; see `LandingZone`."""
        return self.bucket.get(key, maximum_bytes=MAXIMUM_BYTES)

    def remove_content(
        self, may_match: Callable[[str, int], bool], matches: Callable[[bytes], bool]
    ) -> int:
        """Delete every version of an object with matching bytes; see `LandingZone`."""
        return self.bucket.remove_content(may_match, matches)

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
        existing = read(free)
        if existing not in {None, data}:
            continue
        created = not sidecar or create(f"{free}.json", sidecar)
        is_same = created or read(f"{free}.json") == sidecar
        if existing is None and is_same and create(free, data):
            return Put.COPIED
        if read(free) == data:
            return Put.KNOWN if is_same else Put.DIFFERS
    raise DataError(f"{name}: its name is taken, and so is the name with its digest. Rename it.")


def _walk(folder: Path) -> Iterator[str]:
    # Strings: a sensor polls every few seconds, and creating 100,000 Paths takes seconds.
    unlisted: list[OSError] = []
    # os.walk does not follow links to folders; it lists them as folders.
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
        # A subfolder that cannot be listed counts as an object that cannot be read.
        yield str(error.filename)
