"""Images in a zip or tar, which is accepted or refused as a whole and never unpacked to disk."""

import bz2
import copy
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from annotation_platform.errors import DataError
from annotation_platform.ingestion.arrivals import IncomingFile, landing_name, shown_name
from annotation_platform.storage.regular import open_regular

_CHUNK = 1 << 16
_BLOCK = tarfile.BLOCKSIZE
_FREE_BYTES = 1 << 20
"""Unpacked size that is always allowed: below it, no ratio is harmful."""
_XZ_MEMORY = 128 << 20
_LONGEST_TAR_HEADER = 1 << 16
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flags of a zip member: encrypted data, strong encryption, encrypted name."""

# The errors that libraries raise for a damaged zip or tar or its compressed data.
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError,
    OSError, ValueError, OverflowError, NotImplementedError,
)  # fmt: skip


@dataclass(frozen=True)
class ArchiveLimits:
    """Limits on the content of an archive.

    Attributes:
        members: number of entries, folders and skipped files included.
        total_bytes: unpacked bytes in total, headers of a tar included.
        member_bytes: unpacked bytes of one file; reading it takes as much memory.
        ratio: unpacked bytes per packed byte, of each zip member and of a whole archive. The
            first MiB is not limited.
    """

    members: int = 20_000
    total_bytes: int = 8_000_000_000
    member_bytes: int = 200_000_000
    ratio: float = 100.0


@dataclass(frozen=True)
class _Member:
    name: str
    is_folder: bool
    size: int
    chunks: Iterator[bytes]


def is_archive(path: Path) -> bool:
    """Return whether a file is a zip or a tar, plain or packed with gzip, bzip2 or xz.

    Its first bytes decide, not its name; a packed file counts only if it contains a tar. A link, a
    device or an unreadable file is not an archive; opening it as an image gives the error.
    """
    try:
        with open_regular(path) as (stream, _):
            return _kind(stream) is not None
    except (DataError, OSError):
        return False


def read_archive(path: Path, limits: ArchiveLimits = ArchiveLimits()) -> Iterator[IncomingFile]:
    """Yield the files of an archive, in its order, after reading and checking all of it.

    The archive is read twice, one member in memory at a time, and nothing is written to disk.
    Folders, ``__MACOSX/``, ``.DS_Store`` and files whose name starts with ``._`` are checked like
    the rest but skipped. An archive within the archive is treated as a plain file.

    Raises:
        DataError: the file is not an archive, or it is damaged, over a limit or encrypted; a zip
            uses a compression other than deflate; a member is a link, a device or a sparse file,
            appears twice, shares its bytes with another, or has a name that `landing_name`
            refuses. Nothing is yielded then.
    """
    try:
        with open_regular(path) as (stream, info):
            for _, chunks in _checked(stream, info.st_size, limits):
                for _ in chunks:
                    pass
            for name, chunks in _checked(stream, info.st_size, limits):
                yield IncomingFile(name, b"".join(chunks))
    except DataError as error:
        raise DataError(f"{path}: {error}. No file of the archive was taken.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: the name {shown_name(error.object)} is not UTF-8; rename it. No file of the "
            "archive was taken."
        ) from error
    except _DAMAGED as error:
        raise DataError(
            f"{path}: damaged archive ({error or type(error).__name__}). No file of it was taken; "
            "download or pack it again."
        ) from error


def _checked(
    stream: BinaryIO, byte_size: int, limits: ArchiveLimits
) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the name and the bytes of each file; the bytes must be read before the next file."""
    kind = _kind(stream)
    if kind is None:
        raise DataError("neither a zip nor a tar; pass it as an image, or leave it out")
    members = (
        _zip_members(stream, byte_size, limits)
        if kind == "zip"
        else _tar_members(_Tape(stream, kind, limits))
    )
    names: set[str] = set()
    for count, member in enumerate(members, start=1):
        if count > limits.members:
            raise DataError(f"more than {limits.members} members; split the archive")
        if member.size > limits.member_bytes:
            raise DataError(
                f"{shown_name(member.name)} has {member.size} bytes, at most {limits.member_bytes} "
                "are allowed; leave it out"
            )
        if member.is_folder and PurePosixPath(member.name) == PurePosixPath():
            continue
        name = landing_name(member.name)
        if member.is_folder or _is_junk(name):
            continue
        if name in names:
            raise DataError(f"{shown_name(name)} is in the archive twice; keep one of them")
        names.add(name)
        yield name, member.chunks
    for name in names:
        for parent in PurePosixPath(name).parents:
            if str(parent) in names:
                raise DataError(f"{shown_name(str(parent))} is a file and a folder; rename one")


