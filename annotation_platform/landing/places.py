"""Where images land: a folder, or a prefix of a bucket in S3."""

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from annotation_platform.errors import DataError
from annotation_platform.landing.rounds import Landed, pair_sidecars
from annotation_platform.schema.rounds import LandedObject
from annotation_platform.storage.files import write_file
from annotation_platform.storage.regular import (
    NOT_UTF8,
    is_unfinished,
    open_regular,
    printable_name,
)
from annotation_platform.storage.s3 import Bucket, S3Entry, is_s3

REPLACED = "replaced after its round was formed"


class LandingPlace(Protocol):
    """A place that other people and programs fill, and that may change at any moment."""

    address: str

    def list(self, *, now: datetime) -> Landed:
        """Return what lies there, sidecars noted at their pictures.

        Names of unfinished transfers (``.part``, ``.tmp``, …) are left alone.
        """

    def read(self, landed: LandedObject) -> bytes:
        """Return the bytes of an object as it was listed.

        Raises:
            DataError: it is gone, was replaced, or is nothing that can be read.
        """

    def read_sidecar(self, key: str) -> bytes:
        """Return the bytes of a sidecar as it is now; one that cannot be read is a DataError."""

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> bool:
        """Write a file, its sidecar first; return False where the same bytes lie there already.

        A name that is taken by other bytes is not written over: the new file gets a name of its
        own, with some digits of its SHA-256.
        """


class FolderLanding:
    """A folder and all below it. Links and devices are listed, but never followed or opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = str(folder)

    def list(self, *, now: datetime) -> Landed:
        """Return what lies there; see `LandingPlace`."""
        objects, ages = [], {}
        for path in _walk(self.folder):
            try:
                info = path.lstat()
            except FileNotFoundError:  # moved away between the listing and the look
                continue
            key = printable_name(path, self.folder)
            stamp = f"{info.st_size}-{info.st_mtime_ns}"
            landed = LandedObject(key=key, stamp=stamp, byte_size=info.st_size)
            objects.append(landed)
            # The time of the last change here; what a camera or a copy says may lie ahead.
            ages[landed] = max(0.0, now.timestamp() - info.st_ctime)
        return Landed(pair_sidecars(objects), ages)

    def read(self, landed: LandedObject) -> bytes:
        """Return the bytes of an object as it was listed; see `LandingPlace`."""
        path = self.folder / landed.key
        if "\\x" in landed.key and not path.exists():
            raise DataError(NOT_UTF8)
        with open_regular(path) as (stream, info):
            if f"{info.st_size}-{info.st_mtime_ns}" != landed.stamp:
                raise DataError(REPLACED)
            return stream.read()

    def read_sidecar(self, key: str) -> bytes:
        """Return the bytes of a sidecar as it is now; see `LandingPlace`."""
        with open_regular(self.folder / key) as (stream, _):
            return stream.read()

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> bool:
        """Write a file through an unfinished one, in one step; see `LandingPlace`."""
        for free in _names(name, data):
            path = self.folder / free
            if not path.exists():
                if sidecar:
                    write_file(path.with_name(f"{path.name}.json"), sidecar)
                write_file(path, data)
                return True
            if path.is_file() and path.read_bytes() == data:
                return False
        raise AssertionError("a name with the digest of other bytes")


class S3Landing:
    """The objects under a prefix. S3 shows an object only once it is complete."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.address = bucket.url

    # S3 has a clock of its own.
    def list(self, *, now: datetime) -> Landed:  # noqa: ARG002
        """Return what lies there; see `LandingPlace`."""
        objects, ages = [], {}
        for entry in self.bucket.list():
            if entry.key.endswith("/") or is_unfinished(entry.key):
                continue
            landed = _landed(entry)
            objects.append(landed)
            ages[landed] = entry.age_seconds
        return Landed(pair_sidecars(objects), ages)

    def find(self, bucket: str, key: str) -> LandedObject | None:
        """Return one object of a bucket as a listing has it; None if it is none of this place."""
        address = f"s3://{bucket}/{key}"
        name = address.removeprefix(f"{self.address}/")
        if name == address or is_unfinished(name) or name.endswith((".json", "/")):
            return None
        sidecars = [f"{name}.json", f"{PurePosixPath(name).with_suffix('')}.json"]
        there = self.bucket.head(name)
        if there is None:
            return None
        sidecar = next((each for each in sidecars if self.bucket.head(each)), "")
        return _landed(there, sidecar=sidecar)

    def read(self, landed: LandedObject) -> bytes:
        """Return the bytes of an object as it was listed; see `LandingPlace`."""
        return self.bucket.get(landed.key, etag=landed.stamp.partition("-")[2])

    def read_sidecar(self, key: str) -> bytes:
        """Return the bytes of a sidecar as it is now; see `LandingPlace`."""
        return self.bucket.get(key)

    def put(self, name: str, data: bytes, *, sidecar: bytes = b"") -> bool:
        """Write an object unless its name is taken; see `LandingPlace`."""
        for free in _names(name, data):
            if sidecar and self.bucket.head(free) is None:
                self.bucket.put(f"{free}.json", sidecar)
            if self.bucket.create(free, data):
                return True
            if self.bucket.get(free) == data:
                return False
        raise AssertionError("a name with the digest of other bytes")


def open_landing(url: str, client: Any = None) -> LandingPlace:
    """Return the landing place at a folder's path or an ``s3://bucket/prefix``."""
    return S3Landing(Bucket(url, client)) if is_s3(url) else FolderLanding(Path(url))


def _landed(entry: S3Entry, *, sidecar: str = "") -> LandedObject:
    stamp = f"{entry.byte_size}-{entry.etag}"
    return LandedObject(entry.key, stamp, entry.byte_size, sidecar)


def _names(name: str, data: bytes) -> Iterator[str]:
    path = PurePosixPath(name)
    yield name
    yield str(path.with_stem(f"{path.stem}-{hashlib.sha256(data).hexdigest()[:16]}"))


def _walk(folder: Path) -> Iterator[Path]:
    try:
        # os.walk does not follow links to folders; they come among the folders' names.
        for root, folders, files in os.walk(folder, onerror=_refuse):
            linked = [name for name in folders if (Path(root) / name).is_symlink()]
            names = (name for name in [*files, *linked] if not is_unfinished(name))
            yield from (Path(root) / name for name in names)
    except OSError as error:
        raise DataError(
            f"{error.filename}: the landing folder cannot be read ({error.strerror}). "
            "Check that it exists and its permissions."
        ) from error


def _refuse(error: OSError) -> None:
    raise error
