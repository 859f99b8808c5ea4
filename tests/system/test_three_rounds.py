"""The story: pictures land three times, people label, versions come out, and nobody commands it.

Everything is real: Dagster's webserver and daemon, git, DVC, Parquet, and in the long one Label
Studio; only the people are simulated.
"""

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import httpx
import pandas as pd
import psutil
import pytest

from annotation_platform.demo.material import drawn_material
from annotation_platform.demo.narrator import Narrator
from annotation_platform.demo.run import DemoOptions, prepare_home, run_demo
from annotation_platform.errors import SettingsError
from annotation_platform.lake import open_lake
from annotation_platform.versioning.registry import checkout_as_stranger, list_versions

RUNS = """{ runsOrError { ... on Runs { results { jobName status tags { key value } } } } }"""
TICKS = """
query Sensors($selector: RepositorySelector!) { sensorsOrError(repositorySelector: $selector) {
  ... on Sensors { results { name sensorState { status } } } } }
"""
SELECTOR = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "annotation_platform.definitions",
}
CANARIES = {
    name: f"CANARY-{secrets.token_hex(8)}"
    for name in ("AWS_SECRET_ACCESS_KEY", "ANNOTATION_LABEL_STUDIO_TOKEN")
}


def query(url, text, **variables):
    answer = httpx.post(f"{url}/graphql", json={"query": text, "variables": variables}, timeout=60)
    return answer.json()["data"]


def tell_the_story(home, labeling, images, *, cpu_seconds):
    """Run the demo and return its material, result, and what Dagster's own API says of its runs."""
    material = drawn_material(3, images, seed=5)
    seen = {}

    def look(result):
        runs = query(result.dagster_url, RUNS)["runsOrError"]["results"]
        seen["runs"] = [
            {**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in runs
        ]
        seen["sensors"] = query(result.dagster_url, TICKS, selector=SELECTOR)["sensorsOrError"]

    options = DemoOptions(
        home=home, labeling=labeling, seed=5, training_cpu_seconds=cpu_seconds, image_width=160
    )
    with Narrator() as narrator:
        result = run_demo(material, options, narrator, finished=look)
    return material, result, seen


@pytest.fixture(scope="module")
def simulated_story(tmp_path_factory):
    home = tmp_path_factory.mktemp("story") / "home"
    before = dict(os.environ)
    os.environ.update(CANARIES)
    try:
        return home, *tell_the_story(home, "simulated", 8, cpu_seconds=4)
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_rounds(material, result):
    """What landed is in exactly one round, and its counts add up (invariant I1)."""
    assert [row["round"] for row in result.rounds] == ["round-0001", "round-0002", "round-0003"]
    for row, files in zip(result.rounds, material.batches, strict=True):
        assert row["landed"] == len(files)
        assert row["accepted"] + row["quarantined"] + row["duplicates"] == row["landed"]
        assert row["answers"] == 3 * row["tasks"]
        assert row["consensus_f1"] > 0.9
    tested = [row["test_images"] for row in result.rounds]
    assert tested == sorted(tested)
    assert [row["version"] for row in result.rounds] == ["1.0.0", "1.1.0", "1.2.0"]


def check_nothing_was_commanded(seen):
    assert {run["status"] for run in seen["runs"]} == {"SUCCESS"}
    asked_by = sorted(
        (run["jobName"], run["tags"].get("dagster/sensor_name", "a person")) for run in seen["runs"]
    )
    assert asked_by == sorted(
        [
            ("start_round", "new_images_sensor"),
            ("merge_round", "labeling_complete_sensor"),
            ("release_round", "review_complete_sensor"),
            ("train_model", "new_version_sensor"),
        ]
        * 3
    )


def check_no_process_is_left(home):
    left = [
        process.info["pid"]
        for process in psutil.process_iter(["pid", "environ"])
        if str(home) in (process.info["environ"] or {}).get("ANNOTATION_HOME", "")
    ]
    assert left == []


def check_no_secret_leaked(home, values):
    """Secrets are in no log, event, table, report or version (invariant I6)."""
    assert all(len(secret) > 8 for secret in values)
    needles = [secret.encode() for secret in values]
    leaks = [
        str(path)
        for path in home.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]
    assert leaks == []


def test_three_batches_become_three_versions_without_a_command(simulated_story):
    _, material, result, seen = simulated_story
    check_rounds(material, result)
    check_nothing_was_commanded(seen)
    states = {s["name"]: s["sensorState"]["status"] for s in seen["sensors"]["results"]}
    assert set(states.values()) == {"RUNNING"}


def test_the_model_of_a_round_proposes_in_the_next(simulated_story):
    home, _, _, _ = simulated_story
    tables = open_lake(home / "lake", home / "landing").tables
    assert tables.read("model_predictions", "round-0001").empty
    evaluations = tables.read_all("model_evaluation").set_index("round_id")
    assert evaluations.loc["round-0001", "promoted"]
    proposals = tables.read("model_predictions", "round-0002")
    assert set(proposals["weights_sha256"]) == {evaluations.loc["round-0001", "weights_sha256"]}


def test_every_version_reaches_a_stranger_whole(simulated_story, tmp_path):
    home, material, result, _ = simulated_story
    tables = open_lake(home / "lake", home / "landing").tables
    for row in result.rounds:
        tag = f"training-set@v{row['version']}"
        clone = checkout_as_stranger(result.registry, tag, tmp_path / row["round"])
        folder = clone / "datasets" / "training-set"
        published = tables.read("training_set", row["round"])
        names = sorted(path.stem for path in (folder / "images").rglob("*.*"))
        assert names == sorted(published["image_id"].unique())
        shards = [pd.read_parquet(path) for path in sorted((folder / "annotations").glob("*"))]
        assert len(pd.concat(shards)) == len(published)
        for image_id, extension, split in (
            published.drop_duplicates("image_id")[["image_id", "extension", "split"]]
        ).itertuples(index=False):
            stored = (home / "lake" / "images" / f"{image_id}.{extension}").read_bytes()
            pulled = (folder / "images" / split / f"{image_id}.{extension}").read_bytes()
            assert pulled == stored
    # Every accepted picture of every round is in the last version once, at its true place.
    accepted = tables.read_all("cleaned_images").query("outcome == 'accepted'")
    assert names == sorted(accepted["image_id"])
    assert len(list_versions(result.registry)) == 3
    assert set(names) <= set(material.truth.images["image_id"])


def test_dvc_repro_trains_and_tests_in_a_clone_of_a_version(simulated_story, tmp_path):
    _, _, result, _ = simulated_story
    clone = checkout_as_stranger(result.registry, "training-set@v1.2.0", tmp_path / "clone")
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    for command in (["dvc", "repro"], ["dvc", "pull"]):
        subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True)
    figures = json.loads((clone / "models" / "metrics.json").read_text())
    assert figures["test_images"] == result.rounds[-1]["test_images"]
    assert 0 <= figures["map50"] <= 1


