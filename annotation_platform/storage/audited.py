"""Who read and wrote what in the lake: one line of JSON each, a file a day, chained."""

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
from annotation_platform.storage.objects import ObjectStore

_END = ".end"
"""Names the file that is written, and how many entries of events were known; locks the log."""

_SAID = re.compile(rb"(\d{4}-\d\d-\d\d\.jsonl) (\d{10})\n")
_BLOCK = 4096


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class LogHead:
    """The last line of a log: which log, its file, its number and its SHA-256."""

    home: str
    file: str
    number: int
    sha256: str

    @classmethod
    def of(cls, content: object) -> "LogHead | None":
        """Return what ``asdict`` has taken apart; None if that is something else."""
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
class AuditLog:
    """A folder of ``2026-05-01.jsonl`` files, which several processes write at once.

    ``who`` says on whose behalf, such as the run and the asset; it is asked for every line, and so
    is ``clock`` for the time, in UTC. Each line has the digest of the one before it, over midnight
    too (``storage/chain.py``). Days that nobody needs may be deleted, the oldest first and the
    newest never: the chain goes on from its last line.
    """

    folder: Path
    who: Callable[[], dict[str, str]]
    clock: Callable[[], datetime] = _now

    @cached_property
    def home(self) -> str:
        """What lines and events call this log: it tells those of several homes apart."""
        place = f"{socket.gethostname()}:{self.folder.absolute()}"
        return hashlib.sha256(place.encode()).hexdigest()[:12]

    def write(self, action: str, key: str, *, entries: int | None = None, **facts: str) -> None:
        """Append one line, in one write.

        Args:
            action: what is done.
            key: with which object of the lake.
            entries: how many entries of events the lake has by now, where that is known.
            facts: what else there is to say.

        Raises:
            SettingsError: it cannot be written; then nothing was.
        """
        about = {"action": action, "key": key, **facts, **self.who(), "home": self.home}
        with self._locked() as end:
            now = self.clock()
            # A clock that is set back over midnight must not part the chain.
            file = max(f"{now:%Y-%m-%d}.jsonl", end.file)
            self._append(file, {"at": now.isoformat(timespec="milliseconds"), **about})
            known = end.entries if entries is None else entries
            if (file, known) != (end.file, end.entries):
                os.pwrite(end.handle, f"{file} {known:010d}\n".encode(), 0)

    def entries(self) -> int:
        """Return how many entries of events were known when this was last said, 0 at first."""
        with self._locked() as end:
            return end.entries

    def head(self) -> LogHead | None:
        """Return the last line, once it is on disk; None if there is none."""
        with self._locked():
            paths = [path for path in reversed(self._paths()) if path.stat().st_size]
            if not paths:
                return None
            for place in (paths[0], self.folder):
                sync(place)
            link = last_link(_backwards(paths))
            return LogHead(self.home, paths[0].name, link.number, link.sha256)

    def lines(self, *, since: str = "") -> Iterator[Line]:
        """Yield every line that there is now, in order; ``since`` names the day to begin with."""
        if not self.folder.is_dir():
            return
        with self._locked():
            # What is written meanwhile is left out: it may be half there.
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
            # Of a line that was broken off the rest never comes.
            begin = b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""
            if not size:
                # Older files may go, so a file has to show by itself that its first lines are gone.
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
            said = _SAID.fullmatch(os.pread(handle, 64, 0))
            if said:
                yield _End(handle, said[1].decode(), int(said[2]))
            else:
                yield _End(handle, max((path.name for path in self._paths()), default=""), 0)
        finally:
            # Closing alone would leave it locked while a process lives that was forked meanwhile.
            fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)

    def _newest_first(self, file: str) -> Iterator[Path]:
        yield self.folder / file
        # Seldom asked for: only where that one holds no line of the chain.
        yield from (path for path in reversed(self._paths()) if path.name < file)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))


@dataclass(frozen=True)
class _End:
    """The open and locked file that tells where the log ends."""

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
    """Append to a file of ``size`` bytes all of ``data`` or nothing."""
    try:
        written = os.write(handle, data)
    except OSError as error:
        raise cannot_write(path, error) from error
    if written < len(data):
        os.ftruncate(handle, size)
        raise disk_full(path)


def _backwards(paths: Iterable[Path]) -> Iterator[bytes]:
    """Yield the lines of files, the last line of the first file first."""
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
class AuditedStore:
    """An object store that writes down each use of it, before the use."""

    store: ObjectStore
    log: AuditLog

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` under ``key``, replacing what was there, in one step."""
        self.log.write("put", key)
        self.store.put(key, data)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Write ``data`` under ``key`` if nothing is there; return whether this call did it."""
        self.log.write("create", key)
        return self.store.create(key, data, private=private)

    def copy(self, source: str, target: str) -> None:
        """Have what is under ``source`` under ``target`` too, unless something is there."""
        self.log.write("get", source)
        self.log.write("create", target)
        self.store.copy(source, target)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key``; a missing key is a DataError."""
        self.log.write("get", key)
        return self.store.get(key)

    def exists(self, key: str) -> bool:
        """Return whether there is something under ``key``; that is no use of it."""
        return self.store.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys that start with the folder ``prefix``, sorted; that is no use of them."""
        return self.store.list(prefix)

    def local_path(self, key: str) -> Path:
        """Return a file on this machine that holds the bytes under ``key``."""
        self.log.write("get", key)
        return self.store.local_path(key)

    def url(self, key: str) -> str:
        """Return where others find what is under ``key``: who asks will read it."""
        self.log.write("get", key)
        return self.store.url(key)

    def remove(self, key: str) -> None:
        """Take away what is under ``key``, and all that ever was."""
        self.log.write("remove", key)
        self.store.remove(key)

    def purge(self, key: str) -> None:
        """Take away what was under ``key`` before what is there now."""
        self.log.write("purge", key)
        self.store.purge(key)

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Return how Arrow gets at the objects: all of the tables are taken for read."""
        self.log.write("query", "tables")
        return self.store.arrow_place()
