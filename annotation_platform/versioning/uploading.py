"""How an object gets into a remote: whole under its name, hashed there, or not at all."""

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
    """A file that lies in S3: its address, and how to get it where the bucket does not copy it."""

    url: str
    fetch: Callable[[], Path]


@dataclass(frozen=True)
class Source:
    """Where the content of an object comes from, and what errors call it."""

    content: Path | bytes | InBucket
    what: str


class DamagedError(Exception):
    """An object did not arrive as its name says, though its source is as it should be."""


def write_to_folder(name: str, source: Source, target: Path) -> None:
    """Write an object beside its place, read it back, and move it there if it is what it should be.

    Raises:
        PublishError: the source cannot be read, or is another content.
        DamagedError: it did not arrive whole.
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
    """Write a new file, and return the MD5 of what can be read of it."""
    with _created(path) as out:
        if isinstance(source.content, bytes):
            out.write(source.content)
        else:
            _copy_file(source.content, out, source.what)
        out.flush()
        os.fsync(out.fileno())
        out.seek(0)
        digest = new_md5()
        # Most files are small: hashlib's own reading would take a quarter of a MiB for each.
        while piece := out.read(_PIECE):
            digest.update(piece)
        # Read-only is DVC's mark of an object that was hashed: others are hashed when met.
        os.fchmod(out.fileno(), _HASHED)
    return digest.hexdigest()


def _created(path: Path) -> BufferedRandom:
    """Return a new file to write to and read back; its folder is made where there is none."""
    try:
        return path.open("x+b")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("x+b")


def copy_to_bucket(fs: Any, targets: Mapping[str, str], sources: Mapping[str, Source]) -> None:
    """Write objects into a bucket; what lies in S3 already is copied there by S3 itself.

    ``fs`` is DVC's file system of the remote, ``targets`` where in it each object goes. Reading
    them back is the caller's to do.

    Raises:
        PublishError: a source cannot be read, or is another content; nothing was written then.
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
            for _ in pool.map(lambda name: _check_file(name, files[name], left[name].what), files):
                pass
        generic.copy(
            localfs, [str(path) for path in files.values()], fs, [targets[name] for name in files],
            batch_size=fs.jobs,
        )  # fmt: skip


def as_file(name: str, source: Source, folder: Path) -> Path:
    """Return a file with the content of a source: its own, or one made in ``folder``."""
    content = fetched(source).content
    if isinstance(content, bytes):
        path = folder / name
        path.write_bytes(content)
        return path
    assert isinstance(content, Path)
    return content


def fetched(source: Source) -> Source:
    """Return the source as one on this machine."""
    if isinstance(source.content, InBucket):
        return replace(source, content=source.content.fetch())
    return source


def check_source(name: str, source: Source) -> None:
    """Raise a PublishError if the file that a source is has changed since it was hashed."""
    content = fetched(source).content
    if isinstance(content, Path):
        _check_file(name, content, source.what)


def file_md5(path: Path, what: str) -> str:
    """Return the MD5 of a file; one that cannot be read is a PublishError."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, new_md5).hexdigest()
    except OSError as error:
        raise _unreadable(path, what, error) from error


def new_md5() -> "hashlib._Hash":
    """Return an empty MD5, which is no matter of security here."""
    return hashlib.md5(usedforsecurity=False)


def bare(name: str) -> str:
    """Return the MD5 that an object's name says."""
    return name.removesuffix(".dir")


def _check_file(name: str, path: Path, what: str) -> None:
    found = file_md5(path, what)
    if found != bare(name):
        raise PublishError(
            f"{what}: {path} has MD5 {found}, but had {bare(name)} when it was cleaned. "
            "Restore the file, or clean its round again."
        )


def _copied(fs: Any, source: Source, target: str) -> bool:
    """Return whether S3 copied the object itself; another account or server may not be able to."""
    if not isinstance(source.content, InBucket) or fs.protocol != "s3":
        return False
    try:
        fs.fs.cp_file(source.content.url.removeprefix("s3://"), target)
    except OSError:
        return False
    return True


def _copy_file(source: Path | InBucket, out: BinaryIO, what: str) -> None:
    """Copy a file; where the file system can share its blocks between the two, it does."""
    assert isinstance(source, Path)
    try:
        stream = source.open("rb")
    except OSError as error:
        raise _unreadable(source, what, error) from error
    with stream:
        try:
            while os.copy_file_range(stream.fileno(), out.fileno(), 1 << 30):
                pass
        except OSError as error:
            if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                # It does not say which of the two files it was.
                file_md5(source, what)
                raise
            stream.seek(0)
            out.seek(0)
            shutil.copyfileobj(stream, out, 1 << 20)


def _unreadable(path: Path, what: str, error: OSError) -> PublishError:
    return PublishError(
        f"{what}: {path} cannot be read ({error.strerror}). Restore it and publish again."
    )
