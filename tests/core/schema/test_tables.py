import contextlib
import importlib
import pkgutil
import re
from datetime import UTC, datetime
from enum import StrEnum

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.errors import TableError
from annotation_platform.schema import tables as declared_tables
from annotation_platform.schema.tables import (
    TABLES,
    AnnotatorPace,
    Frame,
    RawImages,
    Splits,
    Table,
    table_named,
)
from annotation_platform.schema.tables.table import (
    Column,
    count,
    flag,
    number,
    optional_text,
    states,
    text,
    time,
)
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables

ROW = {"round_id": "round-0001", "key": "a" * 64, "split": "train"}


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_table_survives_parquet_without_rows(name, tmp_path):
    tables, table = RoundTables(LocalObjectStore(tmp_path)), TABLES[name]
    tables.write(table, "round-0001", table.empty())
    assert list(tables.read(table, "round-0001").dtypes) == list(table.empty().dtypes)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_column_says_what_it_holds(name):
    assert TABLES[name].about
    assert TABLES[name].key_columns
    assert all(column.about for column in TABLES[name].columns.values())


def test_every_declared_table_is_listed():
    for module in pkgutil.iter_modules(declared_tables.__path__, f"{declared_tables.__name__}."):
        importlib.import_module(module.name)
    waiting, found = [Table], set()
    while waiting:
        below = waiting.pop().__subclasses__()
        waiting += below
        found |= {each for each in below if each.table_name and "tests" not in each.__module__}
    assert {each for each in found if each.__module__.startswith(declared_tables.__name__)} == set(
        TABLES.values()
    )
    assert all(table_named(name) is table for name, table in TABLES.items())
    with pytest.raises(TableError, match="no table moods"):
        table_named("moods")


def test_a_column_is_its_name_and_a_misspelt_one_an_error():
    assert Splits.split == "split"
    assert Splits.column("split").one_of == ["train", "val", "test"]
    assert Frame[Splits] is pd.DataFrame
    with pytest.raises(AttributeError, match="splitt"):
        _ = Splits.splitt
    shared = text("")
    type("One", (Table,), {"x": shared}, name="one")
    with pytest.raises((TypeError, RuntimeError)):
        type("Two", (Table,), {"y": shared}, name="two")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        pytest.param(
            {"split": "holdout"},
            "column split holds 'holdout' in row 1, which is none of 'train', 'val', 'test'",
            id="value outside its list",
        ),
        pytest.param(
            {"key": "xyz"},
            "column key holds 'xyz' in row 1, which does not match ^[0-9a-f]{64}$",
            id="not a digest",
        ),
        pytest.param(
            {"round_id": None}, "column round_id has no value in row 1", id="missing value"
        ),
    ],
)
def test_a_row_that_breaks_the_declaration_is_refused_by_name(wrong, message):
    with pytest.raises(TableError, match=re.escape(f"table splits is not as declared: {message}")):
        Splits.from_rows([ROW, {**ROW, "key": "b" * 64, **wrong}])


def test_a_number_out_of_range_is_named_with_its_row_in_the_table():
    row = {"round_id": "round-0001", "feature": "annotation", "annotator": "a", "detail": ""}
    row |= {"drifted": True, "annotations": 1, "earlier_annotations": 1}
    rows = [{**row, "pre_annotated": True}, {**row, "pre_annotated": False, "p_value": 1.5}]
    with pytest.raises(TableError, match=r"p_value holds 1\.5 in row 1, .*above 1"):
        AnnotatorPace.from_rows(rows)


def test_a_column_of_another_type_is_refused_and_times_are_turned_into_utc():
    frame = Splits.from_rows([ROW])
    with pytest.raises(TableError, match=r"splits \(round-0001\).* split has the type object"):
        Splits.check(frame.assign(split=frame["split"].astype(object)), where="round-0001")
    row = {
        "round_id": "round-0001",
        "source_key": "a",
        "arrival_version": "",
        "byte_size": 0,
        "problem": "",
    }
    raw = RawImages.from_rows([{**row, "other_metadata": ""}])
    moment = pd.Timestamp("2026-01-01T02:00", tz="Europe/Berlin")
    for times in (
        [moment],
        pd.Series([moment], dtype=object),
        [datetime(2026, 1, 1, 1, tzinfo=UTC)],
    ):
        checked = RawImages.check(raw.assign(captured_at=times))
        assert checked["captured_at"].tolist() == [pd.Timestamp("2026-01-01T01:00", tz="UTC")]
        assert str(checked["captured_at"].dtype) == "datetime64[us, UTC]"
    with pytest.raises(TableError, match="captured_at has the type int64"):
        RawImages.check(raw.assign(captured_at=[5]))


