"""The log of reads and writes of the lake: a line of JSON per access, a file per day, chained."""

import fcntl
import hashlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

from pyarrow import fs

from annotation_platform.storage.chain import Line, last_link, make_line, split_lines
from annotation_platform.storage.files import cannot_write, disk_full, sync
from annotation_platform.storage.forwarding import ForwardingStore
from annotation_platform.storage.objects import ObjectStore

_END = ".end"
"""The file with the name of the current file and the known number of events; locks the log."""

_END_CONTENT = re.compile(rb"(\d{4}-\d\d-\d\d\.jsonl) (\d{10})\n")
_BLOCK = 4096


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LogHead:
    """The last line of a log: the id of the log, the file, and the line's number and SHA-256."""

    home: str
    file: str
    number: int
    sha256: str

    @classmethod
    def of(cls, content: object) -> "LogHead | None":
        """Return the head from the output of ``asdict``; None for anything else."""
        match content:
            case {
                "home": str(home),
                "file": str(file),
                "number": int(number),
                "sha256": str(sha256),
            }:
                return cls(home, file, number, sha256)
            case _:
                return None


@dataclass(frozen=True)
class AccessLog:
    """A folder of ``2026-05-01.jsonl`` files, which several processes write at once.

    Each line has the digest of the previous one, also across midnight (``storage/chain.py``). Files
    of past days may be deleted, the oldest first; the newest must stay: the chain continues from
    its last line.

    Attributes:
        folder: the folder of the log.
        who: returns the actor, such as the run and the asset; called for every line.
        clock: returns the time, in UTC; called for every line.
    """

    folder: Path
    who: Callable[[], dict[str, str]]
    clock: Callable[[], datetime] = _now

    @cached_property
    def home(self) -> str:
        """The id of this log in lines and events; it differs between homes."""
        address = f"{socket.gethostname()}:{self.folder.absolute()}"
        return hashlib.sha256(address.encode()).hexdigest()[:12]

    def write(self, action: str, key: str, *, entries: int | None = None, **facts: str) -> None:
        """Append one line, in one write.

        Args:
            action: the kind of access.
            key: the object of the lake.
            entries: the number of event entries in the lake, where it is known.
            facts: further fields of the line.

        Raises:
            SettingsError: the line cannot be written; then nothing is.
        """
        fields = {"action": action, "key": key, **facts, **self.who(), "home": self.home}
        with self._locked() as end:
            now = self.clock()
            # A clock that is set back across midnight must not break the chain.
            file = max(f"{now:%Y-%m-%d}.jsonl", end.file)
            self._append(file, {"at": now.isoformat(timespec="milliseconds"), **fields})
            known = end.entries if entries is None else entries
            if (file, known) != (end.file, end.entries):
                os.pwrite(end.handle, f"{file} {known:010d}\n".encode(), 0)

    def entries(self) -> int:
        """Return the number of event entries last passed to ``write``; 0 at first."""
        with self._locked() as end:
            return end.entries

    def head(self) -> LogHead | None:
        """Write the log to disk and return its last line; None if there is none."""
        with self._locked():
            paths = [path for path in reversed(self._paths()) if path.stat().st_size]
            if not paths:
                return None
            for path in (paths[0], self.folder):
                sync(path)
            link = last_link(_backwards(paths))
            return LogHead(self.home, paths[0].name, link.number, link.sha256)

    def lines(self, *, since: str = "") -> Iterator[Line]:
        """Yield every line written before the call, in order, from the day ``since`` on."""
        if not self.folder.is_dir():
            return
        with self._locked():
            # Lines written during the iteration are left out: they may be incomplete.
            sizes = {path: path.stat().st_size for path in self._paths() if path.stem >= since}
        for path, size in sizes.items():
            with path.open("rb") as stream:
                yield from split_lines(path.name, stream, size)

    def _append(self, file: str, content: dict[str, str]) -> None:
        path = self.folder / file
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            size = os.fstat(handle).st_size
            # The rest of a truncated line is never written.
            begin = b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""
            if not size:
                # Older files may be deleted, so a file itself must show that its start is missing.
                content = {"day": path.stem, **content}
            line = make_line(last_link(_backwards(self._newest_first(file))), content)
            _write(handle, begin + line + b"\n", path, size)
        finally:
            os.close(handle)

    @contextmanager
    def _locked(self) -> Iterator["_End"]:
        path = self.folder / _END
        try:
            handle = _open(path)
        except OSError as error:
            raise cannot_write(path, error) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            content = _END_CONTENT.fullmatch(os.pread(handle, 64, 0))
            if content:
                yield _End(handle, content[1].decode(), int(content[2]))
            else:
                yield _End(handle, max((path.name for path in self._paths()), default=""), 0)
        finally:
            # After closing alone, a process forked in the meantime would still hold the lock.
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _newest_first(self, file: str) -> Iterator[Path]:
        yield self.folder / file
        # Rarely read: only if that file has no line of the chain.
        yield from (path for path in reversed(self._paths()) if path.name < file)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))


@dataclass(frozen=True)
class _End:
    """The open and locked file that records the end of the log."""

    handle: int
    file: str
    entries: int


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _write(handle: int, data: bytes, path: Path, size: int) -> None:
    """Append all of ``data`` or nothing to a file of ``size`` bytes."""
    try:
        written = os.write(handle, data)
    except OSError as error:
        raise cannot_write(path, error) from error
    if written < len(data):
        os.ftruncate(handle, size)
        raise disk_full(path)


def _backwards(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of files in reverse, from the last line of the first file."""
    for path in paths:
        with path.open("rb", buffering=0) as stream:
            position = stream.seek(0, os.SEEK_END)
            if not position:
                continue
            stream.seek(position - 1)
            position -= stream.read(1) == b"\n"
            rest = b""
            while position:
                step = min(_BLOCK, position)
                position -= step
                stream.seek(position)
                rest, *lines = (stream.read(step) + rest).split(b"\n")
                yield from reversed(lines)
            yield rest


@dataclass(frozen=True)
class AccessLoggedStore(ForwardingStore):
    """An object store that records each access in a log, before the access.

    ``exists`` and ``list`` are not recorded: they return no content.
    """

    log: AccessLog

    def route(self, key: str, access: str = "") -> tuple[ObjectStore, str]:
        """Return the store and ``key``, after recording the access."""
        if access:
            self.log.write(access, key)
        return self.store, key

    def arrow_filesystem(self) -> tuple[fs.FileSystem, str]:
        """Return Arrow's file system for the objects; it is recorded as a read of all tables."""
        self.log.write("query", "tables")
        return super().arrow_filesystem()
