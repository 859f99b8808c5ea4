"""SQL queries over the tables of a lake, by DuckDB on their Parquet files.

A query can read only the tables: no files, no network, no extensions, and no variables of the
calling program. DuckDB receives the files as Arrow datasets, so that only the rows and columns that
a query needs are read, and opens no file itself.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from annotation_platform.errors import QueryError, SettingsError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.schema.tables import TABLES, Table
from annotation_platform.schema.tables.shared import METADATA_COLUMNS
from annotation_platform.schema.tables.table import ARROW_TYPES
from annotation_platform.settings import read_settings
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.s3 import is_s3
from annotation_platform.storage.table_files import TableFile, schema_version

VIEWS = {
    "images": f"""
        SELECT c.*, {", ".join(f"r.{name}" for name in METADATA_COLUMNS)}
        FROM cleaned_images c LEFT JOIN raw_images r
        ON r.round_id = c.round_id AND r.source_key = c.source_key
        AND r.arrival_version = c.arrival_version
        WHERE c.outcome = 'accepted'
    """,
    "quarantine": "SELECT * FROM cleaned_images WHERE outcome = 'quarantined'",
    "predictions": """
        SELECT p.*, m.dataset_tag, i.source_key, i.width, i.height
        FROM model_predictions p
        LEFT JOIN (
            SELECT weights_sha256, min(dataset_tag) AS dataset_tag FROM (
                SELECT weights_sha256, dataset_tag FROM trained_model
                UNION ALL SELECT classifier_sha256, dataset_tag FROM trained_model
            ) GROUP BY weights_sha256
        ) m ON m.weights_sha256 = p.weights_sha256
        LEFT JOIN images i ON i.image_id = p.image_id
    """,
    "labels": f"""
        SELECT c.*, i.source_key, i.group_id, i.width, i.height, i.extension, i.stored_sha256,
            i.sharpness, i.brightness, i.entropy, i.flags,
            {", ".join(f"i.{name}" for name in METADATA_COLUMNS)}
        FROM reviewed_labels c LEFT JOIN images i ON i.image_id = c.image_id
    """,
    # A round with unchanged content repeats a version: the first round of a version counts.
    "versions": """
        SELECT * FROM dataset_version v WHERE round_id = (
            SELECT min(w.round_id) FROM dataset_version w WHERE w.version = v.version
        )
    """,
    "version_labels": """
        SELECT v.version, v.tag, t.* EXCLUDE (training_round)
        FROM versions v JOIN training_sets t ON t.training_round = v.round_id
    """,
}
"""Views by name; a view uses only views above it."""

_READING = {"SELECT", "EXPLAIN"}
_CLOSED = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    # The default is a folder in the current directory; without file access it cannot be used.
    "temp_directory": "",
}


@dataclass(frozen=True)
class QueryResult:
    """Rows of a query's result as JSON values.

    Times (UTC) and durations are ISO 8601 strings. Missing values, NaN and infinity are ``None``.
    """

    columns: list[str]
    rows: list[list[Any]]


def query(sql: str, *, home: str | Path | None = None) -> pd.DataFrame:
    """Return the result of a SELECT over the catalog.

    The catalog has each table of ``schema/tables/``, empty until a round writes it, and the views
    ``images`` (accepted), ``quarantine``, ``predictions``, ``labels`` (of the consensus, with their
    image), ``versions`` and ``version_labels`` (all labels of all versions). ``SHOW TABLES`` lists
    them, ``DESCRIBE labels`` lists the columns. ``training_set`` contains a label once for each
    round that trained on it: count labels in ``version_labels``, or by the ``training_round`` of
    ``training_sets``.

    Times are in UTC. Integer and boolean columns with missing values keep their type (``Int64``,
    ``boolean``). The order of the rows is the query's.

    Args:
        sql: One query in DuckDB's SQL.
        home: Home of the platform; by default ``ANNOTATION_HOME`` of the environment.

    Raises:
        QueryError: the query is invalid, writes, or reads anything except the tables.
        SettingsError: the home has no lake.
    """
    settings = read_settings()
    if home is not None:
        settings = settings.model_copy(update={"home": Path(home), "lake": ""})
    url = settings.lake_url
    if not is_s3(url) and not Path(url).is_dir():
        raise SettingsError(
            f"{url}: there is no lake here. Set ANNOTATION_HOME, or pass home= "
            "of a platform that has ingested images."
        )
    return to_frame(run_query(lake_of(settings), sql))


def run_query(lake: Lake, sql: str) -> pa.Table:
    """Return the result of ``sql`` over the tables of ``lake``; see ``query``.

    A decimal becomes a 64-bit integer if it has no decimal places and fits, else a float.
    """
    try:
        with duckdb.connect(":memory:", config=dict(_CLOSED)) as database:
            _attach(database, lake.store)
            _must_only_read(database.extract_statements(sql))
            return _without_decimals(_run(database, sql))
    except duckdb.Error as error:
        raise QueryError(f"the query failed: {_one_line(error)}") from error


def to_frame(table: pa.Table) -> pd.DataFrame:
    """Return a result as a DataFrame; integers and booleans with missing values keep their type."""
    frame: pd.DataFrame = table.to_pandas()
    for index, column in enumerate(table.columns):
        if column.null_count and pa.types.is_integer(column.type):
            frame.isetitem(index, column.to_pandas(types_mapper=lambda _: pd.Int64Dtype()))
        elif column.null_count and pa.types.is_boolean(column.type):
            frame.isetitem(index, column.to_pandas(types_mapper=lambda _: pd.BooleanDtype()))
    return frame


def to_result(table: pa.Table) -> QueryResult:
    """Return a result as JSON values, row by row."""
    columns = [[_plain(value) for value in column.to_pylist()] for column in table.columns]
    return QueryResult(list(table.column_names), [list(row) for row in zip(*columns, strict=True)])


def _run(database: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    # DuckDB does not react to Ctrl-C, so the query runs in a thread and the wait is interrupted.
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(lambda: database.sql(sql).to_arrow_table())
        try:
            return result.result()
        except KeyboardInterrupt:
            # A query that has not started yet ignores an interrupt, so it is repeated.
            while not result.done():
                database.interrupt()
                wait([result], timeout=0.1)
            raise


def _attach(database: duckdb.DuckDBPyConnection, store: ObjectStore) -> None:
    for name in TABLES:
        database.register(name, _rows(store, name))
    # A training set repeats labels of earlier rounds, so its rows need the round of their file.
    database.register("training_sets", _rows(store, "training_set", file_round="training_round"))
    for name, sql in VIEWS.items():
        database.execute(f"CREATE VIEW {name} AS {sql}")
    database.execute("SET TimeZone = 'UTC'")
    database.execute("SET python_enable_replacements = false")
    database.execute("SET lock_configuration = true")


def _rows(store: ObjectStore, name: str, *, file_round: str = "") -> Any:
    """Return a table of all rounds; ``file_round`` names a column for the round of each file."""
    table = TABLES[name]
    columns = table.columns.items()
    # The declared types also apply to rounds without rows, whose types pandas did not write.
    schema = pa.schema([(key, ARROW_TYPES[column.dtype]) for key, column in columns])
    if file_round:
        schema = schema.append(pa.field(file_round, pa.string()))
    keys = _keys(store, table)
    older = _older(store, table, keys) if table.maps_older_files() else {}
    keys = [key for key in keys if key not in older]
    mapped = [
        _with_round(rows, file_round, PurePosixPath(key).stem).cast(schema)
        for key, rows in older.items()
    ]
    if not keys:
        return pa.concat_tables([schema.empty_table(), *mapped])
    filesystem, root = store.arrow_filesystem()
    rounds = [PurePosixPath(key).stem for key in keys]
    files = ds.FileSystemDataset.from_paths(
        [f"{root}/{key}" for key in keys],
        schema=schema,
        format=ds.ParquetFileFormat(),
        filesystem=filesystem,
        partitions=[ds.field(file_round) == each for each in rounds] if file_round else None,
    )
    return ds.dataset([files, ds.dataset(mapped)]) if mapped else files


def _keys(store: ObjectStore, table: type[Table]) -> list[str]:
    """Return the files of a table, one per round: under an old name if no current one exists."""
    found: dict[str, str] = {}
    for name in (table.table_name, *table.old_names):
        for key in store.list(f"tables/{name}"):
            if key.endswith(".parquet"):
                found.setdefault(PurePosixPath(key).stem, key)
    return list(found.values())


def _older(store: ObjectStore, table: type[Table], keys: Sequence[str]) -> dict[str, pa.Table]:
    """Return the rows of files with other names or texts, mapped to the current schema."""
    filesystem, root = store.arrow_filesystem()

    def rows(key: str) -> pa.Table | None:
        held = pq.read_schema(f"{root}/{key}", filesystem=filesystem)
        is_older = schema_version(held.metadata) < table.schema_version
        has_texts = is_older and any(each.renamed_values for each in table.columns.values())
        if set(table.columns) <= set(held.names) and not has_texts:
            return None
        return TableFile(table, store.get(key), key).arrow()

    with ThreadPoolExecutor() as pool:
        found = zip(keys, pool.map(rows, keys), strict=True)
        return {key: each for key, each in found if each is not None}


def _with_round(rows: pa.Table, name: str, round_id: str) -> pa.Table:
    """Return rows with the round of their file as an additional column, if ``name`` is given."""
    if not name:
        return rows
    return rows.append_column(name, pa.repeat(pa.scalar(round_id, pa.string()), len(rows)))


def _must_only_read(statements: list[duckdb.Statement]) -> None:
    if len(statements) != 1:
        raise QueryError(f"expected one query, got {len(statements)}. Run them one at a time.")
    kind = statements[0].type.name
    if kind not in _READING:
        raise QueryError(
            f"a query can only read the catalog: {kind} is refused. Write a SELECT; "
            "SHOW TABLES lists the tables and views."
        )


def _one_line(error: duckdb.Error) -> str:
    """Return DuckDB's message in one line, without the excerpt of the query."""
    text = str(error).split("\n\nLINE ", 1)[0]
    return " ".join(text.split())


def _without_decimals(table: pa.Table) -> pa.Table:
    """Return ``table`` with 64-bit numbers instead of the decimals of sums and literals."""
    for index, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type):
            column = table.column(index)
            try:
                whole = field.type.scale == 0
                numbers = column.cast(pa.int64() if whole else pa.float64())
            except pa.ArrowInvalid:
                numbers = column.cast(pa.float64())
            table = table.set_column(index, field.name, numbers)
    return table


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, pa.MonthDayNano):
        return f"P{value.months}M{value.days}DT{value.nanoseconds / 1e9}S"
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int):
        return value
    return str(value)
