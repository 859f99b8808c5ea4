"""The inputs of tables, stored permanently, so that each table can be computed again.

``inputs/<sha256>.parquet`` is a former state of a table; ``lineage/<table>/<round>/<sha256>.json``
lists the inputs of the table with that digest. Both are created once and never replaced.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from annotation_platform.errors import DataError
from annotation_platform.storage.forwarding import ForwardingStore
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore

_TABLES = "tables/"
_LISTED_FROM = 20
"""For more tables than this, one listing is cheaper than one request per table."""


@dataclass(frozen=True)
class JournalEntries:
    """The first entries of a journal: their number, and the SHA-256 of their bytes in order."""

    count: int
    sha256: str


@dataclass(frozen=True)
class TableInputs:
    """The inputs from which one round of a table was computed.

    Attributes:
        tables: SHA-256 of each input file, by table and round, such as ``label_tasks/round-0001``.
        journals: the entries of each journal that were read, by folder.
        settings: all other values that determine the table, of JSON's types.
    """

    tables: dict[str, str]
    journals: dict[str, JournalEntries] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "TableInputs":
        """Return the inputs from the output of ``asdict``."""
        journals = {folder: JournalEntries(**each) for folder, each in content["journals"].items()}
        return cls(content["tables"], journals, content["settings"])


class Lineage:
    """Stores states of tables by digest, and the inputs of each."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def keep(self, data: bytes, *, kind: str = "parquet") -> str:
        """Store a file under its digest and return the SHA-256."""
        digest = hashlib.sha256(data).hexdigest()
        key = input_key(digest, kind=kind)
        if not self._store.exists(key):
            self._store.create(key, data)
        return digest

    def keep_tables(self, tables: Mapping[str, str]) -> None:
        """Store copies of the lake's files with these digests, by table and round.

        A file that was replaced in the meantime is a DataError.
        """
        is_listed = len(tables) > _LISTED_FROM
        stored = set(self._store.list("inputs")) if is_listed else set()
        for name, digest in tables.items():
            key = input_key(digest)
            if key in stored or (not is_listed and self._store.exists(key)):
                continue
            if self.keep(self._store.get(f"{_TABLES}{name}.parquet")) != digest:
                raise DataError(f"{name} was replaced while it was read. Run this again.")

    def holds(self, digest: str, *, kind: str = "parquet") -> bool:
        """Return whether a file with this SHA-256 is stored."""
        return self._store.exists(input_key(digest, kind=kind))

    def load(self, digest: str, *, kind: str = "parquet") -> bytes:
        """Return a stored file; a DataError if it is missing or its content has changed."""
        key = input_key(digest, kind=kind)
        data = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(
                f"{key}: its content does not match the digest in its name. Restore it from a "
                "backup."
            )
        return data

    def write(self, name: str, round_id: str, digest: str, inputs: TableInputs) -> None:
        """Record the inputs of the table with this digest, unless inputs are recorded for it.

        Other inputs may give the same content; either of them explains it.
        """
        text = json.dumps(asdict(inputs), indent=1, sort_keys=True, ensure_ascii=False)
        self._store.create(_key(name, round_id, digest), text.encode() + b"\n")

    def read(self, name: str, round_id: str, digest: str) -> TableInputs | None:
        """Return the inputs of the table with this digest; None if none are recorded."""
        key = _key(name, round_id, digest)
        return TableInputs.of(json.loads(self._store.get(key))) if self._store.exists(key) else None

    def is_recorded(self, name: str, round_id: str) -> bool:
        """Return whether inputs are recorded for any state of a round of a table."""
        return any(True for _ in self._store.list(f"lineage/{name}/{round_id}"))


@dataclass(frozen=True)
class SnapshotStore(ForwardingStore):
    """A snapshot of a store: tables and journals in the states that served as inputs.

    Other tables do not exist in it, and other folders cannot be listed, because what is not
    recorded must not be used. All other objects never change in the lake and are read from it. A
    table that is written is held in memory; nothing else can be written.
    """

    inputs: TableInputs
    written: dict[str, bytes] = field(default_factory=dict, repr=False)

    def put(self, key: str, data: bytes) -> None:
        """Hold a table under ``key`` in memory; the lake is never written."""
        if not key.startswith(_TABLES):
            raise _read_only(key)
        self.written[key] = data

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:  # noqa: ARG002
        """Raise a DataError: an object that a snapshot needs is missing from the lake."""
        raise DataError(f"{key}: is no longer in the lake. Restore it from a backup.")

    def copy(self, source: str, target: str) -> None:  # noqa: ARG002
        """Raise a DataError: a snapshot is read-only."""
        raise _read_only(target)

    def remove(self, key: str) -> None:
        """Raise a DataError: a snapshot is read-only."""
        raise _read_only(key)

    def purge(self, key: str) -> None:
        """Raise a DataError: a snapshot is read-only."""
        raise _read_only(key)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key`` in the snapshot; a missing key is a DataError."""
        if key in self.written:
            return self.written[key]
        if not key.startswith(_TABLES):
            return super().get(key)
        digest = self.inputs.tables.get(_name(key))
        if digest is None:
            raise DataError(f"{key}: is not one of the recorded inputs.")
        return Lineage(self.store).load(digest)

    def exists(self, key: str) -> bool:
        """Return whether ``key`` exists in the snapshot."""
        if key.startswith(_TABLES):
            return key in self.written or _name(key) in self.inputs.tables
        return super().exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of a table or a journal in the snapshot, sorted."""
        if prefix.startswith(_TABLES):
            keys = {f"{_TABLES}{name}.parquet" for name in self.inputs.tables} | set(self.written)
            yield from sorted(key for key in keys if key.startswith(f"{prefix}/"))
            return
        if prefix not in self.inputs.journals:
            raise DataError(f"{prefix}: the number of its entries is not recorded.")
        count = self.inputs.journals[prefix].count
        entries = super().list(prefix)
        yield from (key for key in entries if int(PurePosixPath(key).stem) <= count)

    def url(self, key: str) -> str:
        """Return the address of the object under ``key``; a table has none in a snapshot."""
        _refuse_table(key)
        return super().url(key)

    def local_path(self, key: str) -> Path:
        """Return a local file with the bytes under ``key``; a table has none in a snapshot."""
        _refuse_table(key)
        return super().local_path(key)

    def arrow_filesystem(self) -> tuple[fs.FileSystem, str]:
        """Raise a DataError: Arrow would read the current tables."""
        raise DataError("the catalog reads current tables only, not those of a snapshot.")


def journal_entries(store: ObjectStore, folders: Iterable[str]) -> dict[str, JournalEntries]:
    """Return the current entries of each of these journals."""
    return {folder: entries_of(Journal(store, folder).read()) for folder in folders}


def entries_of(entries: Sequence[bytes]) -> JournalEntries:
    """Return the number and digest of a journal's entries, as ``TableInputs`` records them."""
    return JournalEntries(len(entries), hashlib.sha256(b"".join(entries)).hexdigest())


def input_key(digest: str, *, kind: str = "parquet") -> str:
    """Return the lake's key of a stored input."""
    return f"inputs/{digest}.{kind}"


def _key(name: str, round_id: str, digest: str) -> str:
    return f"lineage/{name}/{round_id}/{digest}.json"


def _name(key: str) -> str:
    return key.removeprefix(_TABLES).removesuffix(".parquet")


def _read_only(key: str) -> DataError:
    return DataError(f"{key}: a snapshot of the lake is read-only.")


def _refuse_table(key: str) -> None:
    if key.startswith(_TABLES):
        raise DataError(f"{key}: a table of a snapshot is not a file.")
