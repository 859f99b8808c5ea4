"""Files of older and newer releases."""

import hashlib
import io

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from annotation_platform.catalog import query
from annotation_platform.errors import TableError
from annotation_platform.schema.tables import (
    TABLES,
    AutoLabels,
    ConsensusLabels,
    HeldOutPredictions,
    HumanLabels,
    ImportedLabels,
    ModelPredictions,
    RawImages,
    ReviewedLabels,
    RoundTasks,
    Splits,
    Table,
    TrainingSet,
)
from annotation_platform.schema.tables.table import Column, count, number, text
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables, table_key
from annotation_platform.storage.table_files import (
    TableFile,
    parquet_bytes,
    read_table,
    table_bytes,
    table_digest,
)

ONE, TWO, THREE = "round-0001", "round-0002", "round-0003"


class EarlierAnnotated(Table, name="answered"):
    """The table as an older release declared it."""

    round_id = text("the round")
    reply = text("the reply", key=True)
    place = count("the copy")
    mood = text("how it felt")


class Annotated(Table, name="annotated", version=2, renamed_from=("answered",)):
    """The same table today: renamed, with columns renamed, added and dropped."""

    round_id = text("the round")
    annotation = Column(
        "string[pyarrow]", "the annotation", key=True, renamed_from=("response", "reply")
    )
    assignment = Column("int64", "the assignment", low=0, renamed_from=("place",))
    step = Column("string[pyarrow]", "the step", default="annotate")
    ignore = Column("bool", "whether it is left out", default=False)
    score = number("how good")


OLD = EarlierAnnotated.from_rows(
    [
        {"round_id": ONE, "reply": "a", "place": 1, "mood": "good"},
        {"round_id": ONE, "reply": "b", "place": 2, "mood": "bad"},
    ]
)
MAPPED = Annotated.from_rows(
    [
        {"round_id": ONE, "annotation": "a", "assignment": 1, "step": "annotate", "ignore": False},
        {"round_id": ONE, "annotation": "b", "assignment": 2, "step": "annotate", "ignore": False},
    ]
)
NEW = MAPPED.assign(round_id=pd.Series([TWO] * 2, dtype="string[pyarrow]"), score=0.5)


@pytest.fixture(params=["version 0", "version 1"])
def old(request):
    """The file of v0.1.0 carries no version; that of the release after it does."""
    return (
        parquet_bytes(OLD) if request.param == "version 0" else table_bytes(EarlierAnnotated, OLD)
    )


@pytest.fixture
def tables(tmp_path, old):
    store = LocalObjectStore(tmp_path)
    store.put(table_key("answered", ONE), old)
    tables = RoundTables(store)
    tables.write(Annotated, TWO, NEW)
    return tables


def test_a_file_names_its_table_and_version():
    metadata = pq.read_schema(io.BytesIO(table_bytes(Annotated, MAPPED))).metadata
    assert metadata[b"annotation_platform.table"] == b"annotated"
    assert metadata[b"annotation_platform.schema_version"] == b"2"
    assert TableFile(Annotated, table_bytes(Annotated, MAPPED)).version == 2
    assert TableFile(EarlierAnnotated, parquet_bytes(OLD)).version == 0
    # Files of published versions carry nothing of the kind.
    assert b"annotation_platform" not in parquet_bytes(MAPPED)


@pytest.mark.parametrize("was_checked", [False, True])
def test_an_older_file_is_read_under_todays_names(old, was_checked):
    read = read_table(Annotated, old, was_checked=was_checked)
    pd.testing.assert_frame_equal(read, MAPPED)
    assert table_digest(Annotated, read) == table_digest(Annotated, MAPPED)


def test_an_older_file_without_rows_is_the_empty_table():
    read = read_table(Annotated, parquet_bytes(EarlierAnnotated.empty()))
    pd.testing.assert_frame_equal(read, Annotated.empty())


