"""The consensus command reads any valid CSV, names the problems of others, and loses nothing."""

import csv
import json

import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from annotation_platform.cli.consensus import consensus
from annotation_platform.errors import AnnotationPlatformError, FormatError

APP = typer.Typer()
APP.command()(consensus)

ANNOTATIONS = "task,worker,label\np,ann,cat\np,ben,cat\np,cem,dog\nq,ann,dog\nq,ben,cat\n"


@pytest.fixture
def file(tmp_path):
    def write(content, name="answers.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def run(*arguments):
    return CliRunner().invoke(APP, [str(each) for each in arguments])


def annotated(*arguments):
    """Return the JSON object of the last line of --json."""
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout.splitlines()[-1])


def complaint(*arguments):
    """Return the message of the error that the command line prints, with exit code 2."""
    error = run(*arguments).exception
    assert isinstance(error, AnnotationPlatformError), error
    return str(error)


def test_the_json_has_everything(file):
    found = annotated(file(ANNOTATIONS), "--ask", "1")
    assert (found["method"], found["tasks"], found["annotations"]) == ("majority", 2, 5)
    assert found["tied"] == ["q"]
    assert found["ask"] == ["q"]
    by_task = {row["task"]: row for row in found["labels"]}
    assert list(by_task["p"]) == ["task", "label", "posterior", "annotations", "agreed", "method"]
    assert (by_task["p"]["label"], by_task["p"]["annotations"], by_task["p"]["agreed"]) == (
        "cat",
        3,
        2,
    )
    assert (by_task["q"]["label"], by_task["q"]["method"]) == (None, "tied")
    assert [row["worker"] for row in found["workers"]] == ["ann", "ben", "cem"]
    assert {row["model"] for row in found["evidence"]} == {"dawid-skene", "one-coin"}
    assert found["warnings"] == found["superseded"] == found["superseded_gold"] == []


def test_labels_are_written_as_they_were_read(file, tmp_path):
    out = tmp_path / "labels.csv"
    path = file('task,worker,label\n007,a,01\n007,b,01\n"Zoë, 猫",a,"a ""b"""\nNA,a,null\n')
    done = run(path, "--out", out)
    assert done.exit_code == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert list(rows[0]) == ["task", "label", "posterior", "annotations", "agreed", "method"]
    found = {row["task"]: row["label"] for row in rows}
    assert found == {"007": "01", "Zoë, 猫": 'a "b"', "NA": "null"}
    assert rows[0]["posterior"].startswith("0.9")


def test_gold_labels_are_final_and_counted(file):
    gold = file("task,label\nq,dog\np,cat\n", "gold.csv")
    found = annotated(file(ANNOTATIONS), "--gold", gold, "--ask", "5")
    assert found["ask"] == []
    assert {row["label"] for row in found["labels"] if row["method"] == "expert"} == {"cat", "dog"}


def test_the_output_has_the_method_its_reason_the_workers_and_the_tasks_to_ask(file):
    shown = run(file(ANNOTATIONS), "--ask", "2").stdout
    assert "Majority decides." in shown
    assert "dawid-skene" in shown
    assert "Ask an expert about these 2 tasks" in shown
    assert "2 tasks, 5 annotations by 3 workers, 1 tied" in shown
    assert all(name in shown for name in ("ann", "ben", "cem"))


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"\xef\xbb\xbf" + ANNOTATIONS.encode(), id="byte order mark"),
        pytest.param(ANNOTATIONS.replace("\n", "\r\n"), id="Windows line ends"),
        pytest.param(ANNOTATIONS.replace(",", ";"), id="semicolons"),
        pytest.param(ANNOTATIONS.replace(",", "\t"), id="tabs"),
        pytest.param(ANNOTATIONS.replace("\n", "\n\n  \n"), id="blank lines"),
        pytest.param(
            ANNOTATIONS.replace("task,worker,label", " Task , WORKER ,label"), id="header"
        ),
        pytest.param(ANNOTATIONS.rstrip("\n"), id="no last line end"),
        pytest.param(
            "seconds,label,worker,task\n"
            + "".join(
                f'"1,5",{label},{worker},{task}\n'
                for task, worker, label in (row.split(",") for row in ANNOTATIONS.split()[1:])
            ),
            id="other columns and another order",
        ),
    ],
)
def test_the_same_annotations_however_they_are_written(file, content):
    found = annotated(file(content))
    assert {row["task"]: row["label"] for row in found["labels"]} == {"p": "cat", "q": None}


