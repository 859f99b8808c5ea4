"""What a version is used for: ours, and as `gto` reads it."""

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from annotation_platform.cli import app
from annotation_platform.errors import PublishError
from annotation_platform.versioning.registry import list_versions
from annotation_platform.versioning.stages import assign_stage, stages_of_versions
from tests.system.worlds import World

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def three_versions(root):
    made = World(root)
    for first in (0, 4, 8):
        made.add_images(first, 4)
        made.publish()
    return made


@pytest.fixture
def world(tmp_path, monkeypatch, once):
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    return once(three_versions)


def stages(world):
    found = stages_of_versions(world.registry)
    return {
        info.version: [each.name for each in found.get(info.commit, [])]
        for info in list_versions(world.registry)
    }


def test_a_stage_names_one_version_and_gto_says_the_same(world):
    tags = [info.tag for info in list_versions(world.registry)]
    given = [
        (tags[0], "production"),
        (tags[1], "production"),
        (tags[1], "audit"),
        (tags[0], "deprecated"),
        (tags[2], "deprecated"),
    ]
    for minute, (tag, name) in enumerate(given):
        now = NOW + timedelta(minutes=minute)
        assign_stage(world.registry, tag, name, reason="because", now=now)
    assert stages(world) == {
        "1.0.0": ["deprecated"], "1.1.0": ["production", "audit"], "1.2.0": ["deprecated"]
    }  # fmt: skip
    later = NOW + timedelta(hours=1)
    assign_stage(world.registry, tags[2], "production", reason="it is mended", now=later)
    assert stages(world) == {"1.0.0": ["deprecated"], "1.1.0": ["audit"], "1.2.0": ["production"]}
    gto = Path(sys.executable).with_name("gto")
    command = [gto, "show", "--repo", world.registry, "--json"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)
    listed = json.loads(shown.stdout)["training-set"]
    assert listed["stage"]["production"] == "v1.2.0"
    assert listed["stage"]["audit"] == "v1.1.0"


def test_what_is_no_stage_is_refused_and_changes_nothing(world):
    tag = list_versions(world.registry)[0].tag
    for name, reason, problem in (
        ("Prod!", "x", "no stage"),
        ("production", " ", "needs a reason"),
    ):
        with pytest.raises(PublishError, match=problem):
            assign_stage(world.registry, tag, name, reason=reason, now=NOW)
    with pytest.raises(PublishError, match=r"no version 'training-set@v9.9.9'"):
        assign_stage(world.registry, "training-set@v9.9.9", "production", reason="x", now=NOW)
    assert stages_of_versions(world.registry) == {}
    # Tags of other things are none of ours.
    subprocess.run(["git", "-C", world.registry, "tag", "v7"], check=True)
    assert stages_of_versions(world.registry) == {}


def test_the_commands_list_versions_with_their_stages(world, monkeypatch):
    monkeypatch.setenv("ANNOTATION_HOME", str(world.root / "home"))
    monkeypatch.setenv("ANNOTATION_REGISTRY", str(world.registry))
    run = CliRunner().invoke
    done = run(
        app, ["version", "stage", "1.1.0", "deprecated", "--reason", "labels of round 3 are wrong"]
    )
    assert done.exit_code == 0, done.output
    listed = json.loads(run(app, ["version", "list", "--json"]).stdout.splitlines()[-1])["versions"]
    assert [each["stages"] for each in listed] == [
        "", "deprecated: labels of round 3 are wrong", ""
    ]  # fmt: skip
    assert [each["images"] for each in listed] == [4, 8, 12]
