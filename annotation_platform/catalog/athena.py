"""The tables of a lake on S3 as external tables of Amazon Athena, over the same files.

Each table is a folder of Parquet files, one a round, so it needs no partitions: a new round is
there as soon as its file is. Athena finds columns by name; one that an old file lacks is null, and
so is one that an old file has under another name: `annotation-platform migrate` rewrites those.
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
"""What each declared type of ``schema/tables/`` is in Athena; the one ``object`` is a vector."""

_LOCATION = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9!_.*()=/-]*)?")


def external_tables(location: str) -> dict[str, str]:
    """Return the statement that creates each table, by name, without a semicolon.

    Athena takes one statement at a time and reads a timestamp as the UTC time that is stored.

    Args:
        location: the lake's root, ``s3://bucket/prefix``; anything else is a SettingsError.
    """
    if not _LOCATION.fullmatch(location):
        raise SettingsError(
            f"--location {location!r} is not where a lake can be in S3: give s3://bucket/prefix."
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
    """Return ``text`` as a literal, without the semicolons at which clients cut a script."""
    plain = text.replace(";", ",").replace("\\", "\\\\").replace("'", "\\'")
    return f"'{plain}'"