class Letter(StrEnum):
    A = "a"
    B = "b"


COLUMNS = {
    "text": text("", pattern="^[a-z]+$"),
    "optional": optional_text("", pattern="^([a-z]+)?$"),
    "one of": text("", one_of=["a", "b"]),
    "states": states("", Letter, or_empty=True),
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


def is_allowed(value, column):
    """Judge one value by itself; ``Column.problem`` judges whole columns."""
    if pd.isna(value):
        return column.nullable
    return (
        (not column.pattern or re.fullmatch(column.pattern.strip("^$"), value) is not None)
        and (column.one_of is None or value in list(column.one_of))
        and (column.low is None or value >= column.low)
        and (column.high is None or value <= column.high)
    )


@pytest.mark.parametrize("name", COLUMNS)
@given(values=st.lists(VALUES, max_size=3), typed=st.booleans())
def test_a_column_is_as_declared_if_its_type_and_each_of_its_values_are(name, values, typed):
    column = COLUMNS[name]
    series = pd.Series(values, name="x")
    if typed:
        with contextlib.suppress(ValueError, TypeError, OverflowError):
            series = series.astype(column.dtype)
    is_typed = column.has_type(series.dtype)
    allowed = [is_typed and is_allowed(value, column) for value in series]
    problem = column.problem(series)
    assert (problem == "") == (is_typed and all(allowed))
    table = type("Any", (Table,), {"x": Column(**{**vars(column), "name": ""})}, name="any")
    assert table.fits(series.to_frame()) == (problem == "")
    if is_typed and problem:
        row = int(re.search(r"in row (\d+)", problem)[1])
        assert not allowed[row]


def test_a_key_stands_in_a_table_once():
    with pytest.raises(TableError, match="row 1 repeats the key of an earlier row, key 'aaa"):
        Splits.from_rows([ROW, {**ROW, "split": "test"}])


def test_a_table_with_a_foreign_column_is_refused():
    frame = Splits.from_rows([ROW])
    with pytest.raises(TableError, match="column mood is not declared"):
        Splits.check(frame.assign(mood="good"))
    with pytest.raises(TableError, match="column key is missing"):
        Splits.check(frame.drop(columns="key"))
    with pytest.raises(TableError, match="column split is at position 0"):
        Splits.check(frame[["split", "key", "round_id"]])


def test_equal_tables_are_equal_files(tmp_path):
    tables = RoundTables(LocalObjectStore(tmp_path))
    digests = {tables.write(Splits, "round-0001", Splits.from_rows([ROW])) for _ in range(3)}
    assert len(digests) == 1


class Tagged(Table, name="tagged"):
    """A table with columns that rows may lack."""

    label_id = text("", key=True)
    attributes = text("").or_else("")
    ignore = flag("").or_else(False)
    track_id = optional_text("")


def test_rows_and_frames_without_a_column_have_its_default():
    bare, full = {"label_id": "a"}, {"label_id": "b", "attributes": "{}", "ignore": True}
    rows = Tagged.from_rows([bare, {**full, "track_id": "t"}])
    assert rows["attributes"].tolist() == ["", "{}"]
    assert rows["ignore"].tolist() == [False, True]
    assert rows["track_id"].isna().tolist() == [True, False]
    conformed = Tagged.conform(pd.DataFrame([bare]))
    pd.testing.assert_frame_equal(conformed, Tagged.from_rows([bare]))
    # A default replaces no value that is missing in a frame with the column.
    with pytest.raises(TableError, match="column attributes has no value in row 0"):
        Tagged.from_rows([{**bare, "attributes": None}])
    with pytest.raises(TableError, match="column attributes is missing"):
        Tagged.check(pd.DataFrame([bare]))
