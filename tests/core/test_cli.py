"""Every error of the user is one line with problem, location and remedy; exit code 2."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import asdict

import pytest

from annotation_platform.cli.version.listing import _error_interval
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.demo.scenes import draw_batch
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.policy import read_policy
from annotation_platform.schema.rounds import Arrival
from annotation_platform.versioning.manifest import LabelError
from tests.commands import run_command


def complaint(done):
    """Return the single line of an error that the user can correct."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.fixture
def demo(tmp_path):
    def start(*arguments, **options):
        home = tmp_path / "home"
        return run_command("demo", "--labeling", "simulated", "--home", home, *arguments, **options)

    return start


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, data in draw_batch(1, 2, seed=0).files.items():
        (folder / name).write_bytes(data)
    return folder


def test_a_folder_without_images(demo, tmp_path):
    (tmp_path / "empty").mkdir()
    message = complaint(demo("--images", tmp_path / "empty", "--truth", tmp_path / "empty"))
    assert str(tmp_path / "empty") in message
    assert not (tmp_path / "home").exists()


def test_a_missing_folder(demo, tmp_path):
    message = complaint(demo("--images", tmp_path / "nowhere", "--truth", tmp_path))
    assert "nowhere" in message
    assert "--images" in message


def test_a_truth_that_names_no_image(demo, images, tmp_path):
    truth = tmp_path / "truth.json"
    image = {"id": 1, "file_name": "other.jpg", "width": 10, "height": 10}
    content = {"images": [image], "annotations": [], "categories": [{"id": 0, "name": "boat"}]}
    truth.write_text(json.dumps(content))
    message = complaint(demo("--images", images, "--truth", truth))
    assert "names no image" in message
    assert "other.jpg" in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        pytest.param(["--k", "5"], "--annotators", id="more annotations than annotators"),
        pytest.param(["--images", "."], "--truth", id="images without a truth"),
        pytest.param(["--labeling", "chalk"], "label-studio", id="unknown back end"),
        pytest.param(["--batches", "none"], "--batches", id="not a number"),
    ],
)
def test_inconsistent_options(demo, arguments, part):
    assert part in complaint(demo(*arguments))


def test_a_home_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    home = tmp_path / "file" / "home"
    message = complaint(run_command("demo", "--labeling", "simulated", "--home", home))
    assert str(home) in message
    assert "--home" in message


def test_no_git(demo, tmp_path):
    (tmp_path / "bin").mkdir()
    message = complaint(demo("--batch-images", "1", environment={"PATH": str(tmp_path / "bin")}))
    assert "git" in message
    # No partial result stops the next attempt.
    assert "git" in complaint(
        demo("--batch-images", "1", environment={"PATH": str(tmp_path / "bin")})
    )


def up_environment(tmp_path, **more):
    return {
        "ANNOTATION_HOME": str(tmp_path / "home"),
        "ANNOTATION_LABEL_STUDIO_TOKEN": "none",
        **more,
    }


def test_up_names_a_registry_that_git_cannot_commit_to(tmp_path):
    registry = tmp_path / "registry"
    subprocess.run(["git", "init", "--quiet", registry], check=True)
    anonymous = {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "ANNOTATION_REGISTRY": str(registry),
    }
    message = complaint(run_command("up", environment=up_environment(tmp_path, **anonymous)))
    assert "user.email" in message


def test_up_names_a_registry_that_is_no_git_repository(tmp_path):
    (tmp_path / "registry").mkdir()
    elsewhere = {"ANNOTATION_REGISTRY": str(tmp_path / "registry")}
    message = complaint(run_command("up", environment=up_environment(tmp_path, **elsewhere)))
    assert str(tmp_path / "registry") in message


@pytest.fixture
def registry(tmp_path):
    folder = tmp_path / "registry"
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    for name, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        subprocess.run(["git", "-C", folder, "config", name, value], check=True)
    return {"ANNOTATION_REGISTRY": str(folder)}


def test_up_names_a_taken_port(tmp_path, registry):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_command("up", "--port", port, environment=up_environment(tmp_path, **registry))
    message = complaint(done)
    assert str(port) in message
    assert "--port" in message


def test_up_names_the_field_of_a_wrong_policy(tmp_path):
    policy = tmp_path / "params.yaml"
    policy.write_text("ontology: {classes: [{id: 0, name: cat}]}\nsplits: {train: 0.9}\n")
    wrong = {"ANNOTATION_PARAMS": str(policy)}
    message = complaint(run_command("up", environment=up_environment(tmp_path, **wrong)))
    assert "splits" in message
    assert str(policy) in message


