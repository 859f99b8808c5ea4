"""`annotation-platform up` as its user meets it: one person, own images, a version at the end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from annotation_platform.demo.annotators import make_people
from annotation_platform.demo.crowd import LabelStudioSession, annotate_round
from annotation_platform.demo.scenes import ONTOLOGY, draw_batch
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.policy import LabelingPolicy, Policy, RoundPolicy, TrainingPolicy
from annotation_platform.schema.tables import LabelTasks, RoundReports
from annotation_platform.servers.child import usable_port

CLI = [sys.executable, "-m", "annotation_platform.cli"]
PORTS = ("port", "label-studio-port", "page-port")
PATIENCE_SECONDS = 300
WEBHOOK_SECRET = "CANARY-0123456789abcdef"


def git(folder, *arguments):
    done = subprocess.run(
        ["git", "-C", folder, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture
def home(tmp_path):
    """A home with a policy for drawn harbours, and a repository with the user's own work in it."""
    policy = Policy(
        ontology=ONTOLOGY,
        rounds=RoundPolicy(minimum_images=5, settle_seconds=0.5),
        labeling=LabelingPolicy(annotations_per_task=1),
        training=TrainingPolicy(cpu_seconds=2, image_width=96),
    )
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "params.yaml").write_text(policy.to_yaml())
    registry = tmp_path / "registry"
    git(tmp_path, "init", "--quiet", "--initial-branch=main", registry)
    git(registry, "config", "user.name", "Ada")
    git(registry, "config", "user.email", "ada@example.org")
    (registry / "notes.txt").write_text("mine")
    git(registry, "add", "notes.txt")
    git(registry, "commit", "--quiet", "-m", "Notes")
    (registry / "notes.txt").write_text("mine, and not yet committed")
    (registry / "draft.txt").write_text("not yet added")
    return tmp_path / "home"


@pytest.fixture
def environment(home, tmp_path):
    port = usable_port(0, remedy="")
    own = {
        "ANNOTATION_HOME": str(home),
        "ANNOTATION_REGISTRY": str(tmp_path / "registry"),
        # Label Studio refuses to send webhooks to this machine; polling has to do.
        "ANNOTATION_WEBHOOK_URL": f"http://127.0.0.1:{port}/",
        "ANNOTATION_WEBHOOK_PORT": str(port),
        "ANNOTATION_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "ANNOTATION_LABEL_STUDIO_REQUESTS_PER_SECOND": "50",
    }
    return {**os.environ, **own}


@pytest.fixture
def servers(environment, tmp_path):
    """`up`, running until the test ends, as a child whose output is a file."""
    log = tmp_path / "up.log"
    with log.open("w") as out:
        ports = [f"--{name}={usable_port(0, remedy='')}" for name in PORTS]
        command = [*CLI, "up", *ports]
        process = subprocess.Popen(command, env=environment, stdout=out, stderr=out)
    wait_for(lambda: "Ctrl-C stops everything" in log.read_text(), process)
    yield log
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def wait_for(done, process=None):
    begun = time.monotonic()
    while not done():
        assert process is None or process.poll() is None
        assert time.monotonic() - begun < PATIENCE_SECONDS
        time.sleep(0.5)


def ask(environment, *arguments):
    done = subprocess.run(
        [*CLI, *arguments, "--json"], env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def token_after_login(url, account):
    """Log in through the form, as in a browser, and return the account's own token."""
    with httpx.Client(base_url=url, follow_redirects=False, timeout=30) as browser:
        form = re.search(
            'name="csrfmiddlewaretoken" value="([^"]+)"', browser.get("/user/login/").text
        )
        said = {"csrfmiddlewaretoken": form[1], **account}
        response = browser.post(
            "/user/login/", data=said, headers={"Referer": f"{url}/user/login/"}
        )
        assert response.is_redirect
        return browser.get("/api/current-user/token").json()["token"]


def content_of(path: Path) -> bytes:
    """Return the bytes of a file; a database of servers at work may have taken it away."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


@pytest.mark.long
@pytest.mark.timeout(900)
def test_one_person_takes_own_images_to_a_version(home, environment, servers, tmp_path):
    said = servers.read_text()
    for promise in ("put images into", "label at", "rounds   "):
        assert promise in said
    assert said.count("SSRF_PROTECTION_ENABLED") == 1
    ada = ask(environment, "people", "add", "ada@example.org")
    assert ask(environment, "people", "list")["people"] == ["ada@example.org"]

    batch = draw_batch(1, 4, seed=2)
    (tmp_path / "camera").mkdir()
    for name, data in batch.files.items():
        (tmp_path / "camera" / name).write_bytes(data)
    assert ask(environment, "ingest", str(tmp_path / "camera"))["copied"] == len(batch.files)

    lake = open_lake(home / "lake", home / "landing")
    wait_for(lambda: lake.tables.exists(LabelTasks, "round-0001"))
    [state] = ask(environment, "status")["rounds"]
    assert (state["landed"], state["accepted"], state["waits_for"]) == (9, 4, "people")

    # She logs in with the password that `people add` printed, and takes her own places.
    url = json.loads((home / "servers.json").read_text())["label_studio"]
    person = replace(make_people(1)[0], name=ada["email"])
    session = LabelStudioSession(url, token_after_login(url, ada), person.name)
    annotations = annotate_round(
        "round-0001", [person], {person.name: session}, batch.truth, seed=0, progress=lambda: None
    )
    assert annotations == 4
    wait_for(lambda: lake.tables.exists(RoundReports, "round-0001"))
    [state] = ask(environment, "status")["rounds"]
    assert (state["version"], state["waits_for"]) == ("1.0.0", "–")
    assert [v["version"] for v in ask(environment, "version", "list")["versions"]] == ["1.0.0"]

    registry = tmp_path / "registry"
    assert git(registry, "status", "--short").splitlines() == [" M notes.txt", "?? draft.txt"]
    assert git(registry, "branch", "--show-current").strip() == "main"
    assert (registry / "notes.txt").read_text() == "mine, and not yet committed"

    kept = [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in kept if WEBHOOK_SECRET.encode() in content_of(path)] == []
    assert WEBHOOK_SECRET not in servers.read_text()

    ask(environment, "people", "remove", "ada@example.org")
    assert ask(environment, "people", "list")["people"] == []
    known = ask(environment, "audit", "show")["events"]
    changes = [line for line in known if line["action"] == "people"]
    assert [line["facts"]["change"] for line in changes] == ["added", "removed"]
    assert "ada@example.org" not in str(changes)
