"""Tables in the lake: one Parquet file per table and round, checked on every write and read."""

import hashlib
import io
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from annotation_platform.errors import NotReadyError
from annotation_platform.schema.columns import TEXT
from annotation_platform.schema.tables import TABLES, check_table, empty_table
from annotation_platform.storage.decoded_tables import DecodedTables
from annotation_platform.storage.lineage import Lineage, StoreAsOf
from annotation_platform.storage.objects import ObjectStore

_ROWS = 2**16
"""Rows of a group in a file: what is sorted by image is found by reading one group."""

_DECODED = DecodedTables()


class RoundTables:
    """Read and write the tables of ``schema/tables.py`` by round.

    Args:
        store: where.
        noted: if given, takes the SHA-256 of every file that is read or written, by table and
            round; one that changes between two reads is a NotReadyError.
    """

    def __init__(self, store: ObjectStore, noted: dict[str, str] | None = None) -> None:
        self._store = store
        self._noted = noted

    def noting(self, noted: dict[str, str]) -> "RoundTables":
        """Return the same tables, with every file that is used put into ``noted``."""
        return RoundTables(self._store, noted)

    @property
    def lineage(self) -> Lineage:
        """What tables were made of."""
        return Lineage(self._store)

    def write(self, name: str, round_id: str, frame: pd.DataFrame) -> str:
        """Write one round of a table, replacing it, and return the SHA-256 of the file."""
        data = table_bytes(name, frame, where=round_id)
        self._store.put(table_key(name, round_id), data)
        digest = hashlib.sha256(data).hexdigest()
        if self._noted is not None:
            self._noted[f"{name}/{round_id}"] = digest
        return digest

    def read(self, name: str, round_id: str) -> pd.DataFrame:
        """Return one round of a table; NotReadyError if it was not written yet."""
        # The past is read by digests, so it is what was checked when it was written.
        was_checked = isinstance(self._store, StoreAsOf)
        data = self._get(name, round_id)
        return read_table(name, data, where=round_id, was_checked=was_checked)

    def read_rounds(self, name: str, rounds: Iterable[str]) -> pd.DataFrame:
        """Return the rows of these rounds that exist, in the order given, as one table."""
        existing = [key for key in rounds if self.exists(name, key)]
        if len(existing) > 1:
            together = _read_together(name, [self._get(name, key) for key in existing])
            if not together.empty:
                return together
        frames = [self.read(name, key) for key in existing]
        frames = [frame for frame in frames if not frame.empty]
        return pd.concat(frames, ignore_index=True) if frames else empty_table(name)

    def read_columns(self, name: str, round_id: str, columns: Sequence[str]) -> pd.DataFrame:
        """Return some columns of one round of a table; NotReadyError if it was not written yet.

        The others are not decoded, and those not checked: that they were when they were written.
        Texts come as categories, which takes a tenth of the time where most repeat themselves.
        """
        data = pa.BufferReader(self._get(name, round_id))
        texts = [each for each in columns if TABLES[name].columns[each].dtype == TEXT]
        table = pq.read_table(data, columns=list(columns), read_dictionary=texts)
        frame: pd.DataFrame = table.to_pandas(ignore_metadata=True)
        return frame

    def values(self, name: str, column: str, rounds: Iterable[str]) -> set[str]:
        """Return the different values of a column of text in these rounds, those that exist.

        Nothing else is decoded: of answers there are many more than of what they say.
        """
        found: set[str] = set()
        for key in rounds:
            if self.exists(name, key):
                data = pa.BufferReader(self._get(name, key))
                found.update(pq.read_table(data, columns=[column]).column(0).unique().to_pylist())
        return found - {None}

    def read_all(self, name: str) -> pd.DataFrame:
        """Return every row of a table, by round."""
        return self.read_rounds(name, self.rounds(name))

    def rounds(self, name: str) -> list[str]:
        """Return the rounds of which the table exists, in order."""
        suffix = ".parquet"
        keys = self._store.list(f"tables/{name}")
        return [key.rsplit("/", 1)[1].removesuffix(suffix) for key in keys if key.endswith(suffix)]

    def exists(self, name: str, round_id: str) -> bool:
        """Return whether one round of a table was written."""
        return self._store.exists(table_key(name, round_id))

    def digest(self, name: str, round_id: str) -> str:
        """Return the SHA-256 of one round of a table; the same rows always give the same one."""
        return hashlib.sha256(self._get(name, round_id)).hexdigest()

    def _get(self, name: str, round_id: str) -> bytes:
        key = table_key(name, round_id)
        if not self._store.exists(key):
            raise NotReadyError(
                f"{name} of {round_id} does not exist yet. Materialise {name} for {round_id} first."
            )
        data = self._store.get(key)
        if self._noted is not None:
            digest = hashlib.sha256(data).hexdigest()
            if self._noted.setdefault(f"{name}/{round_id}", digest) != digest:
                raise NotReadyError(
                    f"{name} of {round_id} was written anew while it was read. Run this again."
                )
        return data


def table_bytes(name: str, frame: pd.DataFrame, *, where: str = "") -> bytes:
    """Return the file of a table ``name``, checked; ``where`` names it in errors."""
    return parquet_bytes(check_table(name, frame, where=where))


def read_table(
    name: str, data: bytes, *, where: str = "", was_checked: bool = False
) -> pd.DataFrame:
    """Return the table ``name`` in a file, checked; ``where`` names it in errors.

    Of what ``was_checked`` before, the names of the columns are enough: earlier code may have had
    others.
    """

    def decode() -> pd.DataFrame:
        frame = pd.read_parquet(io.BytesIO(data))
        if was_checked and len(frame) and list(frame) == list(TABLES[name].columns):
            return frame
        return check_table(name, frame, where=where)

    return _DECODED.get(f"{name} {was_checked} {hashlib.sha256(data).hexdigest()}", decode)


def _read_together(name: str, files: Sequence[bytes]) -> pd.DataFrame:
    """Return the rows of several files of a table; none if one is not plainly as declared.

    To make a frame of a file and to check it takes twenty milliseconds, however few its rows are;
    of a hundred files at once it takes little more.
    """

    def decode() -> pd.DataFrame:
        tables = [pq.read_table(pa.BufferReader(data)) for data in files]
        tables = [table for table in tables if len(table)]
        if len({str(table.schema.remove_metadata()) for table in tables}) != 1:
            return empty_table(name)
        file = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        frame: pd.DataFrame = pa.concat_tables(tables).to_pandas()
        fits = TABLES[name].plainly_fits(frame, part=file)
        return frame if fits else empty_table(name)

    digests = [hashlib.sha256(data).hexdigest() for data in files]
    return _DECODED.get(f"{name} {' '.join(digests)}", decode)


def table_digest(name: str, frame: pd.DataFrame) -> str:
    """Return the SHA-256 that the file of a table has or would have."""
    return hashlib.sha256(table_bytes(name, frame)).hexdigest()


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


def table_key(name: str, round_id: str) -> str:
    """Return the lake's key of one round of a table."""
    return f"tables/{name}/{round_id}.parquet"
