"""Things that are made once in a test session and shared by its processes, in a folder of its own.

Nothing outlives the session: each run of pytest makes its own folder, so that a change of the
product is never hidden by what an earlier run made.
"""

import hashlib
import os
import pickle
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

Files = dict[str, tuple[int, int]]
"""Files of a folder by relative path: size in bytes and modification time in nanoseconds."""


def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all processes of this test session share."""
    base = tmp_path_factory.getbasetemp()
    # Each process of pytest-xdist has a folder of its own in that of the session.
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "shared"


def digest_of(*parts: object) -> str:
    """Return a digest of values whose ``repr`` describes them completely."""
    return hashlib.sha256("\x00".join(map(repr, parts)).encode()).hexdigest()


@dataclass(frozen=True)
class SessionStore:
    """Values by key, each computed by the first process that asks for it."""

    folder: Path

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """Return what ``make`` returned to the first process that asked; it must be picklable."""
        place = self.folder / f"{key}.pickle"
        with self.locked(key):
            if not place.exists():
                self.write(place, make())
        return pickle.loads(place.read_bytes())

    def locked(self, key: str) -> FileLock:
        """Return a lock on a key among all processes of the session."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / f"{key}.lock")

    @staticmethod
    def write(place: Path, value: Any) -> None:
        """Pickle a value into a file that is there whole or not at all."""
        draft = place.with_suffix(".draft")
        draft.write_bytes(pickle.dumps(value))
        draft.rename(place)


def files_below(folder: Path) -> Files:
    """Return the files below a folder with what tells a changed one from an unchanged one."""
    found: Files = {}
    pending = [str(folder)]
    start = len(pending[0]) + 1
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    stat = entry.stat(follow_symlinks=False)
                    found[entry.path[start:]] = (stat.st_size, stat.st_mtime_ns)
    return found


def _content(path: Path) -> str:
    """Return the digest of a file; of a link, which may lead to itself, where it points."""
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if not path.is_file():
        # A pipe would block whoever reads it.
        return f"mode {path.stat().st_mode:o}"
    return hashlib.sha256(path.read_bytes()).hexdigest()


class StepRecorder:
    """Takes each step of a world once per session, and copies its result wherever it is repeated.

    A world is a folder and SQLite databases in memory. The key of a step is a digest of all that
    led to it: the earlier steps, the step with its arguments, and the content of every file that
    a test changed in between. What a test does by itself is therefore never lost: a world that
    differs in one byte takes its steps for real.
    """

    def __init__(
        self,
        store: SessionStore,
        home: Path,
        base: str,
        databases: Callable[[], list[Any]],
        *,
        ignored: str,
    ) -> None:
        """Record steps of the world in ``home``, which was copied from the base of this key.

        What a test writes into files whose relative paths begin with ``ignored`` makes no
        difference to the steps after it, and is lost where these are copied.
        """
        self._store = store
        self._home = home
        self._databases = databases
        self._ignored = ignored
        self._key = base
        self._files = files_below(home)
        self._dumps = self._dump()

    def step(self, *what: object, take: Callable[[], Any]) -> Any:
        """Return the picklable result of a step, taken now or copied with its effects."""
        self._key = digest_of(self._key, what, self._changed_by_test())
        place = self._store.folder / "steps" / self._key
        with self._store.locked(self._key):
            recorded = place.with_suffix(".pickle")
            if recorded.exists():
                result = self._replay(place, pickle.loads(recorded.read_bytes()))
            else:
                result = self._record(place, recorded, take)
        return result

    def _changed_by_test(self) -> list[object]:
        """Return what was changed since the last step: digests of files and of databases."""
        files = files_below(self._home)
        changed: list[object] = [
            (name, _content(self._home / name))
            for name, stat in sorted(files.items())
            if self._files.get(name) != stat and not name.startswith(self._ignored)
        ]
        changed += sorted(self._files.keys() - files.keys())
        dumps = self._dump()
        changed += [
            hashlib.sha256(dump).hexdigest()
            for dump, known in zip(dumps, self._dumps, strict=True)
            if dump != known
        ]
        changed += sorted(
            (name, value) for name, value in os.environ.items() if name.startswith("ANNOTATION_")
        )
        self._files, self._dumps = files, dumps
        return changed

    def _record(self, place: Path, recorded: Path, take: Callable[[], Any]) -> Any:
        result = take()
        files, dumps = files_below(self._home), self._dump()
        written = {name: stat for name, stat in files.items() if self._files.get(name) != stat}
        for name in written:
            _copy(self._home / name, place / name)
        removed = sorted(self._files.keys() - files.keys())
        place.parent.mkdir(parents=True, exist_ok=True)
        self._store.write(recorded, (result, written, removed, dumps))
        self._files, self._dumps = files, dumps
        return result

    def _replay(self, place: Path, recorded: tuple[Any, Files, list[str], list[bytes]]) -> Any:
        result, written, removed, dumps = recorded
        for name in removed:
            (self._home / name).unlink()
            del self._files[name]
        for name in written:
            _copy(place / name, self._home / name)
        for database, dump in zip(self._databases(), dumps, strict=True):
            with sqlite3.connect(":memory:") as source:
                source.deserialize(dump)
                source.backup(database)
        # A copy has the size and the time of its original.
        self._files |= written
        self._dumps = self._dump()
        return result

    def _dump(self) -> list[bytes]:
        return [database.serialize() for database in self._databases()]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside it first: a file that another process reads is never half written.
    draft = target.with_name(f".{target.name}.copied")
    shutil.copy2(source, draft, follow_symlinks=False)
    draft.replace(target)
