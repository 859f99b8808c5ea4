"""Tables in the lake: one Parquet file per table and round, checked on every write and read."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.schema.tables import Frame, Table
from annotation_platform.storage.lineage import Lineage, SnapshotStore
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.table_files import (
    TableFile,
    content_digest,
    read_table,
    read_together,
    table_bytes,
)

T = TypeVar("T", bound=Table)
_SUFFIX = ".parquet"


class RoundTables:
    """Read and write the tables of ``schema/tables/`` by round.

    Files of older releases are mapped as in ``storage/table_files.py``; rounds of a renamed table
    are also found in the folder of its old name, until they are written again.

    Args:
        store: the lake's objects.
        digests: if given, receives the SHA-256 of every file that is read or written, by table
            and round; a file that changes between two reads is a NotReadyError.
    """

    def __init__(self, store: ObjectStore, digests: dict[str, str] | None = None) -> None:
        self._store = store
        self._digests = digests

    def recording(self, digests: dict[str, str]) -> "RoundTables":
        """Return the same tables, which record the digest of every used file in ``digests``."""
        return RoundTables(self._store, digests)

    @property
    def lineage(self) -> Lineage:
        """The recorded inputs of tables."""
        return Lineage(self._store)

    def write(self, table: type[Table], round_id: str, frame: pd.DataFrame) -> str:
        """Write one round of a table, replacing it, and return the SHA-256 of the file."""
        data = table_bytes(table, frame, where=round_id)
        self._store.put(table_key(table.table_name, round_id), data)
        digest = hashlib.sha256(data).hexdigest()
        if self._digests is not None:
            self._digests[f"{table.table_name}/{round_id}"] = digest
        return digest

    def read(self, table: type[T], round_id: str) -> Frame[T]:
        """Return one round of a table; NotReadyError if it is not written yet."""
        # A snapshot is read by digests, so its tables were checked when they were written.
        was_checked = isinstance(self._store, SnapshotStore)
        data = self._get(table, round_id)
        return read_table(table, data, where=round_id, was_checked=was_checked)

    def read_rounds(self, table: type[T], rounds: Iterable[str]) -> Frame[T]:
        """Return the rows of those of these rounds that exist, in the given order, as one table."""
        existing = [key for key in rounds if self.exists(table, key)]
        if len(existing) > 1:
            together = read_together(table, [self._get(table, key) for key in existing])
            if not together.empty:
                return together
        frames = [self.read(table, key) for key in existing]
        frames = [frame for frame in frames if not frame.empty]
        return pd.concat(frames, ignore_index=True) if frames else table.empty()

    def read_columns(self, table: type[T], round_id: str, columns: Sequence[str]) -> Frame[T]:
        """Return some columns of one round of a table; NotReadyError if it is not written yet.

        Other columns are not decoded. The values are not checked again: they were checked when
        they were written. Texts are categories.
        """
        file = TableFile(table, self._get(table, round_id), round_id)
        rows = file.arrow(columns, as_categories=True)
        frame: pd.DataFrame = rows.to_pandas(ignore_metadata=True)
        return frame

    def values(self, table: type[Table], column: str, rounds: Iterable[str]) -> set[str]:
        """Return the distinct values of a text column in those of these rounds that exist.

        Only the distinct values are decoded: in annotations, few values are repeated often.
        """
        found: set[str] = set()
        for key in rounds:
            if self.exists(table, key):
                file = TableFile(table, self._get(table, key), key)
                found.update(file.arrow([column]).column(0).unique().to_pylist())
        return found - {None}

    def read_all(self, table: type[T]) -> Frame[T]:
        """Return all rows of a table, ordered by round."""
        return self.read_rounds(table, self.rounds(table))

    def rounds(self, table: type[Table]) -> list[str]:
        """Return the rounds for which the table exists, in order."""
        keys = (
            key
            for name in (table.table_name, *table.old_names)
            for key in self._store.list(f"tables/{name}")
        )
        found = {key.rsplit("/", 1)[1].removesuffix(_SUFFIX) for key in keys if _is_table(key)}
        return sorted(found)

    def exists(self, table: type[Table], round_id: str) -> bool:
        """Return whether one round of a table exists."""
        return self._store.exists(table_key(self._folder(table, round_id), round_id))

    def digest(self, table: type[Table], round_id: str) -> str:
        """Return the SHA-256 of one round of a table; the same rows always give the same one.

        A migration does not change it, see ``content_digest``.
        """
        return content_digest(self._get(table, round_id))

    def _folder(self, table: type[Table], round_id: str) -> str:
        """Return the name under which a round of a table is stored; the current one if none."""
        for name in (table.table_name, *table.old_names) if table.old_names else ():
            if self._store.exists(table_key(name, round_id)):
                return name
        return table.table_name

    def _get(self, table: type[Table], round_id: str) -> bytes:
        name = self._folder(table, round_id)
        key = table_key(name, round_id)
        if not self._store.exists(key):
            raise NotReadyError(
                f"{name} of {round_id} does not exist yet. Materialise {name} for {round_id} first."
            )
        data = self._store.get(key)
        if self._digests is not None:
            digest = content_digest(data)
            if self._digests.setdefault(f"{name}/{round_id}", digest) != digest:
                raise NotReadyError(
                    f"{name} of {round_id} was replaced while it was read. Run this again."
                )
        return data


def table_key(name: str, round_id: str) -> str:
    """Return the lake's key of one round of a table."""
    return f"tables/{name}/{round_id}{_SUFFIX}"


def _is_table(key: str) -> bool:
    return key.endswith(_SUFFIX)
