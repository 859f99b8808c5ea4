"""The DVC remote as a store of objects by MD5, and DVC's folder objects.

DVC is imported when a remote is opened, because the import takes half a second.
"""

import errno
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import orjson

from annotation_platform.errors import PublishError, SettingsError
from annotation_platform.storage.files import disk_full, sync, write_file
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.uploading import (
    DamagedError,
    Source,
    as_file,
    bare,
    check_source,
    copy_to_bucket,
    file_md5,
    new_md5,
    write_to_folder,
)

Progress = Callable[[int, int], None]
"""Called with the number of files done and the number of all files."""

_BATCH, _FEW = 256, 32
_WRITERS = 8


def folder_object(md5_of: Mapping[str, str]) -> tuple[str, bytes]:
    """Return name and content of DVC's folder object, which lists path and MD5 of each file."""
    # The same bytes as json.dumps in a fifth of the time; every file of a version is listed.
    quoted = json.encoder.encode_basestring_ascii
    entries = [f'{{"md5": "{md5_of[path]}", "relpath": {quoted(path)}}}' for path in sorted(md5_of)]
    data = f"[{', '.join(entries)}]".encode()
    return f"{_md5(data)}.dir", data


@dataclass(frozen=True)
class Checked:
    """The result of reading an object: its problem, empty if it is intact, and its size."""

    problem: Literal["", "missing", "damaged"]
    byte_size: int = 0  # 0 if it is missing


