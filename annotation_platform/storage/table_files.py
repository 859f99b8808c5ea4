"""Tables as Parquet files, of this release and of older ones.

The metadata of a file contains the name of its table and the version of its columns. Files of
v0.1.0 have no version and count as version 0. An older file is mapped when it is read: renamed
columns are found under their old names, added columns have their defaults, dropped columns are
left out. A file of a newer release is refused.
"""

import hashlib
import io
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from annotation_platform.errors import TableError
from annotation_platform.schema.tables import Column, Frame, Table
from annotation_platform.schema.tables.table import ARROW_TYPES, TEXT
from annotation_platform.storage.cache import Cache

_ROWS = 2**16
"""Rows per row group: in a file sorted by image, one image is found by reading one group."""
_TABLE = b"annotation_platform.table"
_VERSION = b"annotation_platform.schema_version"
_MIGRATED_FROM = b"annotation_platform.migrated_from"
_DECODED: Cache[pd.DataFrame] = Cache(256 * 2**20)
"""A run reads some tables ten times, a sensor the same tables in every poll. Reading a file and
computing its SHA-256 takes far less time than decoding and checking it."""


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of a table, read under the current names of its columns.

    Reading anything of a file with a newer schema version is a TableError.

    Attributes:
        table: the table.
        data: the bytes of the file.
        where: the name of the file in errors.
    """

    table: type[Table]
    data: bytes
    where: str = ""

    @cached_property
    def _file(self) -> pq.ParquetFile:
        file = pq.ParquetFile(pa.BufferReader(self.data))
        refuse_newer(self.table, file.schema_arrow.metadata, where=self.where)
        return file

    @property
    def version(self) -> int:
        """The schema version of the file; 0 for files from before there was one."""
        return schema_version(self._file.schema_arrow.metadata)

    @property
    def is_current(self) -> bool:
        """Whether its columns are the current ones, in order, and its version current or 0."""
        is_older = 0 < self.version < self.table.schema_version
        return not is_older and self._file.schema_arrow.names == list(self.table.columns)

    @property
    def is_exact(self) -> bool:
        """Whether its version is current: its columns must be as declared, without mapping."""
        return self.version == self.table.schema_version

    def name_of(self, column: str) -> str | None:
        """Return the name in the file of a current column; None if the file lacks it."""
        return self.table.column(column).find_in(self._file.schema_arrow.names)

    def arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        only: tuple[str, Collection[str]] | None = None,
        as_categories: bool = False,
    ) -> pa.Table:
        """Return columns of the file under their current names, unchecked.

        Args:
            columns: current names of columns; None for all.
            only: a text column and the values that the returned rows may have in it.
            as_categories: whether texts are dictionary-encoded, which takes a tenth of the time
                if most are repeated.
        """
        wanted = list(self.table.columns if columns is None else columns)
        stored_names = {each: self.name_of(each) for each in wanted}
        found = self._read(stored_names, only, as_categories=as_categories)
        for each, name in stored_names.items():
            renamed = self.table.column(each).renamed_values
            if name is not None and renamed and not self.is_exact:
                at = found.schema.get_field_index(name)
                found = found.set_column(at, name, _with_new_values(found.column(at), renamed))
        if list(stored_names) == list(stored_names.values()):
            return found.select(wanted)
        arrays = {
            each: _filled(self.table, each, len(found), self.where) if name is None else found[name]
            for each, name in stored_names.items()
        }
        return pa.table(arrays)

    def frame(
        self,
        columns: Sequence[str] | None = None,
        *,
        only: tuple[str, Collection[str]] | None = None,
    ) -> pd.DataFrame:
        """Return the result of ``arrow`` as a frame with the current types."""
        table = self.arrow(columns, only=only)
        frame: pd.DataFrame = table.to_pandas()
        if table.schema.pandas_metadata is None and len(frame):
            types = {each: self.table.column(each).dtype for each in table.column_names}
            frame = frame.astype({each: name for each, name in types.items() if name != "object"})
        return frame

    def stored(self) -> pa.Table:
        """Return the file unmapped, with its own columns and metadata."""
        return self._file.read()

    def _read(
        self,
        stored_names: Mapping[str, str | None],
        only: tuple[str, Collection[str]] | None,
        *,
        as_categories: bool,
    ) -> pa.Table:
        names = [name for name in stored_names.values() if name is not None]
        if only is None and not as_categories:
            return self._file.read(columns=names)
        texts = [
            name
            for each, name in stored_names.items()
            if name and self.table.column(each).dtype == TEXT
        ]
        return pq.read_table(
            pa.BufferReader(self.data),
            columns=names,
            filters=self._filter(*only) if only else None,
            read_dictionary=texts if as_categories else None,
        )

    def _filter(self, column: str, values: Collection[str]) -> pc.Expression:
        name = self.name_of(column)
        if name is None:
            raise _missing(self.table, column, self.where)
        kind = self._file.schema_arrow.field(name).type
        if len(values) == 1:
            return pc.field(name) == pa.scalar(next(iter(values)), kind)
        return pc.field(name).isin(pa.array(list(values), kind))


def _with_new_values(column: pa.ChunkedArray, renamed: Mapping[str, str]) -> pa.ChunkedArray:
    """Return a column of texts, dictionary or not, with each old text replaced."""
    is_dictionary = pa.types.is_dictionary(column.type)
    texts = column.cast(column.type.value_type) if is_dictionary else column
    for old, new in renamed.items():
        texts = pc.if_else(pc.equal(texts, old), pa.scalar(new, texts.type), texts)
    return texts.dictionary_encode() if is_dictionary else texts


def schema_version(metadata: Mapping[bytes, bytes] | None) -> int:
    """Return the schema version in the metadata of a file; 0 if there is none."""
    return int((metadata or {}).get(_VERSION, b"0"))


def refuse_newer(
    table: type[Table], metadata: Mapping[bytes, bytes] | None, *, where: str = ""
) -> None:
    """Raise a TableError if a file was written by a newer release."""
    version = schema_version(metadata)
    if version > table.schema_version:
        raise TableError(
            f"table {_named(table, where)} has schema version {version}, and this release "
            f"reads up to {table.schema_version}. Upgrade annotation-platform."
        )


def _filled(table: type[Table], name: str, rows: int, where: str) -> pa.Array:
    """Return the values of a column that an older file lacks."""
    column: Column = table.column(name)
    kind = ARROW_TYPES[column.dtype]
    if column.default is not None:
        return pa.repeat(pa.scalar(column.default, kind), rows)
    if column.nullable:
        return pa.nulls(rows, kind)
    raise _missing(table, name, where)


def _missing(table: type[Table], column: str, where: str) -> TableError:
    return TableError(
        f"table {_named(table, where)} is not as declared: column {column} is missing. "
        "See docs/reference/tables.md for its columns."
    )


def _named(table: type[Table], where: str) -> str:
    return f"{table.table_name} ({where})" if where else table.table_name


def table_bytes(table: type[Table], frame: pd.DataFrame, *, where: str = "") -> bytes:
    """Return the file of a table after checking it; ``where`` names it in errors.

    Equal frames give equal bytes, which differ from ``parquet_bytes`` by the schema version.
    """
    rows = pa.Table.from_pandas(table.check(frame, where=where), preserve_index=False)
    metadata = {**rows.schema.metadata, **_table_metadata(table)}
    return table_parquet(rows.replace_schema_metadata(metadata))


def migrated_bytes(table: type[Table], data: bytes, *, where: str = "") -> bytes:
    """Return the current form of a file of an older release, with its original digest."""
    file = pq.read_table(pa.BufferReader(table_bytes(table, read_table(table, data, where=where))))
    origin = {_MIGRATED_FROM: content_digest(data).encode()}
    return table_parquet(file.replace_schema_metadata({**file.schema.metadata, **origin}))


def content_digest(data: bytes) -> str:
    """Return the SHA-256 that identifies a file in lineage; a migration does not change it.

    It is the digest of the file's bytes; for a migrated file, of the bytes before its first
    migration, which ``Lineage`` stores.
    """
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    origin = metadata.get(_MIGRATED_FROM)
    return origin.decode() if origin else _sha256(data)


def with_origin(rows: pa.Table, digests: Mapping[str, str]) -> pa.Table:
    """Return a stored table with its original digest replaced by ``digests``, if it is a key."""
    metadata = rows.schema.metadata or {}
    origin = metadata.get(_MIGRATED_FROM, b"").decode()
    if origin not in digests:
        return rows
    return rows.replace_schema_metadata({**metadata, _MIGRATED_FROM: digests[origin].encode()})


def _table_metadata(table: type[Table]) -> dict[bytes, bytes]:
    return {_TABLE: table.table_name.encode(), _VERSION: str(table.schema_version).encode()}


def read_table(
    table: type[Table], data: bytes, *, where: str = "", was_checked: bool = False
) -> Frame[Any]:
    """Return the table in a file after checking it; ``where`` names it in errors.

    If it ``was_checked`` before, only the names of its columns are checked.
    """

    def decode() -> pd.DataFrame:
        file = TableFile(table, data, where)
        if file.is_current:
            frame = file.frame()
            if was_checked and len(frame):
                return frame
        elif file.is_exact:
            # A file of this version with other columns was not written by this package.
            frame = pq.read_table(pa.BufferReader(data)).to_pandas()
        else:
            frame = file.frame()
        return table.check(frame, where=where)

    return _cached(f"{table.table_name} {was_checked} {_sha256(data)}", decode)


def read_together(table: type[Table], files: Collection[bytes]) -> Frame[Any]:
    """Return the rows of several files of a table; empty if one is older or not as declared.

    Decoding and checking one file takes twenty milliseconds even for few rows; a hundred files
    together take little more.
    """

    def decode() -> pd.DataFrame:
        read = [TableFile(table, data) for data in files]
        if not all(file.is_current for file in read):
            return table.empty()
        tables = [rows for rows in (file.arrow() for file in read) if len(rows)]
        if len({str(rows.schema.remove_metadata()) for rows in tables}) != 1:
            return table.empty()
        part = np.repeat(np.arange(len(tables)), [len(rows) for rows in tables])
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
        return frame if table.fits(frame, part=part) else table.empty()

    return _cached(f"{table.table_name} {' '.join(map(_sha256, files))}", decode)


def _cached(key: str, decode: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """Return the decoded table of a key, which names the bytes and how they are decoded.

    Frames are copied on write, so callers do not see each other's changes; values of object
    columns, such as vectors, are shared.
    """

    def make() -> tuple[int, pd.DataFrame]:
        frame = decode()
        return int(frame.memory_usage(index=False).sum()), frame

    return _DECODED.get(key, make).copy(deep=False)


def table_digest(table: type[Table], frame: pd.DataFrame) -> str:
    """Return the SHA-256 that the file of a table has or would have."""
    return _sha256(table_bytes(table, frame))


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Return ``frame`` as Parquet without index, times or paths: equal frames give equal bytes."""
    return table_parquet(pa.Table.from_pandas(frame, preserve_index=False))


def table_parquet(table: pa.Table) -> bytes:
    """Return the Arrow table of a frame as Parquet, as ``parquet_bytes`` does."""
    sink = io.BytesIO()
    # The chunks of columns in memory would otherwise change the pages.
    pq.write_table(
        table.combine_chunks(), sink, compression="zstd", version="2.6", row_group_size=_ROWS
    )
    return sink.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
