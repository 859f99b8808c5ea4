"""Tables as Parquet files, of this release and of older ones.

The metadata of a file names its table and the version of its columns. Files of v0.1.0 carry no
version and count as version 0. An older file is mapped when it is read: columns renamed since are
found under their old names, those added since have their defaults, those dropped since are left
out. A file of a newer release is refused.
"""

import hashlib
import io
from collections.abc import Collection, Mapping, Sequence
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
from annotation_platform.storage.decoded_tables import DecodedTables

_ROWS = 2**16
"""Rows of a group in a file: what is sorted by image is found by reading one group."""
_TABLE = b"annotation_platform.table"
_VERSION = b"annotation_platform.schema_version"
_MIGRATED_FROM = b"annotation_platform.migrated_from"
_DECODED = DecodedTables()


@dataclass(frozen=True)
class TableFile:
    """A Parquet file of a table, read in the terms of today's columns.

    A file of a newer schema version is a TableError, whatever is read of it.

    Attributes:
        table: the table.
        data: the bytes of the file.
        where: names the file in errors.
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
        """The schema version of the file; 0: it was written before files carried one."""
        return schema_version(self._file.schema_arrow.metadata)

    @property
    def is_current(self) -> bool:
        """Whether its columns are today's, in order, and its version too or unknown."""
        is_older = 0 < self.version < self.table.schema_version
        return not is_older and self._file.schema_arrow.names == list(self.table.columns)

    @property
    def is_exact(self) -> bool:
        """Whether it carries today's version: its columns must be as declared, without mapping."""
        return self.version == self.table.schema_version

    def name_of(self, column: str) -> str | None:
        """Return the name of one of today's columns in the file; None: the file lacks it."""
        return self.table.column(column).find_in(self._file.schema_arrow.names)

    def arrow(
        self,
        columns: Sequence[str] | None = None,
        *,
        only: tuple[str, Collection[str]] | None = None,
        as_categories: bool = False,
    ) -> pa.Table:
        """Return columns of the file under today's names, unchecked.

        Args:
            columns: names of today's columns; None: all.
            only: a column of text and the values that the returned rows may have there.
            as_categories: whether texts come as dictionaries, which takes a tenth of the time
                where most repeat themselves.
        """
        wanted = list(self.table.columns if columns is None else columns)
        held = {each: self.name_of(each) for each in wanted}
        found = self._read(held, only, as_categories=as_categories)
        for each, name in held.items():
            renamed = self.table.column(each).renamed_values
            if name is not None and renamed and not self.is_exact:
                at = found.schema.get_field_index(name)
                found = found.set_column(at, name, _with_new_values(found.column(at), renamed))
        if list(held) == list(held.values()):
            return found.select(wanted)
        arrays = {
            each: _filled(self.table, each, len(found), self.where) if name is None else found[name]
            for each, name in held.items()
        }
        return pa.table(arrays)

    def frame(
        self,
        columns: Sequence[str] | None = None,
        *,
        only: tuple[str, Collection[str]] | None = None,
    ) -> pd.DataFrame:
        """Return what ``arrow`` returns, with today's types."""
        table = self.arrow(columns, only=only)
        frame: pd.DataFrame = table.to_pandas()
        if table.schema.pandas_metadata is None and len(frame):
            types = {each: self.table.column(each).dtype for each in table.column_names}
            frame = frame.astype({each: name for each, name in types.items() if name != "object"})
        return frame

    def stored(self) -> pa.Table:
        """Return the file as it is, its own columns and metadata."""
        return self._file.read()

    def _read(
        self,
        held: Mapping[str, str | None],
        only: tuple[str, Collection[str]] | None,
        *,
        as_categories: bool,
    ) -> pa.Table:
        names = [name for name in held.values() if name is not None]
        if only is None and not as_categories:
            return self._file.read(columns=names)
        texts = [
            name for each, name in held.items() if name and self.table.column(each).dtype == TEXT
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
        place = f" ({where})" if where else ""
        raise TableError(
            f"table {table.table_name}{place} has schema version {version}, and this release "
            f"reads up to {table.schema_version}. Upgrade annotation-platform."
        )


def _filled(table: type[Table], name: str, rows: int, where: str) -> pa.Array:
    """Return a column that an older file lacks."""
    column: Column = table.column(name)
    kind = ARROW_TYPES[column.dtype]
    if column.default is not None:
        return pa.repeat(pa.scalar(column.default, kind), rows)
    if column.nullable:
        return pa.nulls(rows, kind)
    raise _missing(table, name, where)


def _missing(table: type[Table], column: str, where: str) -> TableError:
    place = f" ({where})" if where else ""
    return TableError(
        f"table {table.table_name}{place} is not as declared: column {column} is missing. "
        "See docs/reference/tables.md for its columns."
    )


def table_bytes(table: type[Table], frame: pd.DataFrame, *, where: str = "") -> bytes:
    """Return the file of a table, checked; ``where`` names it in errors.

    Equal frames give equal bytes, which differ from ``parquet_bytes`` by the schema's version.
    """
    rows = pa.Table.from_pandas(table.check(frame, where=where), preserve_index=False)
    return table_parquet(rows.replace_schema_metadata({**rows.schema.metadata, **_stamp(table)}))


def migrated_bytes(table: type[Table], data: bytes, *, where: str = "") -> bytes:
    """Return the file of today for one of an older release, with the digest it is known by."""
    file = pq.read_table(pa.BufferReader(table_bytes(table, read_table(table, data, where=where))))
    origin = {_MIGRATED_FROM: content_digest(data).encode()}
    return table_parquet(file.replace_schema_metadata({**file.schema.metadata, **origin}))


def content_digest(data: bytes) -> str:
    """Return the SHA-256 by which lineage knows a file, which a migration does not change.

    It is that of its bytes; for a migrated file that of the bytes it was first migrated from,
    which ``Lineage`` keeps.
    """
    metadata = pq.read_schema(pa.BufferReader(data)).metadata or {}
    origin = metadata.get(_MIGRATED_FROM)
    return origin.decode() if origin else _sha256(data)


def with_origin(rows: pa.Table, digests: Mapping[str, str]) -> pa.Table:
    """Return a stored table with the digest it was migrated from replaced, if that is a key."""
    metadata = rows.schema.metadata or {}
    origin = metadata.get(_MIGRATED_FROM, b"").decode()
    if origin not in digests:
        return rows
    return rows.replace_schema_metadata({**metadata, _MIGRATED_FROM: digests[origin].encode()})


def _stamp(table: type[Table]) -> dict[bytes, bytes]:
    return {_TABLE: table.table_name.encode(), _VERSION: str(table.schema_version).encode()}


def read_table(
    table: type[Table], data: bytes, *, where: str = "", was_checked: bool = False
) -> Frame[Any]:
    """Return the table in a file, checked; ``where`` names it in errors.

    If it ``was_checked`` before, the names of its columns are enough.
    """

    def decode() -> pd.DataFrame:
        file = TableFile(table, data, where)
        if file.is_current:
            frame = file.frame()
            if was_checked and len(frame):
                return frame
        elif file.is_exact:
            # A file of this version with other columns was written by other means.
            frame = pq.read_table(pa.BufferReader(data)).to_pandas()
        else:
            frame = file.frame()
        return table.check(frame, where=where)

    return _DECODED.get(f"{table.table_name} {was_checked} {_sha256(data)}", decode)


def read_together(table: type[Table], files: Collection[bytes]) -> Frame[Any]:
    """Return the rows of several files of a table; none if one is older or not as declared.

    To make a frame of a file and to check it takes twenty milliseconds, however few its rows are;
    for a hundred files at once it takes little more.
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

    return _DECODED.get(f"{table.table_name} {' '.join(map(_sha256, files))}", decode)


def table_digest(table: type[Table], frame: pd.DataFrame) -> str:
    """Return the SHA-256 that the file of a table has or would have."""
    return _sha256(table_bytes(table, frame))


def parquet_bytes(frame: pd.DataFrame) -> bytes:
    """Return ``frame`` as Parquet. Equal frames give equal bytes: no index, no times, no paths."""
    return table_parquet(pa.Table.from_pandas(frame, preserve_index=False))


def table_parquet(table: pa.Table) -> bytes:
    """Return the Arrow table of a frame as ``parquet_bytes`` does; a part of one is a copy."""
    sink = io.BytesIO()
    # How its columns lie in memory would show in the pages.
    pq.write_table(
        table.combine_chunks(), sink, compression="zstd", version="2.6", row_group_size=_ROWS
    )
    return sink.getvalue()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