def _is_junk(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


def _kind(stream: BinaryIO) -> str | None:
    """Return the kind of an open archive: ``zip``, ``gzip``, ``bzip2``, ``xz``, ``tar`` or None."""
    stream.seek(0)
    head = stream.read(_BLOCK)
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "zip"
    magic = {"gzip": b"\x1f\x8b\x08", "bzip2": b"BZh", "xz": b"\xfd7zXZ\0"}
    kind = next((kind for kind, start in magic.items() if head.startswith(start)), "tar")
    try:
        start = _Tape(stream, kind, ArchiveLimits()).read(_BLOCK)
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except _DAMAGED:
        return None
    return kind


def _zip_members(stream: BinaryIO, byte_size: int, limits: ArchiveLimits) -> Iterator[_Member]:
    # ZipFile reads the whole directory at once and creates an object for each entry.
    short_reads = _ShortReads(stream, longest=_CHUNK + 512 * limits.members)
    # Names without the UTF-8 flag must be UTF-8 too: no other encoding can be relied on.
    with zipfile.ZipFile(short_reads, metadata_encoding="utf-8") as archive:
        members = archive.infolist()
        _check_zip(members, byte_size, limits)
        for info in members:
            # `filename` of zipfile ends at a NUL byte; `orig_filename` is complete.
            name = info.orig_filename
            yield _Member(name, name.endswith("/"), info.file_size, _zip_chunks(archive, info))


def _check_zip(members: list[zipfile.ZipInfo], byte_size: int, limits: ArchiveLimits) -> None:
    for info in members:
        shown = shown_name(info.orig_filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind == stat.S_IFLNK:
            raise DataError(f"{shown} is a link; pack the file itself")
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise DataError(f"{shown} is neither a file nor a folder; leave it out")
        if info.flag_bits & _ENCRYPTED:
            raise DataError(f"{shown} is encrypted; pack it again without a password")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise DataError(f"{shown} is not compressed with deflate; pack it again")
        _check_ratio(shown, info.compress_size, info.file_size, limits)
    total = sum(info.file_size for info in members)
    if total > limits.total_bytes:
        raise DataError(_too_many_bytes(limits))
    _check_ratio("the archive", byte_size, total, limits)
    # A member takes at least 30 bytes of header and its data.
    ends = sorted((info.header_offset, info.compress_size + 30) for info in members)
    for (offset, length), (following, _) in pairwise([*ends, (byte_size, 0)]):
        if offset + length > following:
            raise DataError("some members share their bytes; pack it again")


def _zip_chunks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    # zipfile stops at the declared size; a larger declared size reveals a wrong one.
    enlarged = copy.copy(info)
    enlarged.file_size += 2 * _CHUNK
    count = 0
    with archive.open(enlarged) as member:
        while chunk := member.read(_CHUNK):
            count += len(chunk)
            if count > info.file_size:
                break
            yield chunk
    if count != info.file_size:
        raise DataError(
            f"{shown_name(info.orig_filename)} does not have its declared size; pack it again"
        )


class _ShortReads:
    """An open file that limits the bytes of one read, whatever size a header requests."""

    def __init__(self, stream: BinaryIO, longest: int) -> None:
        self._stream, self._longest = stream, longest
        self.seek, self.tell, self.seekable = stream.seek, stream.tell, stream.seekable

    def read(self, size: int = -1) -> bytes:
        if size > self._longest:
            raise DataError("its directory is too long for the allowed members; split it")
        return self._stream.read(size)


class _Tape:
    """The unpacked bytes of a tar as a stream, with a limit on their number."""

    def __init__(self, stream: BinaryIO, kind: str, limits: ArchiveLimits) -> None:
        self._packed, self._limits, self._count = stream, limits, 0
        self._pieces = _unpacked(stream, kind)
        self._piece = io.BytesIO()

    def chunks(self, size: int) -> Iterator[bytes]:
        """Yield the next ``size`` bytes; EOFError if there are fewer."""
        while size:
            chunk = self.some(min(size, _CHUNK))
            if not chunk:
                raise EOFError("it is truncated")
            size -= len(chunk)
            yield chunk

    def read(self, size: int) -> bytes:
        """Return the next ``size`` bytes; EOFError if there are fewer."""
        return b"".join(self.chunks(size))

    def some(self, most: int) -> bytes:
        """Return up to ``most`` of the next bytes; none at the end."""
        while not (some := self._piece.read(most)):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._piece = io.BytesIO(piece)
            self._count += len(piece)
            if self._count > self._limits.total_bytes:
                raise DataError(_too_many_bytes(self._limits))
            _check_ratio("the archive", self._packed.tell(), self._count, self._limits)
        return some


def _tar_members(tape: _Tape) -> Iterator[_Member]:
    """Yield the members of a tar.

    ``tarfile`` reads only single headers here: its own loop reads extended headers of any length
    into memory, and stops at a damaged one without an error.
    """
    extended: dict[str, str] = {}
    while (block := tape.read(_BLOCK)).strip(b"\0"):
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if header.type in {tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE}:
            extended |= _extended(_tar_header(tape, header.size))
        elif header.type == tarfile.XGLTYPE:
            if _extended(_tar_header(tape, header.size)):
                raise DataError("one header gives all members a name or size; pack it again")
        elif header.type == tarfile.GNUTYPE_LONGNAME:
            long_name = _tar_header(tape, header.size).rstrip(b"\0")
            extended["path"] = long_name.decode("utf-8", "surrogateescape")
        elif header.type == tarfile.GNUTYPE_LONGLINK:
            raise DataError("it contains a link; pack the files themselves")
        else:
            name = extended.get("path", header.name)
            size = int(extended.get("size", header.size))
            _check_tar(name, header.type, size)
            chunks = iter(()) if header.isdir() else tape.chunks(size)
            yield _Member(name, header.isdir(), 0 if header.isdir() else size, chunks)
            for _ in chunks:
                pass
            if not header.isdir():
                tape.read(-size % _BLOCK)
            extended = {}
    if extended:
        raise DataError("its last header belongs to no member; pack it again")
    while rest := tape.some(_CHUNK):
        if rest.strip(b"\0"):
            raise DataError("data follows its end; pack it again")


def _check_tar(name: str, kind: bytes, size: int) -> None:
    if kind in {tarfile.LNKTYPE, tarfile.SYMTYPE}:
        raise DataError(f"{shown_name(name)} is a link; pack the file itself")
    if kind not in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.DIRTYPE}:
        raise DataError(f"{shown_name(name)} is neither a file nor a folder; leave it out")
    if size < 0:
        raise DataError(f"{shown_name(name)} has a size below zero; pack it again")


def _tar_header(tape: _Tape, size: int) -> bytes:
    if not 0 <= size <= _LONGEST_TAR_HEADER:
        raise DataError(
            f"a header has {size} bytes, at most {_LONGEST_TAR_HEADER} are allowed; pack it again"
        )
    return tape.read(size + -size % _BLOCK)[:size]


def _extended(header: bytes) -> dict[str, str]:
    """Return name and size from a pax header, which has lines like ``12 path=a.b``."""
    found, start = {}, 0
    while start < len(header):
        length = int(header[start : header.index(b" ", start, start + 7)])
        line = header[start : start + length]
        key, equals, value = line.partition(b" ")[2].partition(b"=")
        if not equals or len(line) != length or not value.endswith(b"\n"):
            raise ValueError("an extended header cannot be read")
        if key.startswith(b"GNU.sparse"):
            raise DataError("it contains a sparse file; pack it again without --sparse")
        if key in {b"path", b"size"}:
            found[key.decode()] = value[:-1].decode("utf-8", "surrogateescape")
        start += length
    return found


def _unpacked(stream: BinaryIO, kind: str) -> Iterator[bytes]:
    """Yield the bytes of a packed file, in pieces of at most 64 KiB."""
    stream.seek(0)
    if kind == "gzip":
        return iter(partial(gzip.GzipFile(fileobj=stream).read1, _CHUNK), b"")
    if kind == "bzip2":
        return iter(partial(bz2.BZ2File(stream).read1, _CHUNK), b"")
    return _xz_unpacked(stream) if kind == "xz" else iter(partial(stream.read, _CHUNK), b"")


def _xz_unpacked(stream: BinaryIO) -> Iterator[bytes]:
    # lzma.LZMAFile would allocate as much memory as the file requests.
    packed = stream.read(_CHUNK)
    while packed:
        unpack = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        while not unpack.eof:
            yield unpack.decompress(packed, _CHUNK)
            packed = stream.read(_CHUNK) if unpack.needs_input else b""
            if unpack.needs_input and not packed:
                raise EOFError("it is truncated")
        # Another stream may follow, after zeros.
        packed = unpack.unused_data.lstrip(b"\0")
        while not packed and (more := stream.read(_CHUNK)):
            packed = more.lstrip(b"\0")


def _too_many_bytes(limits: ArchiveLimits) -> str:
    return f"more than {limits.total_bytes} bytes unpacked; split it"


def _check_ratio(name: str, packed: int, unpacked: int, limits: ArchiveLimits) -> None:
    if unpacked > _FREE_BYTES and unpacked > limits.ratio * packed:
        raise DataError(
            f"{name} unpacks to more than {limits.ratio:g} times its size, unlike any image; "
            "pack it again without compression"
        )
