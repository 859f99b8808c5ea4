"""Write objects into a remote: complete and verified under their name, or not at all."""

import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BufferedRandom
from pathlib import Path
from typing import Any, BinaryIO

from annotation_platform.errors import PublishError

_HASHED = 0o444
_COPIES = 16
_PIECE = 1 << 20


@dataclass(frozen=True)
class InBucket:
    """A file in S3: its address, and a function that downloads it if S3 cannot copy it."""

    url: str
    fetch: Callable[[], Path]


@dataclass(frozen=True)
class Source:
    """The source of an object's content, and its name in errors."""

    content: Path | bytes | InBucket
    title: str


class DamagedError(Exception):
    """An object was damaged on the way into the remote; its source is intact."""


def write_to_folder(name: str, source: Source, target: Path) -> None:
    """Write an object to a temporary file next to ``target``, verify it and rename it.

    Raises:
        PublishError: the source cannot be read, or its content does not match the name.
        DamagedError: the written file does not match the name.
        OSError: the folder cannot be written.
    """
    source = fetched(source)
    part = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        if _written(part, source) == bare(name):
            part.rename(target)
            return
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.unlink()
    check_source(name, source)
    raise DamagedError


def _written(path: Path, source: Source) -> str:
    """Write a new file and return the MD5 of its content as read back."""
    with _created(path) as out:
        if isinstance(source.content, bytes):
            out.write(source.content)
        else:
            _copy_file(source.content, out, source.title)
        out.flush()
        os.fsync(out.fileno())
        out.seek(0)
        digest = new_md5()
        # Most files are small; hashlib.file_digest would allocate a quarter of a MiB for each.
        while piece := out.read(_PIECE):
            digest.update(piece)
        # DVC treats a read-only object as one that was hashed, and hashes all others.
        os.fchmod(out.fileno(), _HASHED)
    return digest.hexdigest()


def _created(path: Path) -> BufferedRandom:
    """Return a new file for writing and reading, in a folder that is created if necessary."""
    try:
        return path.open("x+b")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("x+b")


def copy_to_bucket(fs: Any, targets: Mapping[str, str], sources: Mapping[str, Source]) -> None:
    """Write objects into a bucket; S3 itself copies sources that are in S3.

    ``fs`` is DVC's file system of the remote, ``targets`` the path in it of each object. The caller
    verifies the written objects.

    Raises:
        PublishError: a source cannot be read, or its content does not match the name; then no
            source of this machine was written.
    """
    from dvc_objects.fs import generic
    from dvc_objects.fs.local import localfs

    with ThreadPoolExecutor(max_workers=_COPIES) as pool:
        copied = pool.map(lambda name: _copied(fs, sources[name], targets[name]), sources)
        left = {name: sources[name] for name, done in zip(sources, copied, strict=True) if not done}
    # The temporary folder may be full as well as the remote.
    with tempfile.TemporaryDirectory(prefix="annotation-publish-") as folder:
        files = {name: as_file(name, source, Path(folder)) for name, source in left.items()}
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda name: _check_file(name, files[name], left[name].title), files):
                pass
        generic.copy(
            localfs, [str(path) for path in files.values()], fs, [targets[name] for name in files],
            batch_size=fs.jobs,
        )  # fmt: skip


def as_file(name: str, source: Source, folder: Path) -> Path:
    """Return a file with the content of a source: its own file, or a new one in ``folder``."""
    content = fetched(source).content
    if isinstance(content, bytes):
        path = folder / name
        path.write_bytes(content)
        return path
    assert isinstance(content, Path)
    return content


def fetched(source: Source) -> Source:
    """Return the source with its content on this machine."""
    if isinstance(source.content, InBucket):
        return replace(source, content=source.content.fetch())
    return source


def check_source(name: str, source: Source) -> None:
    """Raise a PublishError if the file of a source does not have the MD5 in ``name``."""
    content = fetched(source).content
    if isinstance(content, Path):
        _check_file(name, content, source.title)


def file_md5(path: Path, title: str) -> str:
    """Return the MD5 of a file; a PublishError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, new_md5).hexdigest()
    except OSError as error:
        raise _unreadable(path, title, error) from error


def new_md5() -> "hashlib._Hash":
    """Return a new MD5 object; MD5 is not used for security here."""
    return hashlib.md5(usedforsecurity=False)


def bare(name: str) -> str:
    """Return the MD5 in the name of an object."""
    return name.removesuffix(".dir")


def _check_file(name: str, path: Path, title: str) -> None:
    found = file_md5(path, title)
    if found != bare(name):
        raise PublishError(
            f"{title}: {path} has MD5 {found}, but had {bare(name)} when it was cleaned. "
            "Restore the file, or clean its round again."
        )


def _copied(fs: Any, source: Source, target: str) -> bool:
    """Return whether S3 copied the object; it may refuse to copy from another account or server."""
    if not isinstance(source.content, InBucket) or fs.protocol != "s3":
        return False
    try:
        fs.fs.cp_file(source.content.url.removeprefix("s3://"), target)
    except OSError:
        return False
    return True


def _copy_file(source: Path | InBucket, out: BinaryIO, title: str) -> None:
    """Copy a file, sharing its blocks if the file system supports that."""
    assert isinstance(source, Path)
    try:
        stream = source.open("rb")
    except OSError as error:
        raise _unreadable(source, title, error) from error
    with stream:
        try:
            while os.copy_file_range(stream.fileno(), out.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                # The error may concern either file. This raises if the source cannot be read.
                file_md5(source, title)
                raise
            stream.seek(0)
            out.seek(0)
            shutil.copyfileobj(stream, out, 1 << 20)


def _unreadable(path: Path, title: str, error: OSError) -> PublishError:
    return PublishError(
        f"{title}: {path} cannot be read ({error.strerror}). Restore the file and publish again."
    )