def test_every_way_to_read_finds_a_round_in_the_old_folder(tables, old):
    assert tables.rounds(Annotated) == [ONE, TWO]
    assert [tables.exists(Annotated, key) for key in (ONE, TWO, THREE)] == [
        True,
        True,
        False,
    ]
    assert tables.digest(Annotated, ONE) == hashlib.sha256(old).hexdigest()
    pd.testing.assert_frame_equal(tables.read(Annotated, ONE), MAPPED)
    both = pd.concat([MAPPED, NEW], ignore_index=True)
    pd.testing.assert_frame_equal(tables.read_all(Annotated), both)
    pd.testing.assert_frame_equal(tables.read_rounds(Annotated, [ONE, THREE, TWO]), both)
    assert tables.values(Annotated, "annotation", [ONE]) == {"a", "b"}
    assert tables.values(Annotated, "step", [ONE, TWO]) == {"annotate"}
    for round_id, score in ((ONE, [None, None]), (TWO, [0.5, 0.5])):
        names = ["ignore", "annotation", "score", "assignment", "step"]
        some = tables.read_columns(Annotated, round_id, names)
        assert list(some) == names
        assert some["annotation"].tolist() == ["a", "b"]
        assert some["assignment"].tolist() == [1, 2]
        assert some["step"].tolist() == ["annotate"] * 2
        assert some["ignore"].tolist() == [False] * 2
        assert some["score"].astype(object).where(some["score"].notna(), None).tolist() == score


def test_the_digest_that_is_noted_is_that_of_the_file_under_its_own_name(tables, old):
    noted = {}
    tables.recording(noted).read_all(Annotated)
    assert noted == {
        f"answered/{ONE}": hashlib.sha256(old).hexdigest(),
        f"annotated/{TWO}": tables.digest(Annotated, TWO),
    }


def test_a_round_that_is_written_again_takes_the_place_of_the_old_one(tables):
    tables.write(Annotated, ONE, MAPPED.assign(score=1.0))
    assert tables.rounds(Annotated) == [ONE, TWO]
    assert tables.read(Annotated, ONE)["score"].tolist() == [1.0, 1.0]


def test_rows_are_found_by_a_column_that_was_renamed(old):
    file = TableFile(Annotated, old)
    found = file.frame(["assignment", "annotation"], only=("annotation", ["b", "z"]))
    assert found.to_dict("records") == [{"assignment": 2, "annotation": "b"}]
    assert file.frame(only=("annotation", ["a"]))["assignment"].tolist() == [1]


def test_a_file_that_lacks_a_column_without_default_is_refused_by_name():
    data = parquet_bytes(OLD.drop(columns="place"))
    for read in (read_table, lambda table, data: TableFile(table, data).arrow(["assignment"])):
        with pytest.raises(TableError, match=r"annotated.* column assignment is missing"):
            read(Annotated, data)


def test_a_file_of_this_version_with_other_columns_is_not_mapped():
    rows = pq.read_table(io.BytesIO(table_bytes(Annotated, MAPPED))).append_column(
        "mood", [["good", "bad"]]
    )
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    with pytest.raises(TableError, match="column mood is not declared"):
        read_table(Annotated, sink.getvalue())


def test_a_file_of_a_newer_release_is_refused_however_it_is_read(tmp_path):
    class Tomorrow(Table, name="annotated", version=3):
        """The table of a later release."""

        round_id = text("the round")
        annotation = text("the annotation", key=True)

    rows = [{"round_id": ONE, "annotation": "a"}]
    store = LocalObjectStore(tmp_path)
    tables = RoundTables(store)
    for round_id in (ONE, TWO):
        tables.write(Tomorrow, round_id, Tomorrow.from_rows(rows))
    message = r"annotated .*schema version 3, and this release reads up to 2\. Upgrade"
    for read in (
        lambda: tables.read(Annotated, ONE),
        lambda: tables.read_all(Annotated),
        lambda: tables.read_columns(Annotated, ONE, ["annotation"]),
        lambda: tables.values(Annotated, "annotation", [ONE]),
    ):
        with pytest.raises(TableError, match=message):
            read()


