import pytest

from annotation_platform.errors import TableError
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