@pytest.mark.parametrize(
    ("content", "place", "problem"),
    [
        pytest.param("task,who,label\np,a,x\n", ":1", "no column worker", id="missing column"),
        pytest.param("task,worker,label,label\np,a,x,y\n", ":1", "named label", id="column twice"),
        pytest.param("", ":1", "empty", id="empty file"),
        pytest.param("task,worker,label\n\n", "", "no rows", id="a header alone"),
        pytest.param("task,worker,label\np,a,x\n\nq,a, \n", ":4", "no label", id="empty label"),
        pytest.param("task,worker,label\n,a,x\n", ":2", "no task", id="empty task"),
        pytest.param("task,worker,label\np,a\n", ":2", "2 cells", id="a cell too few"),
        pytest.param("task,worker,label\np,a,x\nq,a,b,c\n", ":3", "4 cells", id="one too many"),
        pytest.param('task,worker,label\np,a,"x\ny"\nq,a\n', ":4", "2 cells", id="after a break"),
        pytest.param('task,worker,label\np,a,x\nq,a,"y\n', ":3", "quotes", id="open quote"),
        pytest.param(b"task,worker,label\np,a,caf\xe9\n", ":2", "UTF-8", id="another encoding"),
        pytest.param("task,worker,label\np,a,x\0\n", ":2", "NUL", id="a NUL"),
    ],
)
def test_a_bad_file_is_named_with_the_line(file, content, place, problem):
    path = file(content)
    message = complaint(path)
    assert message.startswith(f"{path}{place}: ")
    assert problem in message


def test_a_bad_gold_file_is_named_with_the_line(file):
    gold = file("task,label\np,\n", "gold.csv")
    assert complaint(file(ANNOTATIONS), "--gold", gold).startswith(f"{gold}:2: no label")


def test_files_that_cannot_be_read_or_written(file, tmp_path):
    assert str(tmp_path / "nowhere.csv") in complaint(tmp_path / "nowhere.csv")
    out = tmp_path / "no such folder" / "labels.csv"
    message = complaint(file(ANNOTATIONS), "--out", out)
    assert str(out) in message
    assert "--out" in message


def test_the_latest_of_repeated_annotations_counts_and_the_others_are_listed(file):
    found = annotated(file(ANNOTATIONS + "p,ann,dog\np,ben,dog\n"))
    assert found["annotations"] == 5
    assert [(row["line"], row["worker"], row["label"]) for row in found["superseded"]] == [
        (2, "ann", "cat"),
        (3, "ben", "cat"),
    ]
    assert next(row["label"] for row in found["labels"] if row["task"] == "p") == "dog"
    assert "line 2, 3" in run(file(ANNOTATIONS + "p,ann,dog\np,ben,dog\n")).stdout


def test_classes_that_differ_in_case_or_spaces_are_reported_and_kept_separate(file):
    found = annotated(file("task,worker,label\np,a,Cat\nq,a,cat \nr,a,dog\n"))
    assert len(found["warnings"]) == 1
    assert "'Cat', 'cat '" in found["warnings"][0]
    assert {row["label"] for row in found["labels"]} == {"Cat", "cat ", "dog"}


def test_gold_that_fits_no_annotation_is_reported(file):
    gold = file("task,label\nelsewhere,cat\np,Cat\np,Dog\n", "gold.csv")
    found = annotated(file(ANNOTATIONS), "--gold", gold)
    warnings = " ".join(found["warnings"])
    assert "'elsewhere'" in warnings
    assert "'Dog'" in warnings
    assert "'Dog', 'dog'" in warnings
    assert [row["line"] for row in found["superseded_gold"]] == [3]


def test_control_characters_in_names_are_escaped(file):
    done = run(file("task,worker,label\n\x1b[31mp,[bold]a,x\nq,a,y\n"), "--ask", "2")
    assert done.exit_code == 0
    assert "\x1b[31m" not in done.stdout
    assert "[bold]a" in done.stdout


def test_a_public_set_with_repeated_annotations(public, tmp_path):
    folder = public("crowd") / "canonical"
    out = tmp_path / "labels.csv"
    found = annotated(folder / "ZenCrowd_in.labels.csv", "--out", out, "--ask", "20")
    # 11,205 lines of annotations; 710 of them repeat a worker on a task.
    assert (found["annotations"], len(found["superseded"])) == (10_495, 710)
    assert len(found["ask"]) == 20
    truth = pd.read_csv(folder / "ZenCrowd_in.truth.csv", dtype=str)
    gold = tmp_path / "gold.csv"
    truth[truth["task"].isin(found["ask"])].to_csv(gold, index=False)
    moved = annotated(folder / "ZenCrowd_in.labels.csv", "--gold", gold, "--ask", "20")
    assert not set(moved["ask"]) & set(found["ask"])
    assert sum(row["method"] == "expert" for row in moved["labels"]) == 20


def test_an_error_ends_with_exit_code_2(tmp_path):
    assert isinstance(run(tmp_path / "nowhere.csv").exception, FormatError)
