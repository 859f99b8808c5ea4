import contextlib
from datetime import UTC

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandera.errors import SchemaError, SchemaErrors

from annotation_platform.errors import TableError
from annotation_platform.schema.columns import (
    Column,
    Table,
    count,
    flag,
    number,
    optional_text,
    text,
    time,
)
from annotation_platform.schema.tables import TABLES, check_table, empty_table, make_table
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables

ROW = {"round_id": "round-0001", "key": "a" * 64, "split": "train"}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_survives_parquet_without_rows(name, tmp_path):
    tables = RoundTables(LocalObjectStore(tmp_path))
    tables.write(name, "round-0001", empty_table(name))
    assert list(tables.read(name, "round-0001").dtypes) == list(empty_table(name).dtypes)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_column_says_what_it_holds(name):
    assert all(column.about for column in TABLES[name].columns.values())


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({**ROW, "split": "holdout"}, id="value outside its list"),
        pytest.param({**ROW, "key": "xyz"}, id="not a digest"),
        pytest.param({**ROW, "round_id": None}, id="missing value"),
    ],
)
def test_a_row_that_breaks_the_declaration_is_refused_by_name(wrong):
    with pytest.raises(TableError, match="splits"):
        make_table("splits", [wrong])


COLUMNS = {
    "text": text("", pattern="^[a-z]+$"),
    "optional": optional_text("", pattern="^([a-z]+)?$"),
    "one of": text("", one_of=["a", "b"]),
    "count": count(""),
    "number": number("", 0, 1),
    "flag": flag(""),
    "time": time(""),
    "class id": Column("Int64", "", nullable=True, low=0),
    "vector": Column("object", ""),
}
VALUES = st.one_of(
    st.none(),
    st.sampled_from(["a", "b", "ab", "A", "", "a\n", "ä"]),
    st.sampled_from([0, 1, -1, 2, 0.5, 1.5, float("nan"), float("inf"), True]),
    st.datetimes(timezones=st.just(UTC)),
)


@pytest.mark.parametrize("name", COLUMNS)
@given(values=st.lists(VALUES, max_size=3), typed=st.booleans())
def test_what_plainly_fits_is_what_pandera_passes_as_it_is(name, values, typed):
    column = COLUMNS[name]
    table = Table("table", "", {"x": column}, [])
    series = pd.Series(values, name="x")
    if typed:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            series = series.astype(column.dtype)
    try:
        passed = table.checked.validate(series.to_frame(), lazy=False)["x"]
        as_it_is = passed.dtype == series.dtype and passed.equals(series)
    except (SchemaError, SchemaErrors):
        as_it_is = False
    fits = column.plainly_fits(series)
    assert as_it_is or not fits
    # Else nothing but other types, and text with a line's end, which pandera's patterns overlook.
    ends = any(isinstance(each, str) and each.endswith("\n") for each in values)
    if series.dtype == pd.api.types.pandas_dtype(column.dtype) and not ends:
        assert fits == as_it_is


def test_a_key_stands_in_a_table_once():
    with pytest.raises(TableError, match="key"):
        make_table("splits", [ROW, {**ROW, "split": "test"}])


def test_a_table_with_a_foreign_column_is_refused():
    frame = make_table("splits", [ROW]).assign(mood="good")
    with pytest.raises(TableError, match="mood"):
        check_table("splits", frame)


def test_equal_tables_are_equal_files(tmp_path):
    tables = RoundTables(LocalObjectStore(tmp_path))
    digests = {tables.write("splits", "round-0001", make_table("splits", [ROW])) for _ in range(3)}
    assert len(digests) == 1