def test_label_studio_that_is_not_installed(tmp_path, registry):
    hidden = (
        "import sys; sys.modules['label_studio'] = None\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'label_studio' else find(name, *a)\n"
        "from annotation_platform import cli; sys.argv = ['annotation-platform', 'up']; cli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden],
        capture_output=True,
        text=True,
        env={**os.environ, "ANNOTATION_HOME": str(tmp_path / "home"), **registry},
        timeout=120,
        check=False,
    )
    assert "pip install label-studio" in complaint(done)


def test_people_without_a_server_asks_to_start_one(tmp_path):
    done = run_command("people", "list", environment={"ANNOTATION_HOME": str(tmp_path)})
    assert "annotation-platform up" in complaint(done)


def test_init_makes_a_home_once_and_changes_nothing_in_it_afterwards(tmp_path):
    home = tmp_path / "deep" / "home"

    def state():
        return {path: (path.stat().st_mtime_ns, path.is_file()) for path in home.rglob("*")}

    def created():
        done = run_command("init", "--json", environment={"ANNOTATION_HOME": str(home)})
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["created"]

    own = home / "params.yaml"
    assert created() == [str(home), str(home / "landing"), str(home / "lake" / "images"), str(own)]
    own.write_text(
        own.read_text().replace("test: 0.2", "test: 0.1").replace("val: 0.1", "val: 0.2")
    )
    before = state()
    assert created() == []
    assert state() == before
    assert read_policy(own).splits.val == 0.2
    # A policy elsewhere is used there and not copied.
    elsewhere, home = tmp_path / "policy.yaml", tmp_path / "second"
    own.rename(elsewhere)
    named = {"ANNOTATION_HOME": str(home), "ANNOTATION_PARAMS": str(elsewhere)}
    done = run_command("init", environment=named)
    assert done.returncode == 0, done.stderr
    assert str(elsewhere) in done.stdout
    assert not (home / "params.yaml").exists()


def test_ingest_and_status_print_json(tmp_path, images):
    home = {"ANNOTATION_HOME": str(tmp_path / "home")}
    done = run_command("ingest", images, "--json", environment=home)
    assert json.loads(done.stdout)["copied"] == len(list(images.iterdir()))
    assert json.loads(run_command("status", "--json", environment=home).stdout) == {"rounds": []}
    assert "nowhere" in complaint(run_command("ingest", tmp_path / "nowhere", environment=home))


def test_status_watches_until_ctrl_c_and_prints_each_change_once(tmp_path):
    home = {"ANNOTATION_HOME": str(tmp_path / "home")}
    process = subprocess.Popen(
        [sys.executable, "-m", "annotation_platform.cli", "status", "--watch", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **home},
    )
    assert json.loads(process.stdout.readline()) == {"rounds": []}
    lake = open_lake(tmp_path / "home" / "lake", tmp_path / "home" / "landing")
    lake.manifests.create("round-0001", [Arrival("a.jpg", "1", 9)])
    (row,) = json.loads(process.stdout.readline())["rounds"]
    assert (row["round"], row["landed"], row["waits_for"]) == ("round-0001", 1, "cleaning")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=30)
    assert (rest, process.returncode) == ("", 130)


def test_help_loads_no_heavy_module_and_groups_the_nouns():
    code = (
        "import sys; from annotation_platform.cli import main; sys.argv = ['x', '--help']\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'dagster', 'dvc', 'ray', 'pandas', 'numpy'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Datasets and versions" in done.stdout
    assert "Models and policy" in done.stdout


def test_the_interval_of_a_version_is_that_of_the_labels_of_people():
    """It is read from the manifest, whose keys are older than the columns of its table."""
    classes = LabelError(PEOPLE, "cat", 10, 5, 0.5, 0.1, 0.9, 0.95)
    overall = LabelError(PEOPLE, "", 40, 20, 0.05, 0.012, 0.25, 0.95)
    unreviewed = LabelError(PEOPLE, "", 40, 0, None, 0.0, 1.0, 0.95)
    assert _error_interval([asdict(classes), asdict(overall)]) == "1.2% to 25.0%"
    assert _error_interval([asdict(unreviewed)]) == "no review"
    assert _error_interval([]) == "not measured"