def test_no_process_and_no_secret_is_left_behind(simulated_story):
    home, _, _, _ = simulated_story
    check_no_process_is_left(home)
    check_no_secret_leaked(home, list(CANARIES.values()))


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_same_story_with_a_real_label_studio(tmp_path):
    home = tmp_path / "home"
    material, result, seen = tell_the_story(home, "label-studio", 8, cpu_seconds=4)
    check_rounds(material, result)
    check_nothing_was_commanded(seen)
    check_no_process_is_left(home)
    kept = home / "secrets.json"
    admin = json.loads(kept.read_text())["label_studio"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert (home / "label-studio").stat().st_mode & 0o777 == 0o700
    # Label Studio's own folder holds its own keys and is closed to others.
    kept.unlink()
    for path in (home / "label-studio").rglob("*.sqlite3"):
        path.unlink()
    check_no_secret_leaked(home, [admin["password"], admin["token"]])


def test_a_home_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(SettingsError, match="no demonstration of ours"):
        prepare_home(drawn_material(1, 1, seed=0), DemoOptions(home=tmp_path))
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


def test_ctrl_c_stops_every_child_and_the_next_try_works(tmp_path):
    home = tmp_path / "home"
    command = [sys.executable, "-m", "annotation_platform.cli", "demo", "--labeling", "simulated"]
    command += ["--home", str(home), "--batch-images", "2", "--batches", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    for line in process.stderr:
        if "waiting for the round" in line:
            break
    process.send_signal(2)
    assert process.wait(60) == 130
    check_no_process_is_left(home)
    prepare_home(drawn_material(1, 1, seed=0), DemoOptions(home=home))