class DvcRemote:
    """A DVC remote, local folder or bucket, opened without a DVC repository."""

    def __init__(self, url: str, options: Mapping[str, str] | None = None) -> None:
        from dvc.exceptions import DvcException
        from dvc.fs import get_cloud_fs
        from dvc_data.hashfile.db import get_odb

        self.url = url
        if "://" not in url and not os.path.isabs(url):  # noqa: PTH117
            # A relative path would point inside the clone of every reader.
            raise SettingsError(
                f"{url}: a remote is a URL or an absolute path. Give the absolute path."
            )
        try:
            kind, config, path = get_cloud_fs({}, url=url, **(options or {}))
            fs = kind(**config)
        except (DvcException, ImportError, ValueError) as error:
            raise SettingsError(
                f"{url}: DVC cannot use this remote ({error}). Correct ANNOTATION_REMOTE."
            ) from error
        self._fs: Any = fs
        self._odb: Any = get_odb(fs, fs.join(path, "files", "md5"), hash_name="md5")
        self._records = fs.join(path, "registries")
        self._is_local = fs.protocol == "local"

    def missing(self, names: Iterable[str]) -> set[str]:
        """Return the objects that the remote lacks."""
        wanted = sorted(set(names))
        with self._errors():
            return set(wanted) - set(self._odb.oids_exist(wanted))

    def read(self, name: str) -> bytes | None:
        """Return the content of an object, or None if the remote lacks it."""
        with self._errors(), suppress(FileNotFoundError):
            content: bytes = self._fs.cat_file(self._odb.oid_to_path(name))
            return content
        return None

    def read_intact(self, name: str, title: str) -> bytes:
        """Return the content of an object; a PublishError if it is missing or damaged."""
        data = self.read(name)
        if data is None or _md5(data) != name:
            raise self.object_error(f"{title} (object {name})", found=data is not None)
        return data

    def object_error(self, title: str, *, found: bool) -> PublishError:
        """Return the error for an object that is missing, or damaged if it is ``found``."""
        return PublishError(
            f"{self.url}: {title} is {'damaged' if found else 'missing'}. `annotation-platform "
            "version verify --repair` restores objects that the lake still has."
        )

    def read_folder(self, name: str) -> dict[str, str]:
        """Return relative path to MD5 of each file in a folder object.

        Raises:
            PublishError: the object is missing or damaged.
        """
        data = self.read(name)
        if data is None:
            raise PublishError(
                f"{self.url}: lacks the folder {name} of a published version. Set "
                "ANNOTATION_REMOTE to the remote it was published to, or copy its objects here."
            )
        if f"{_md5(data)}.dir" != name:
            raise PublishError(
                f"{self.url}: the folder object {name} is damaged. Restore it from a copy."
            )
        return {entry["relpath"]: entry["md5"] for entry in orjson.loads(data)}

    def upload(self, sources: Mapping[str, Source]) -> None:
        """Write each object, by MD5, then read it back and hash it.

        An object with its final name is complete at every moment; one that arrives damaged is
        removed.

        Raises:
            PublishError: the content of a source does not match its name, an object arrived
                damaged, or the remote cannot be used.
        """
        names = sorted(sources)
        size = _FEW if self._is_local else _BATCH
        batches = [
            {name: sources[name] for name in names[start : start + size]}
            for start in range(0, len(names), size)
        ]
        with self._errors():
            self._write_batches(batches)
            if self._is_local:
                for folder in {os.path.dirname(self._odb.oid_to_path(name)) for name in names}:  # noqa: PTH120  as many as names
                    sync(folder)

    def _write_batches(self, batches: Sequence[Mapping[str, Source]]) -> None:
        if not self._is_local:
            for batch in batches:
                self._copy(batch)
            return
        started, worked = time.perf_counter(), time.thread_time()
        for batch in batches[:1]:
            self._write_locally(batch)
        used = time.thread_time() - worked
        waited = time.perf_counter() - started - used
        # If the first batch did not wait for the disk, threads would only double the cost.
        with ThreadPoolExecutor(max_workers=_WRITERS if waited > used else 1) as pool:
            list(pool.map(self._write_locally, batches[1:]))

    def all(self) -> Iterator[str]:
        """Return the names of all objects in the remote."""
        with self._errors():
            yield from self._odb.all()

    def written_at(self, name: str) -> datetime:
        """Return the time at which an object was written, in UTC."""
        with self._errors():
            entry = self._fs.info(self._odb.oid_to_path(name))
        written = entry.get("LastModified") or entry["mtime"]
        return written if isinstance(written, datetime) else datetime.fromtimestamp(written, UTC)

    def download(self, name: str, take: Callable[[bytes], object]) -> bool:
        """Pass an object in pieces of at most 1 MiB to ``take``; False if the remote lacks it."""
        with self._errors():
            try:
                with self._fs.open(self._odb.oid_to_path(name), "rb") as stream:
                    while piece := stream.read(1 << 20):
                        take(piece)
            except FileNotFoundError:
                return False
        return True

    def check(self, name: str) -> Checked:
        """Read a whole object and return whether its content matches its name."""
        target = self._odb.oid_to_path(name)
        with self._errors():
            try:
                digest, byte_size = self._read_through(target)
            except FileNotFoundError as error:
                if "bucket does not exist" in str(error):
                    # The address is wrong, so the object is not reported as missing.
                    raise self._unreachable(error) from error
                return Checked("missing")
        return Checked("" if digest == bare(name) else "damaged", byte_size)

    def replace(self, name: str, source: Source) -> bool:
        """Write an object that is missing or damaged.

        Returns:
            False if the content of the source does not match the name; nothing has changed then.
        """
        with tempfile.TemporaryDirectory(prefix="annotation-repair-") as folder:
            path = as_file(name, source, Path(folder))
            if not path.is_file() or file_md5(path, source.title) != bare(name):
                return False
        # The upload renames a complete file, so no reader sees a part of it.
        self.upload({name: source})
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; missing ones are ignored."""
        with self._errors():
            for name in names:
                with suppress(FileNotFoundError):
                    self._fs.remove(self._odb.oid_to_path(name))

    def erase(self, names: Iterable[str]) -> None:
        """Remove objects with all their versions in a versioned bucket."""
        for name in names:
            if self._fs.protocol == "s3":
                self._erase_versions(self._odb.oid_to_path(name))
            else:
                self.remove([name])

    def _erase_versions(self, path: str) -> None:
        bucket, _, key = path.partition("/")
        with self._errors():
            client = self._fs.fs
            listing = client.call_s3("list_object_versions", Bucket=bucket, Prefix=key)
            for each in (*listing.get("Versions", ()), *listing.get("DeleteMarkers", ())):
                if each["Key"] == key:
                    client.call_s3(
                        "delete_object", Bucket=bucket, Key=key, VersionId=each["VersionId"]
                    )
            client.invalidate_cache()

    def records(self) -> list[str]:
        """Return the names of the registry records in the remote, sorted; see ``sharing.py``."""
        with self._errors():
            return sorted(self._fs.name(path) for path in self._fs.find(self._records))

    def read_record(self, name: str) -> bytes | None:
        """Return the content of a registry record, or None if there is no such record."""
        with self._errors(), suppress(FileNotFoundError):
            content: bytes = self._fs.cat_file(self._fs.join(self._records, name))
            return content
        return None

    def write_record(self, name: str, data: bytes) -> None:
        """Write a registry record atomically."""
        path = self._fs.join(self._records, name)
        if self._is_local:
            write_file(Path(path), data)
            return
        with self._errors():
            self._fs.pipe_file(path, data)

    def remove_record(self, name: str) -> None:
        """Remove a registry record; a missing one is ignored."""
        with self._errors(), suppress(FileNotFoundError):
            self._fs.remove(self._fs.join(self._records, name))

    def _write_locally(self, sources: Mapping[str, Source]) -> None:
        for name, source in sources.items():
            try:
                write_to_folder(name, source, Path(self._odb.oid_to_path(name)))
            except DamagedError:
                raise self._damaged(name) from None

    def _copy(self, sources: Mapping[str, Source]) -> None:
        """Write objects into a bucket, and remove those that arrived damaged."""
        targets = {name: self._odb.oid_to_path(name) for name in sources}
        copy_to_bucket(self._fs, targets, sources)
        with ThreadPoolExecutor(max_workers=16) as pool:
            found = list(pool.map(self._read_through, targets.values()))
        for (name, target), (digest, _) in zip(targets.items(), found, strict=True):
            if digest != bare(name):
                self._fs.remove(target)
                check_source(name, sources[name])
                raise self._damaged(name)

    def _damaged(self, name: str) -> PublishError:
        return PublishError(
            f"{self.url}: object {name} arrived damaged and was removed. "
            "Check the storage and run again."
        )

    def _read_through(self, target: str) -> tuple[str, int]:
        digest, byte_size = new_md5(), 0
        with self._fs.open(target, "rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
                byte_size += len(piece)
        return digest.hexdigest(), byte_size

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise disk_full(self.url) from error
            raise self._unreachable(error) from error
        except (BotoCoreError, ClientError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> PublishError:
        reason = " ".join(str(error).split())
        return PublishError(
            f"{self.url}: the remote cannot be used ({reason}). "
            "Check ANNOTATION_REMOTE and its credentials, and run again."
        )


_LOCK_SECONDS = 600.0


@contextmanager
def registry_lock(folder: Path) -> Iterator[None]:
    """Hold DVC's lock of the repository in ``folder``; without ``.dvc``, one in the git directory.

    It keeps garbage collection, DVC's and ours, from removing objects that no commit names yet. The
    operating system releases the lock of a dead process.

    Raises:
        PublishError: another process holds the lock for more than ten minutes.
        SettingsError: the lock file cannot be created.
    """
    from dvc.lock import Lock, LockError

    path = folder / ".dvc" / "tmp" / "lock"
    if not (folder / ".dvc").is_dir():
        # Publishers and garbage collection exclude each other in a bare repository too.
        path = Git(folder).git_dir / "annotation-platform.lock"
    end = time.monotonic() + _LOCK_SECONDS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot be created ({error.strerror}). Check the owner of the registry."
        ) from error
    lock = Lock(str(path))
    while True:
        try:
            lock.lock()
            break
        except LockError as error:
            if time.monotonic() > end:
                raise PublishError(
                    f"{path}: another DVC process has held the registry for {_LOCK_SECONDS:.0f} "
                    "seconds. Wait for it to end and run again."
                ) from error
    try:
        yield
    finally:
        lock.unlock()


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
