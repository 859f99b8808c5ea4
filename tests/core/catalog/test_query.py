"""A query reads every table of the lake, and nothing else."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import pandas as pd
import pytest

import annotation_platform
from annotation_platform.catalog.query import VIEWS, run_query, to_result
from annotation_platform.errors import QueryError, SettingsError
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.schema.tables import TABLES, ImageEmbeddings, table_named
from annotation_platform.schema.tables.table import ARROW_TYPES
from tests.commands import run_command

FIRST, SECOND = "round-0001", "round-0002"


def digest(number):
    return f"{number:064x}"


def row_of(table, **known):
    """Return a row of a table: values not given are missing, 0 or empty, as the column allows."""
    row = {}
    for name, column in TABLES[table].columns.items():
        blank = {"int64": 0, "bool": False, "string[pyarrow]": ""}.get(str(column.dtype))
        row[name] = None if column.nullable else blank
    return row | known


def cleaned(round_id, number, outcome="accepted", **known):
    return row_of(
        "cleaned_images",
        **{
            "round_id": round_id,
            "source_key": f"{number}.jpg",
            "arrival_version": "1-1",
            "image_id": digest(number),
            "outcome": outcome,
            "width": 100,
            "height": 80,
            "extension": "jpg",
            "sharpness": float(number),
            **known,
        },
    )


def reviewed(round_id, number, name="cat"):
    return row_of(
        "reviewed_labels",
        round_id=round_id,
        task_id=f"{round_id}/{number}",
        image_id=digest(number),
        label_id=f"{number}:0",
        shape="box" if name else "none",
        class_name=name,
        x1=1.5 if name else None,
        decision="undisputed",
    )


def trained(round_id, number, class_id=0):
    return row_of(
        "training_set",
        round_id=round_id,
        image_id=digest(number),
        split="train",
        group_id=digest(number),
        stored_md5=f"{number:032x}",
        label_id=f"{number}:0",
        shape="none" if class_id is None else "box",
        class_id=class_id,
    )


def version(round_id, number, *, new=True):
    return row_of(
        "dataset_version",
        round_id=round_id,
        version=number,
        tag=f"training-set@v{number}",
        folder_md5=f"{1:032x}.dir",
        new_version=new,
    )


def write(lake, name, round_id, *rows):
    lake.tables.write(table_named(name), round_id, table_named(name).from_rows(list(rows)))


@pytest.fixture
def home(tmp_path):
    lake = open_lake(tmp_path / "lake", tmp_path / "landing")
    write(
        lake,
        "cleaned_images",
        FIRST,
        cleaned(FIRST, 1),
        cleaned(FIRST, 2, source_key="[red]é\x1b[2J.jpg"),
        cleaned(FIRST, 3, "quarantined", reason="truncated", image_id=None, sharpness=None),
    )
    write(lake, "cleaned_images", SECOND, cleaned(SECOND, 4), cleaned(SECOND, 5, "duplicate"))
    write(lake, "reviewed_labels", FIRST, reviewed(FIRST, 1), reviewed(FIRST, 2, None))
    write(lake, "reviewed_labels", SECOND, reviewed(SECOND, 4, "dog"))
    write(lake, "training_set", FIRST, trained(FIRST, 1), trained(FIRST, 2, None))
    write(
        lake,
        "training_set",
        SECOND,
        trained(FIRST, 1),
        trained(FIRST, 2, None),
        trained(SECOND, 4, 1),
    )
    write(lake, "dataset_version", FIRST, version(FIRST, "1.0.0"))
    write(lake, "dataset_version", SECOND, version(SECOND, "1.1.0"))
    return tmp_path


@pytest.fixture
def lake(home):
    return open_lake(home / "lake", home / "landing")


def ask(lake, sql):
    return to_result(run_query(lake, sql)).rows


def test_every_table_is_there_with_its_declared_columns_before_any_round(tmp_path):
    empty = open_lake(tmp_path / "lake", tmp_path / "landing")
    for name, schema in TABLES.items():
        result = to_result(run_query(empty, f"SELECT * FROM {name}"))
        assert (result.columns, result.rows) == (list(schema.columns), [])
    for name in VIEWS:
        assert ask(empty, f"SELECT count(*) FROM {name}") == [[0]]
    assert not (tmp_path / "lake").exists()


def test_every_declared_type_is_known():
    declared = {str(col.dtype) for schema in TABLES.values() for col in schema.columns.values()}
    assert declared <= set(ARROW_TYPES)


@pytest.mark.parametrize("name", TABLES)
def test_a_round_without_rows_reads_like_any_other(lake, name):
    lake.tables.write(table_named(name), "round-0003", table_named(name).empty())
    before = len(lake.tables.read_all(table_named(name)))
    assert ask(lake, f"SELECT count(*) FROM (SELECT * FROM {name})") == [[before]]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        pytest.param(
            "SELECT source_key FROM images WHERE sharpness < 4.5 AND sharpness <> 2 ORDER BY 1",
            [["1.jpg"], ["4.jpg"]],
            id="accepted images by a measure",
        ),
        pytest.param("SELECT reason FROM quarantine", [["truncated"]], id="quarantine"),
        pytest.param(
            "SELECT class_name, x1, width FROM labels ORDER BY label_id",
            [["cat", 1.5, 100], [None, None, 100], ["dog", 1.5, 100]],
            id="labels with their image",
        ),
        pytest.param(
            "SELECT version, count(*), sum(class_id) FROM version_labels GROUP BY 1 ORDER BY 1",
            [["1.0.0", 2, 0], ["1.1.0", 3, 1]],
            id="labels of a version, those of earlier rounds included",
        ),
        pytest.param(
            "SELECT training_round, count(*) FROM training_sets GROUP BY 1 ORDER BY 1",
            [[FIRST, 2], [SECOND, 3]],
            id="training sets by the round that learned from them",
        ),
    ],
)
def test_the_views(lake, sql, expected):
    assert ask(lake, sql) == expected


def test_a_version_that_a_later_round_confirms_is_listed_once(lake):
    write(lake, "dataset_version", "round-0003", version("round-0003", "1.1.0", new=False))
    assert ask(lake, "SELECT version, round_id FROM versions ORDER BY 1") == [
        ["1.0.0", FIRST],
        ["1.1.0", SECOND],
    ]


def test_predictions_name_the_version_that_their_model_trained_on(lake):
    weights = digest(77)
    proposal = {
        "round_id": SECOND,
        "image_id": digest(4),
        "prediction_id": "4:0",
        "shape": "box",
        "weights_sha256": weights,
        "score": 0.75,
    }
    write(lake, "model_predictions", SECOND, row_of("model_predictions", **proposal))
    for round_id in (FIRST, SECOND):
        model = {"dataset_tag": "training-set@v1.0.0", "weights_sha256": weights}
        write(
            lake,
            "trained_model",
            round_id,
            row_of("trained_model", round_id=round_id, **model),
        )
    sql = "SELECT dataset_tag, source_key, score FROM predictions WHERE score > 0.5"
    assert ask(lake, sql) == [["training-set@v1.0.0", "4.jpg", 0.75]]


def test_vectors_come_back_as_they_were_written(lake):
    frame = pd.DataFrame(
        {
            "round_id": [FIRST],
            "image_id": [digest(1)],
            "embedder": ["e-1"],
            "vector": [[0.5, -0.25]],
        }
    ).astype(dict.fromkeys(("round_id", "image_id", "embedder"), "str"))
    lake.tables.write(ImageEmbeddings, FIRST, frame)
    assert ask(lake, "SELECT vector FROM image_embeddings") == [[[0.5, -0.25]]]


def test_plain_values(lake):
    moment = "TIMESTAMPTZ '2026-03-01 12:00:00+02:00'"
    sql = f"SELECT {moment}, 'nan'::DOUBLE, 'inf'::DOUBLE, [1.5, 'nan'::DOUBLE], 0.5, "
    sql += f"sum(2::BIGINT), {moment} - TIMESTAMPTZ '2026-03-01 09:59:00+00:00', "
    sql += "NULL, TRUE, DATE '2026-03-01'"
    expected = ["2026-03-01T10:00:00+00:00", None, None, [1.5, None], 0.5, 2]
    expected += ["P0M0DT60.0S", None, True, "2026-03-01"]
    assert ask(lake, sql) == [expected]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM read_text('{home}/secret.txt')",
        "SELECT * FROM read_blob('{home}/secret.txt')",
        "SELECT * FROM '{home}/secret.csv'",
        "SELECT * FROM glob('{home}/*')",
        "SELECT * FROM read_parquet('{home}/lake/tables/cleaned_images/round-0001.parquet')",
        "SELECT * FROM 'https://example.org/x.parquet'",
        "SELECT getenv('HOME')",
        "SELECT * FROM arrow_scan(1, 2, 3)",
        "SELECT * FROM SECRET",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{home}/out.csv'",
        "COPY (SELECT 1) TO '{home}/out.csv'",
        "COPY images TO '{home}/lake/tables/cleaned_images/round-0001.parquet'",
        "EXPORT DATABASE '{home}/out'",
        "ATTACH '{home}/out.db'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_external_access",
        "CREATE TABLE t AS SELECT 1",
        "DROP VIEW images",
        "CALL pragma_version()",
        "SELECT 1; COPY (SELECT 1) TO '{home}/out.csv'",
        "",
        "-- nothing",
    ],
)
def test_a_query_reaches_nothing_but_the_tables(lake, home, sql):
    (home / "secret.txt").write_text("secret")
    (home / "secret.csv").write_text("a\nsecret\n")
    # A table of this program must not be found by its name either.
    SECRET = pd.DataFrame({"a": [1]})  # noqa: N806, F841
    before = files(home)
    with pytest.raises(QueryError) as refused:
        run_query(lake, sql.format(home=home))
    assert "\n" not in str(refused.value)
    assert files(home) == before


def files(folder):
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_error_has_the_message_of_duckdb(lake):
    with pytest.raises(QueryError, match=r'name imagess does not exist! Did you mean "images"'):
        run_query(lake, "SELECT *\nFROM imagess")


@pytest.mark.parametrize(
    "sql", ["SHOW TABLES", "DESCRIBE labels", "SUMMARIZE images", "EXPLAIN FROM labels"]
)
def test_the_catalog_describes_itself(lake, sql):
    assert ask(lake, sql)


def test_a_frame_keeps_text_times_and_what_is_missing(lake, home):
    human_label = row_of(
        "human_labels",
        round_id=FIRST,
        image_id=digest(1),
        assignment=1,
        revision=digest(1),
        label_id="a:0",
        shape="none",
        purpose="label",
        guideline=digest(1),
        submitted_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    )
    write(lake, "human_labels", FIRST, human_label)
    frame = annotation_platform.query(
        "SELECT t.class_id, t.class_name, t.class_id > 0 AS later, t.x1, h.submitted_at, t.label_id"
        " FROM version_labels t LEFT JOIN human_labels h USING (image_id)"
        " WHERE version = '1.1.0' ORDER BY t.label_id",
        home=home,
    )
    assert [str(kind) for kind in frame.dtypes] == [
        "Int64",
        "str",
        "boolean",
        "float64",
        "datetime64[us, UTC]",
        "str",
    ]
    assert frame["class_id"].tolist() == [0, pd.NA, 1]
    assert frame["class_name"].isna().all()
    assert frame["submitted_at"].isna().tolist() == [False, True, True]


def test_two_columns_of_one_name_are_both_kept(home):
    frame = annotation_platform.query("SELECT 1::INT AS a, NULL::INT AS a", home=home)
    assert frame.iloc[0].tolist() == [1, pd.NA]


def test_the_home_is_that_of_the_environment_unless_given(home, tmp_path, monkeypatch):
    sql = "SELECT count(*) FROM images"
    monkeypatch.setenv("ANNOTATION_HOME", str(home))
    assert annotation_platform.query(sql).iloc[0, 0] == 3
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "nowhere"))
    monkeypatch.setenv("ANNOTATION_LAKE", str(tmp_path / "nowhere"))
    assert annotation_platform.query(sql, home=str(home)).iloc[0, 0] == 3
    with pytest.raises(SettingsError, match="nowhere"):
        annotation_platform.query(sql)


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, annotation_platform; print({'pandas', 'duckdb', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def run(home, *arguments):
    return run_command(*arguments, environment={"ANNOTATION_HOME": str(home)})


def test_the_command_prints_json(home):
    done = run(
        home, "catalog", "query", "SELECT source_key, duplicate_of FROM images ORDER BY 1", "--json"
    )
    rows = [["1.jpg", None], ["4.jpg", None], ["[red]é\x1b[2J.jpg", None]]
    assert json.loads(done.stdout) == {"columns": ["source_key", "duplicate_of"], "rows": rows}
    assert done.stderr == ""


def test_the_command_shows_people_fifty_rows_that_cannot_steer_the_terminal(home):
    shown = run(home, "catalog", "query", "SELECT source_key, duplicate_of FROM images").stdout
    assert "[red]é" in shown
    assert "\x1b" not in shown
    assert "null" in shown
    # Nothing is cut where there is no terminal to fit.
    assert digest(1) in run(home, "catalog", "query", "SELECT * FROM images").stdout
    lines = run(
        home, "catalog", "query", "SELECT 'row' || range FROM range(62)"
    ).stdout.splitlines()
    assert sum("row" in line for line in lines) == 51  # 50 rows under the column's name
    assert lines[-1] == "... and 12 more; --json prints all"


@pytest.mark.parametrize("sql", ["SELECT nothing FROM images", "COPY images TO 'x.csv'"])
def test_the_command_reports_an_error_in_one_line(home, sql):
    done = run(home, "catalog", "query", sql)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")


def test_a_long_query_ends_with_ctrl_c(tmp_path):
    (tmp_path / "lake").mkdir()
    endless = "SELECT sum(range) FROM range(1000000000000000)"
    with subprocess.Popen(
        [sys.executable, "-m", "annotation_platform.cli", "catalog", "query", endless],
        env={**os.environ, "ANNOTATION_HOME": str(tmp_path)},
        stderr=subprocess.PIPE,
    ) as asked:
        try:
            # It cannot end by itself, so it is under way once its imports are done.
            with pytest.raises(subprocess.TimeoutExpired):
                asked.wait(timeout=8)
            asked.send_signal(signal.SIGINT)
            assert asked.wait(timeout=30) == 130
        finally:
            asked.kill()