def test_sql_sees_older_files_under_todays_names(tables, tmp_path, monkeypatch):
    monkeypatch.setitem(TABLES, "annotated", Annotated)
    store = LocalObjectStore(tmp_path)
    with duckdb.connect(":memory:") as database:
        database.register("annotated", query._rows(store, "annotated", file_round="file"))
        found = database.sql(
            "SELECT file, annotation, assignment, step, score FROM annotated ORDER BY 1, 2"
        ).fetchall()
    assert found == [
        (ONE, "a", 1, "annotate", None),
        (ONE, "b", 2, "annotate", None),
        (TWO, "a", 1, "annotate", 0.5),
        (TWO, "b", 2, "annotate", 0.5),
    ]


def test_tables_of_v0_1_0_are_read_as_they_are(tmp_path):
    row = {"round_id": ONE, "key": "a" * 64, "split": "train"}
    store = LocalObjectStore(tmp_path)
    store.put(table_key("splits", ONE), parquet_bytes(Splits.from_rows([row])))
    tables = RoundTables(store)
    tables.write(Splits, TWO, Splits.from_rows([{**row, "key": "b" * 64}]))
    assert tables.read_all(Splits)["key"].tolist() == ["a" * 64, "b" * 64]


def earlier(table):
    """Return a table as v0.1.0 declared it: without later columns, under the first names."""
    columns = {
        first_name(table, name): Column(**{**vars(column), "name": "", "one_of": None})
        for name, column in table.columns.items()
        if column.default is None and name not in ADDED_WITHOUT_DEFAULT
    }
    return type("Earlier", (Table,), columns, name=table.table_name)


def first_name(table, name):
    return [name, *table.column(name).renamed_from][-1]


def in_first_words(table, row):
    """Return a row under the first names of its columns and of its values."""
    first_words = {
        name: {new: old for old, new in column.renamed_values.items()}
        for name, column in table.columns.items()
    }
    return {
        first_name(table, name): first_words[name].get(value, value)
        for name, value in row.items()
        if name in table.columns
    }


