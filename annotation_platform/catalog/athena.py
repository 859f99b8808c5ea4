"""Statements that declare the tables of a lake on S3 as external tables of Amazon Athena.

Each table is a folder of Parquet files, one per round, so it needs no partitions: a round can be
queried as soon as its file exists. Athena finds columns by name. A column that an old file lacks,
or has under another name, is null; `annotation-platform migrate` rewrites such files.
"""

import re

from annotation_platform.errors import SettingsError
from annotation_platform.schema.tables import TABLES

ATHENA_TYPES = {
    "string[pyarrow]": "string",
    "int64": "bigint",
    "Int64": "bigint",
    "float64": "double",
    "bool": "boolean",
    "datetime64[us, UTC]": "timestamp",
    "object": "array<float>",
}
"""Athena type of each declared type of ``schema/tables/``; ``object`` columns are vectors."""

_LOCATION = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*()=/-]*)?")


def external_tables(location: str) -> dict[str, str]:
    """Return the CREATE statement of each table by table name, without a semicolon.

    Athena runs one statement at a time, and reads a timestamp as the stored UTC time.

    Args:
        location: Root of the lake, ``s3://bucket/prefix``.

    Raises:
        SettingsError: ``location`` has another form.
    """
    if not _LOCATION.fullmatch(location):
        raise SettingsError(
            f"--location {location!r} is not an S3 location of a lake: pass s3://bucket/prefix."
        )
    return {name: _create(name, location.rstrip("/")) for name in TABLES}


def _create(name: str, root: str) -> str:
    table = TABLES[name]
    columns = ",\n".join(
        f"  `{key}` {ATHENA_TYPES[column.dtype]} COMMENT {_quoted(column.about)}"
        for key, column in table.columns.items()
    )
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS `{name}` (\n{columns}\n)\n"
        f"COMMENT {_quoted(table.about)}\n"
        f"STORED AS PARQUET\n"
        f"LOCATION '{root}/tables/{name}/'"
    )


def _quoted(text: str) -> str:
    """Return ``text`` as a literal; commas replace semicolons, at which clients split scripts."""
    plain = text.replace(";", ",").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'"
