"""What tables were made of, kept for ever, so that they can be made again.

``inputs/<sha256>.parquet`` is a table as it was, ``lineage/<table>/<round>/<sha256>.json`` says
what the table with that digest was made of. Both are created once and never written again.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from annotation_platform.errors import DataError
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.objects import ObjectStore

_TABLES = "tables/"
_MANY = 20


@dataclass(frozen=True)
class Entries:
    """The first entries of a journal: how many, and the SHA-256 of all their bytes in order."""

    count: int
    sha256: str


@dataclass(frozen=True)
class TableInputs:
    """What one round of a table was made of.

    Attributes:
        tables: by table and round, such as ``label_tasks/round-0001``, the SHA-256 of the file.
        journals: by folder, the entries that there were.
        settings: whatever else decides, as JSON knows it.
    """

    tables: dict[str, str]
    journals: dict[str, Entries] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, content: dict[str, Any]) -> "TableInputs":
        """Return what ``asdict`` has taken apart."""
        journals = {folder: Entries(**each) for folder, each in content["journals"].items()}
        return cls(content["tables"], journals, content["settings"])


class Lineage:
    """Keep tables under their content, and what each was made of."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def keep(self, data: bytes, *, kind: str = "parquet") -> str:
        """Keep a file under its content and return its SHA-256."""
        digest = hashlib.sha256(data).hexdigest()
        key = kept_key(digest, kind=kind)
        if not self._store.exists(key):
            self._store.create(key, data)
        return digest

    def keep_tables(self, tables: Mapping[str, str]) -> None:
        """Keep the files of the lake that have these digests, by table and round.

        A file that has become another one meanwhile is a DataError.
        """
        # One listing is cheaper than many questions.
        many = len(tables) > _MANY
        held = set(self._store.list("inputs")) if many else set()
        for name, digest in tables.items():
            key = kept_key(digest)
            if key in held or (not many and self._store.exists(key)):
                continue
            if self.keep(self._store.get(f"{_TABLES}{name}.parquet")) != digest:
                raise DataError(f"{name} was written anew while it was read. Run this again.")

    def holds(self, digest: str, *, kind: str = "parquet") -> bool:
        """Return whether a file with this SHA-256 was kept, and is there still."""
        return self._store.exists(kept_key(digest, kind=kind))

    def kept(self, digest: str, *, kind: str = "parquet") -> bytes:
        """Return a kept file; one that is not there, or is another one by now, is a DataError."""
        key = kept_key(digest, kind=kind)
        data = self._store.get(key)
        if hashlib.sha256(data).hexdigest() != digest:
            raise DataError(
                f"{key}: its content is not what its name says. Restore it from a backup."
            )
        return data

    def write(self, name: str, round_id: str, digest: str, made_of: TableInputs) -> None:
        """Note what a table with this digest was made of; what was noted first stands.

        The same content may come of other inputs too, and either of them explains it.
        """
        text = json.dumps(asdict(made_of), indent=1, sort_keys=True, ensure_ascii=False)
        self._store.create(_key(name, round_id, digest), text.encode() + b"\n")

    def read(self, name: str, round_id: str, digest: str) -> TableInputs | None:
        """Return what the table with this digest was made of; None if it was never noted."""
        key = _key(name, round_id, digest)
        return TableInputs.of(json.loads(self._store.get(key))) if self._store.exists(key) else None

    def is_recorded(self, name: str, round_id: str) -> bool:
        """Return whether the lake knows what any state of a table was made of."""
        return any(True for _ in self._store.list(f"lineage/{name}/{round_id}"))


