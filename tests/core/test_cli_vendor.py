"""The commands ``vendor export`` and ``vendor import``, as a vendor's manager uses them."""

import json
import zipfile

import pytest
from typer.testing import CliRunner

from annotation_platform.cli.vendor import app
from annotation_platform.errors import DataError, NotReadyError, SettingsError
from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
from annotation_platform.storage.objects import LocalObjectStore
from tests.core.labeling.outside import (
    ONTOLOGY,
    ROUND,
    as_flat_csv,
    fill_in,
    in_pybossa,
    make_copies,
    put_images,
    what_people_say,
)


@pytest.fixture
def labeling(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    store = LocalObjectStore(tmp_path / "home" / "lake")
    put_images(store, 4)
    labeling = VendorLabeling(store)
    labeling.publish(ROUND, ONTOLOGY, make_copies(4, 2))
    return labeling


def run(*arguments):
    return CliRunner().invoke(app, [str(each) for each in arguments])


def facts(done):
    return json.loads(done.stdout.splitlines()[-1])


def test_a_round_goes_out_and_comes_back(labeling, tmp_path):
    out = tmp_path / "out.zip"
    done = run("export", ROUND, "--out", out, "--vendor", "acme", "--json")
    assert (done.exit_code, facts(done)["assignments"], facts(done)["images"]) == (0, 8, 4)
    with zipfile.ZipFile(out) as archive:
        template = json.loads(archive.read("answers.json"))
    back = tmp_path / "back.json"
    back.write_text(json.dumps(fill_in(template, what_people_say(make_copies(3, 2)))))
    done = run("import", back)
    assert done.exit_code == 0
    assert "6 annotations stored" in done.stdout
    assert "2 assignments have no annotation yet" in done.stdout
    assert facts(run("import", back, "--json"))["known"] == 6
    assert len(labeling.collect(ROUND)) == 6


def test_problems_are_listed_and_stop_the_import_without_skip_invalid(labeling, tmp_path):
    run("export", ROUND, "--out", tmp_path / "out")
    template = json.loads((tmp_path / "out" / "answers.json").read_text())
    content = fill_in(template, what_people_say(make_copies(4, 2)))
    content["answers"] *= 4
    back = tmp_path / "back.json"
    back.write_text(json.dumps(content))
    done = run("import", back, "--json")
    # Eight annotations, each given four times: all but the first of them are wrong.
    assert (facts(done)["invalid"], len(facts(done)["problems"])) == (24, 20)
    assert isinstance(done.exception, DataError)
    assert "24 problems" in str(done.exception)
    assert labeling.collect(ROUND) == []
    done = run("import", back, "--skip-invalid")
    assert done.exit_code == 1
    assert "answers[8]" in done.stdout
    assert len(labeling.collect(ROUND)) == 8


def test_pybossa_there_and_back(labeling, tmp_path):
    out = tmp_path / "out"
    url = "https://pictures.example.org/"
    run("export", ROUND, "--out", out, "--format", "pybossa", "--images-url", url)
    tasks = json.loads((out / "tasks.json").read_text())
    assert tasks[0]["info"]["image_url"] == f"{url}{tasks[0]['info']['image']}"
    rows, runs = in_pybossa(tasks, what_people_say(make_copies(4, 2)))
    for kind, content in (("task", rows), ("task_run", runs)):
        (tmp_path / f"{kind}.csv").write_bytes(as_flat_csv(content, kind))
    there = ["--tasks", tmp_path / "task.csv", "--task-runs", tmp_path / "task_run.csv"]
    assert facts(run("import", "--from", "pybossa", *there, "--json"))["stored"] == 8


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        pytest.param("import", SettingsError, "Name the one", id="nothing to import"),
        pytest.param("import --from pybossa", SettingsError, "--task-runs", id="no runs"),
        pytest.param("import nowhere.zip", DataError, "nowhere.zip", id="no file"),
        pytest.param("export round-0009 --out x", NotReadyError, "label_tasks", id="no tasks"),
        pytest.param("export ../evil --out x", SettingsError, "not a round", id="no round"),
    ],
)
def test_an_impossible_request_is_an_error(labeling, arguments, error, problem):
    done = run(*arguments.split())
    assert isinstance(done.exception, error)
    assert problem in str(done.exception)
