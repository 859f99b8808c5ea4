"""Athena declares the tables of the lake: same columns, same types, same files."""

import re

import pandas as pd
import pyarrow.parquet as pq
import pytest

from annotation_platform.catalog.athena import external_tables
from annotation_platform.errors import SettingsError
from annotation_platform.schema.tables import TABLES, table_named
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables
from tests.commands import run_command

# A literal of Hive: quotes and backslashes in it are escaped.
TEXT = r"'(?:[^'\\;]|\\['\\])*'"
COLUMN = re.compile(rf"`([a-z][a-z0-9_]*)` ([a-z0-9<>]+) COMMENT ({TEXT})")
STATEMENT = re.compile(
    r"CREATE EXTERNAL TABLE IF NOT EXISTS `(?P<name>[a-z_]+)` \(\n(?P<columns>.*)\n\)\n"
    rf"COMMENT {TEXT}\nSTORED AS PARQUET\nLOCATION '(?P<location>s3://[^']+/)'",
    re.DOTALL,
)

# What Athena's manual says that it reads from each type of a Parquet file.
READS = {
    "large_string": "string",
    "int64": "bigint",
    "double": "double",
    "bool": "boolean",
    "timestamp[us, tz=UTC]": "timestamp",
    "list<element: float>": "array<float>",
}
DECLARED = {
    "string[pyarrow]": "string",
    "int64": "bigint",
    "Int64": "bigint",
    "float64": "double",
    "bool": "boolean",
    "datetime64[us, UTC]": "timestamp",
    "object": "array<float>",
}


def parse(statement):
    """Return name, columns by type and location of a statement; AssertionError if it is no such."""
    whole = STATEMENT.fullmatch(statement)
    assert whole, statement
    columns = {}
    for line in whole["columns"].split(",\n"):
        column = COLUMN.fullmatch(line.strip())
        assert column, line
        assert column[1] not in columns
        columns[column[1]] = column[2]
    return whole["name"], columns, whole["location"]


@pytest.mark.parametrize("name", TABLES)
def test_the_columns_and_types_are_those_declared(name):
    declared, columns, location = parse(external_tables("s3://bucket/some/prefix/")[name])
    expected = {key: DECLARED[str(col.dtype)] for key, col in TABLES[name].columns.items()}
    assert (declared, list(columns.items())) == (name, list(expected.items()))
    assert location == f"s3://bucket/some/prefix/tables/{name}/"


@pytest.mark.parametrize("name", TABLES)
def test_the_types_are_those_of_the_files(tmp_path, name):
    frame = table_named(name).empty()
    if name == "image_embeddings":
        text = {"round_id": "round-0001", "image_id": "0" * 64, "embedder": "e-1"}
        frame = pd.DataFrame([text]).astype("str").assign(vector=[pd.Series([0.5], dtype="f4")])
        frame["vector"] = [values.to_numpy() for values in frame["vector"]]
    RoundTables(LocalObjectStore(tmp_path)).write(table_named(name), "round-0001", frame)
    schema = pq.read_schema(tmp_path / "tables" / name / "round-0001.parquet")
    _, columns, location = parse(external_tables("s3://bucket")[name])
    assert {field.name: READS[str(field.type)] for field in schema} == columns
    assert location.removeprefix("s3://bucket/") == f"tables/{name}/"


@pytest.mark.parametrize(
    "location", ["", "bucket/prefix", "s3://", "s3://B", "s3://bucket/a'b", "s3://bucket/a\nb"]
)
def test_a_location_that_cannot_be_is_refused(location):
    with pytest.raises(SettingsError, match="--location"):
        external_tables(location)


def test_the_command_prints_a_script():
    done = run_command("catalog", "athena-ddl", "--location", "s3://lake")
    assert done.returncode == 0
    statements = [each.strip() for each in done.stdout.split(";")]
    assert statements.pop() == ""
    assert [parse(each)[0] for each in statements] == list(TABLES)