ADDED_WITHOUT_DEFAULT = {
    *("track_id", "object_group_id"),
    *("parent_id", "frame_index", "timestamp_seconds"),
}
LABEL = {
    "round_id": ONE, "image_id": "a" * 64, "label_id": "x", "shape": "box", "class_name": "ball",
    "x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0, "geometry": "",
}  # fmt: skip
TASK = {
    "round_id": ONE, "task_id": f"{ONE}/labels/{'a' * 64}", "image_id": "a" * 64,
    "purpose": "label",
}  # fmt: skip
ROWS = {
    HumanLabels: LABEL | TASK | {
        "assignment": 1, "annotation_id": "y", "revision": "b" * 64, "annotator": "z",
        "without_predictions": False, "weights_sha256": "", "changed": True,
        "guideline": "c" * 64, "refused_regions": 0, "problems": "",
    },
    ConsensusLabels: LABEL | TASK | {"support": 2, "annotations": 3, "disputed": False},
    AutoLabels: LABEL | {"recheck_sample": False, "weights_sha256": "b" * 64},
    ImportedLabels: LABEL | {"origin": "vendor", "problem": ""},
    ReviewedLabels: LABEL | TASK | {
        "support": 2, "annotations": 3, "decision": "accepted", "decided_by": "", "comment": "",
    },
    TrainingSet: LABEL | {
        "split": "train", "group_id": "b" * 64, "width": 9, "height": 9, "extension": "jpg",
        "stored_md5": "c" * 32, "stored_bytes": 9, "origin": "people", "support": 2,
        "annotations": 3, "other_metadata": "",
    },
    ModelPredictions: LABEL | {
        "prediction_id": "p", "weights_sha256": "b" * 64, "profile": "", "calibration": "",
    },
    HeldOutPredictions: LABEL | {
        "prediction_id": "p", "weights_sha256": "b" * 64, "profile": "", "calibration": "",
    },
    RawImages: {
        "round_id": ONE, "source_key": "a.jpg", "arrival_version": "s", "byte_size": 9,
        "problem": "", "other_metadata": "",
    },
    RoundTasks: TASK | {"assignments": 3, "counted": 3, "state": "annotated"},
}  # fmt: skip
"""A row of each table that gained columns, without these columns."""
USED = {
    "attributes": '{"occluded": true}', "ignore": True, "track_id": "track-1",
    "object_group_id": "group-1", "parent_id": "d" * 64, "frame_index": 7,
    "timestamp_seconds": 0.28, "step": "boxes",
}  # fmt: skip


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("table", ROWS)
def test_a_file_from_before_a_column_was_added_is_read_with_its_default(table, version, tmp_path):
    before = earlier(table)
    added = {name for name in table.columns if first_name(table, name) not in before.columns}
    assert added
    frame = before.from_rows([in_first_words(table, ROWS[table])])
    data = table_bytes(before, frame) if version else parquet_bytes(frame)
    assert TableFile(table, data).version == version
    read = read_table(table, data)
    pd.testing.assert_frame_equal(read, table.from_rows([ROWS[table]]))
    tables = RoundTables(LocalObjectStore(tmp_path))
    LocalObjectStore(tmp_path).put(table_key(table.table_name, ONE), data)
    tables.write(table, TWO, table.from_rows([ROWS[table] | {"round_id": TWO}]))
    both = tables.read_all(table)
    expected = {"attributes": "", "ignore": False, "step": "labels"}
    for name in added:
        values = both[name].tolist()
        assert values == [expected[name]] * 2 if name in expected else both[name].isna().all()


@pytest.mark.parametrize("table", ROWS)
def test_a_row_that_uses_the_added_columns_survives_a_file(table, tmp_path):
    used = {name: value for name, value in USED.items() if name in table.columns}
    tables = RoundTables(LocalObjectStore(tmp_path))
    written = table.from_rows([ROWS[table] | used])
    tables.write(table, ONE, written)
    read = tables.read(table, ONE)
    pd.testing.assert_frame_equal(read, written)
    assert {name: read[name].iloc[0] for name in used} == used


def test_tasks_of_one_image_in_two_steps_are_two_tasks():
    task = ROWS[RoundTasks]
    assert len(RoundTasks.from_rows([task, task | {"step": "boxes"}])) == 2
    with pytest.raises(TableError, match="repeats the key"):
        RoundTasks.from_rows([task, task])


def test_sql_sees_the_texts_of_older_files_under_todays_names(tmp_path, monkeypatch):
    """The names of the columns did not change, so the version alone tells the files apart."""

    class Before(Table, name="moods"):
        """The table as it was."""

        key = text("the key", key=True)
        mood = text("the mood")

    class Moods(Table, name="moods", version=2):
        """The table today."""

        key = text("the key", key=True)
        mood = text("the mood", one_of=["good"]).formerly(fine="good")

    monkeypatch.setitem(TABLES, "moods", Moods)
    store = LocalObjectStore(tmp_path)
    row = {"key": "a", "mood": "fine"}
    store.put(table_key("moods", ONE), parquet_bytes(Before.from_rows([row])))
    RoundTables(store).write(Before, TWO, Before.from_rows([row]))
    RoundTables(store).write(Moods, THREE, Moods.from_rows([row | {"mood": "good"}]))
    with duckdb.connect(":memory:") as database:
        database.register("moods", query._rows(store, "moods"))
        assert database.sql("SELECT mood FROM moods").fetchall() == [("good",)] * 3
    assert RoundTables(store).read_all(Moods)["mood"].tolist() == ["good"] * 3
