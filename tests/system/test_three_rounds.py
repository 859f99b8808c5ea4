"""The story: images land three times, people label, versions come out, and nobody commands it.

Everything is real: Dagster's webserver and daemon, git, DVC, Parquet, and in the long one Label
Studio; only the people are simulated.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pandas as pd
import psutil
import pytest
import yaml

from annotation_platform.demo.annotators import EXPERT, make_people
from annotation_platform.demo.crowd import SimulatedSession, annotate_round, review
from annotation_platform.demo.material import drawn_material
from annotation_platform.demo.narrator import Narrator
from annotation_platform.demo.run import DemoOptions, prepare_home, run_demo
from annotation_platform.errors import SettingsError
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.skills import REVIEWER, Skills
from annotation_platform.models.from_version import CARD, WEIGHTS
from annotation_platform.schema.tables import (
    CleanedImages,
    LabelTasks,
    ModelEvaluations,
    ModelPredictions,
    ReviewTasks,
    TrainingSet,
)
from annotation_platform.servers.dagster import DagsterServers
from annotation_platform.versioning.registry import checkout_on_new_machine, list_versions

# The story of three rounds is told once, for the first test that asks.
pytestmark = pytest.mark.timeout(900)

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
    response = httpx.post(
        f"{url}/graphql", json={"query": text, "variables": variables}, timeout=60
    )
    return response.json()["data"]


def tell_the_story(home, labeling, images, *, cpu_seconds):
    """Run the demo and return its material, result, and what Dagster's own API says of its runs."""
    material = drawn_material(3, images, seed=5)
    seen = {}

    def look(result):
        # A run's last table is there a moment before the run is told to have ended.
        deadline = time.monotonic() + 60
        while True:
            runs = query(result.dagster_url, RUNS)["runsOrError"]["results"]
            if "STARTED" not in {run["status"] for run in runs} or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        seen["runs"] = [
            {**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in runs
        ]
        seen["sensors"] = query(result.dagster_url, TICKS, selector=SELECTOR)["sensorsOrError"]

    options = DemoOptions(
        home=home, labeling=labeling, seed=5, training_cpu_seconds=cpu_seconds, image_width=160
    )
    with Narrator() as narrator:
        result = run_demo(lambda: material, options, narrator, finished=look)
    return material, result, seen


@pytest.fixture(scope="module")
def simulated_story(tmp_path_factory):
    home = tmp_path_factory.mktemp("story") / "home"
    before = dict(os.environ)
    os.environ.update(CANARIES)
    try:
        return home, *tell_the_story(home, "simulated", 8, cpu_seconds=1)
    finally:
        os.environ.clear()
        os.environ.update(before)


def check_rounds(material, result):
    """What landed is in exactly one round, and its counts add up (invariant I1)."""
    assert [row["round"] for row in result.rounds] == ["round-0001", "round-0002", "round-0003"]
    for row, files in zip(result.rounds, material.batches, strict=True):
        assert row["landed"] == len(files)
        assert row["accepted"] + row["quarantined"] + row["duplicates"] == row["landed"]
        assert row["annotations"] == 3 * row["tasks"]
        assert row["consensus_f1"] > 0.9
    tested = [row["test_images"] for row in result.rounds]
    assert tested == sorted(tested)
    assert [row["version"] for row in result.rounds] == ["1.0.0", "1.1.0", "1.2.0"]


def check_nothing_was_commanded(seen):
    assert {run["status"] for run in seen["runs"]} == {"SUCCESS"}
    asked_by = Counter(
        (run["jobName"], run["tags"].get("dagster/sensor_name", "a person")) for run in seen["runs"]
    )
    # A merge that leaves nothing to decide goes on to the release.
    assert asked_by.pop(("release_round", "review_complete_sensor"), 0) <= 3
    assert asked_by == {
        ("start_round", "new_images_sensor"): 3,
        ("merge_round", "labeling_complete_sensor"): 3,
        ("train_model", "new_version_sensor"): 3,
    }


def check_no_process_is_left(home):
    left = [
        process.info["pid"]
        for process in psutil.process_iter(["pid", "environ"])
        if str(home) in (process.info["environ"] or {}).get("ANNOTATION_HOME", "")
    ]
    assert left == []


def find_secrets(home, values):
    """Return where any of the values lies: files, Parquet read back, git objects (invariant I6)."""
    needles = [value.encode() for value in values]

    def holds(data):
        return any(needle in data for needle in needles)

    found = set()
    for path in home.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            if data[:4] == b"PAR1":  # compressed: a secret in it shows only when it is read
                data += pd.read_parquet(path).to_csv().encode()
            if holds(data):
                found.add(str(path))
    every_object = ["cat-file", "--batch-all-objects", "--batch"]
    git = subprocess.run(
        ["git", "-C", home / "registry", *every_object], capture_output=True, check=True
    )
    return found | ({"a git object of the registry"} if holds(git.stdout) else set())


def test_three_batches_become_three_versions_without_a_command(simulated_story):
    _, material, result, seen = simulated_story
    check_rounds(material, result)
    check_nothing_was_commanded(seen)
    states = {s["name"]: s["sensorState"]["status"] for s in seen["sensors"]["results"]}
    assert set(states.values()) == {"RUNNING"}


def test_the_model_of_a_round_proposes_in_the_next(simulated_story):
    home, _, _, _ = simulated_story
    tables = open_lake(home / "lake", home / "landing").tables
    assert tables.read(ModelPredictions, "round-0001").empty
    evaluations = tables.read_all(ModelEvaluations).set_index("round_id")
    assert evaluations.loc["round-0001", "promoted"]
    proposals = tables.read(ModelPredictions, "round-0002")
    assert set(proposals["weights_sha256"]) == {evaluations.loc["round-0001", "weights_sha256"]}


def test_every_version_reaches_a_stranger_whole(simulated_story, tmp_path):
    home, material, result, _ = simulated_story
    tables = open_lake(home / "lake", home / "landing").tables
    for row in result.rounds:
        tag = f"training-set@v{row['version']}"
        clone = checkout_on_new_machine(result.registry, tag, tmp_path / row["round"])
        folder = clone / "datasets" / "training-set"
        published = tables.read(TrainingSet, row["round"])
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
    # Every accepted image of every round is in the last version once, at its true place.
    accepted = tables.read_all(CleanedImages).query("outcome == 'accepted'")
    assert names == sorted(accepted["image_id"])
    assert len(list_versions(result.registry)) == 3
    assert set(names) <= set(material.truth.images["image_id"])


def test_dvc_repro_with_fixed_steps_gives_the_same_metrics_again(simulated_story, tmp_path):
    _, _, result, _ = simulated_story
    clone = checkout_on_new_machine(result.registry, "training-set@v1.2.0", tmp_path / "clone")
    params = yaml.safe_load((clone / "params.yaml").read_text())
    params.setdefault("training", {})["steps"] = 3
    (clone / "params.yaml").write_text(yaml.safe_dump(params))
    programs = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    made = []
    for command in (["dvc", "repro"], ["dvc", "repro", "--force"], ["dvc", "pull"]):
        subprocess.run(command, cwd=clone, env=environment, check=True, capture_output=True)
        made.append([(clone / "models" / name).read_bytes() for name in ("metrics.json", WEIGHTS)])
    assert made[0] == made[1] == made[2]
    figures = json.loads(made[0][0])
    assert figures["test_images"] == result.rounds[-1]["test_images"]
    assert 0 <= figures["map50"] <= 1
    card = json.loads((clone / "models" / CARD).read_text())
    assert (card["steps"], card["ended_by"]) == (3, "steps")


def test_no_process_and_no_secret_is_left_behind(simulated_story):
    home, _, _, _ = simulated_story
    check_no_process_is_left(home)
    assert find_secrets(home, list(CANARIES.values())) == set()


def test_the_search_for_secrets_finds_one_in_every_place(simulated_story, tmp_path):
    home, _, _, _ = simulated_story
    place = tmp_path / "home"
    shutil.copytree(home, place)
    tasks = place / "lake" / "tables" / "label_tasks" / "round-0001.parquet"
    log = place / "dagster" / "webserver.log"
    in_table, in_git, in_log = (f"CANARY-{secrets.token_hex(8)}" for _ in range(3))
    pd.read_parquet(tasks).assign(assignee=in_table).to_parquet(tasks)
    hidden = ["git", "-C", str(place / "registry"), "hash-object", "-w", "--stdin"]
    subprocess.run(hidden, input=in_git.encode(), check=True, capture_output=True)
    log.write_text(in_log)
    assert find_secrets(place, [in_table]) == {str(tasks)}
    assert find_secrets(place, [in_git]) == {"a git object of the registry"}
    assert find_secrets(place, [in_log]) == {str(log)}


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
    assert find_secrets(home, [admin["password"], admin["token"]]) == set()


def test_a_home_that_holds_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(SettingsError, match="holds no demonstration"):
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


@pytest.mark.long
@pytest.mark.timeout(600)
def test_servers_killed_in_the_middle_of_a_run_go_on_where_they_were(tmp_path):
    material = drawn_material(1, 6, seed=5)
    options = DemoOptions(
        home=tmp_path / "home", labeling="simulated", training_cpu_seconds=30, image_width=96
    )
    settings = prepare_home(material, options)
    labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    people = make_people(4, 0)
    for name in (*(person.name for person in people), EXPERT):
        labeling.add_annotator(name)
    lake = open_lake(settings.lake_path, settings.landing_path)
    Skills(lake.store).set(EXPERT, REVIEWER, granted=True, now=datetime.now(UTC))
    servers = DagsterServers(settings, secrets={}).start()
    for name, data in material.batches[0].items():
        (settings.landing_path / name).write_bytes(data)
    wait_until(lambda: lake.tables.exists(LabelTasks, "round-0001"))
    sessions = {person.name: SimulatedSession(labeling, person.name) for person in people}
    annotate_round("round-0001", people, sessions, material.truth, seed=0, progress=lambda: None)
    wait_until(lambda: lake.tables.exists(ReviewTasks, "round-0001"))
    expert = SimulatedSession(labeling, EXPERT)
    review("round-0001", expert, material.truth, progress=lambda: None)
    wait_until(lambda: ("train_model", "STARTED") in runs_of(servers.url))
    kill_all(settings.home_path)
    servers.stop()
    with DagsterServers(settings, secrets={}) as servers:
        wait_until(lambda: ("train_model", "SUCCESS") in runs_of(servers.url))
        runs = runs_of(servers.url)
    assert sorted(run for run in runs if run[0] != "release_round") == [
        ("merge_round", "SUCCESS"),
        ("start_round", "SUCCESS"),
        ("train_model", "FAILURE"),
        ("train_model", "SUCCESS"),
    ]
    assert lake.manifests.rounds() == ["round-0001"]
    assert len(labeling.collect("round-0001")) == 18
    assert [version.version for version in list_versions(settings.registry_path)] == ["1.0.0"]


def runs_of(url):
    results = query(url, RUNS)["runsOrError"]["results"]
    return [(run["jobName"], run["status"]) for run in results]


def wait_until(done, seconds=240):
    begun = time.monotonic()
    while not done():
        assert time.monotonic() - begun < seconds
        time.sleep(0.5)


def kill_all(home):
    """Kill every process of the home at once, as a power cut or an out-of-memory killer would."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("ANNOTATION_HOME") == str(home):
            process.kill()