@dataclass(frozen=True)
class StoreAsOf:
    """A store as it was when something was made of it: tables and journals in their state of then.

    Other tables are not there, and other folders cannot be listed: what was not noted must not
    be used. Single objects are never changed in the lake, so they are read as they are now. A
    table that is written is held in memory; nothing else can be written.
    """

    store: ObjectStore
    made_of: TableInputs
    written: dict[str, bytes] = field(default_factory=dict, repr=False)

    def put(self, key: str, data: bytes) -> None:
        """Hold a table under ``key``; the store itself is never written."""
        if not key.startswith(_TABLES):
            raise DataError(f"{key}: the past cannot be written.")
        self.written[key] = data

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:  # noqa: ARG002
        """Refuse: what is missing now was there then."""
        raise DataError(f"{key}: is no longer in the lake. Restore it from a backup.")

    def copy(self, source: str, target: str) -> None:
        """Refuse, as ``create`` does."""
        raise DataError(f"{target}: the past cannot be written, with {source} or anything else.")

    def remove(self, key: str) -> None:
        """Refuse, as ``create`` does."""
        raise DataError(f"{key}: the past cannot be written.")

    def purge(self, key: str) -> None:
        """Refuse, as ``create`` does."""
        self.remove(key)

    def get(self, key: str) -> bytes:
        """Return the bytes under ``key`` as they were; a missing key is a DataError."""
        if key in self.written:
            return self.written[key]
        if not key.startswith(_TABLES):
            return self.store.get(key)
        digest = self.made_of.tables.get(_name(key))
        if digest is None:
            raise DataError(f"{key}: is not among what this was made of.")
        return Lineage(self.store).kept(digest)

    def exists(self, key: str) -> bool:
        """Return whether there was something under ``key``."""
        if key.startswith(_TABLES):
            return key in self.written or _name(key) in self.made_of.tables
        return self.store.exists(key)

    def list(self, prefix: str) -> Iterator[str]:
        """Yield the keys of a table or a journal as it was, sorted."""
        if prefix.startswith(_TABLES):
            held = {f"{_TABLES}{name}.parquet" for name in self.made_of.tables} | set(self.written)
            yield from sorted(key for key in held if key.startswith(f"{prefix}/"))
            return
        if prefix not in self.made_of.journals:
            raise DataError(f"{prefix}: how much of it there was is not noted.")
        count = self.made_of.journals[prefix].count
        keys = self.store.list(prefix)
        yield from (key for key in keys if int(PurePosixPath(key).stem) <= count)

    def url(self, key: str) -> str:
        """Return where others find what is under ``key``; no table of the past is anywhere."""
        if key.startswith(_TABLES):
            raise DataError(f"{key}: a table of the past is no file.")
        return self.store.url(key)

    def local_path(self, key: str) -> Path:
        """Return a file on this machine that holds the bytes under ``key``; no table has one."""
        if key.startswith(_TABLES):
            raise DataError(f"{key}: a table of the past is no file.")
        return self.store.local_path(key)

    def arrow_place(self) -> tuple[fs.FileSystem, str]:
        """Refuse: Arrow would see the tables of now."""
        raise DataError("the catalog knows the tables of now only.")


def journal_entries(store: ObjectStore, folders: Iterable[str]) -> dict[str, Entries]:
    """Return the entries that each of these journals has now."""
    return {folder: entries_of(Journal(store, folder).read()) for folder in folders}


def entries_of(entries: Sequence[bytes]) -> Entries:
    """Return the entries of a journal as ``TableInputs`` notes them."""
    return Entries(len(entries), hashlib.sha256(b"".join(entries)).hexdigest())


def entry_key(folder: str, number: int) -> str:
    """Return the lake's key of an entry of a journal, as ``Journal`` names it."""
    return f"{folder}/{number:06d}.jsonl"


def kept_key(digest: str, *, kind: str = "parquet") -> str:
    """Return the lake's key of a kept file."""
    return f"inputs/{digest}.{kind}"


def _key(name: str, round_id: str, digest: str) -> str:
    return f"lineage/{name}/{round_id}/{digest}.json"


def _name(key: str) -> str:
    return key.removeprefix(_TABLES).removesuffix(".parquet")
