"""Every Dagster job runs by a command and by a call too, with the result of a run of the UI."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from annotation_platform.cli import app
from annotation_platform.definitions import defs
from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.schema.tables import DatasetVersions, table_named
from annotation_platform.servers.jobs import run_job
from annotation_platform.settings import Settings, settings_environment
from annotation_platform.storage.pseudonyms import pseudonym_key

pytestmark = pytest.mark.timeout(900)

ONE = "round-0001"
COMMANDS = {
    "start_round": ["round", "start"],
    "ask_again": ["round", "ask-again"],
    "merge_round": ["round", "merge"],
    "release_round": ["round", "release"],
    "train_model": ["model", "train", "--round"],
    "report_round": ["round", "report", "--refresh"],
    "verify_versions": ["version", "verify", "--all"],
}
STARTED = ["raw_images", "cleaned_images", "selected_images", "label_tasks"]
MERGED = ["human_labels", "annotator_quality", "consensus_labels", "label_issues", "review_tasks"]
RELEASED = ["reviewed_labels", "auto_labels", "training_set"]


def test_every_job_has_a_command():
    assert set(COMMANDS) == {job.name for job in defs.jobs}
    for words in COMMANDS.values():
        command = get_command(app)
        for word in (word for word in words if not word.startswith("--")):
            command = command.commands[word]
        known = {name for each in command.params for name in each.opts}
        assert {word for word in words if word.startswith("--")} <= known


@pytest.fixture
def twin(platform, tmp_path, monkeypatch):
    """Return a function that copies the home, and makes the copy that of the commands."""

    def copy(name):
        home = shutil.copytree(platform.settings.home_path, tmp_path / name)
        places = {key: str(home / key) for key in ("landing", "lake", "registry", "remote")}
        settings = Settings(home=home, params=home / "params.yaml", labeling="simulated", **places)
        for variable, value in settings_environment(settings).items():
            monkeypatch.setenv(variable, value)
        return replace(platform, settings=settings, lake=lake_of(settings))

    return copy


def command(*arguments):
    done = CliRunner().invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout.splitlines()[-1])


def require_same(one, other, tables):
    """Check that tables of two homes are equal, apart from the times at which they were written."""
    for name in tables:
        mine, yours = (
            table.drop(columns=list(table.select_dtypes("datetimetz")))
            for table in (each.lake.tables.read(table_named(name), ONE) for each in (one, other))
        )
        pd.testing.assert_frame_equal(mine, yours, obj=name)


def version_of(platform):
    row = platform.lake.tables.read(DatasetVersions, ONE).iloc[0]
    return row["tag"], row["folder_md5"], row["images"]


def test_commands_and_calls_do_what_runs_of_the_ui_do(platform, twin):
    platform.land(1)
    # The key that makes pseudonyms is drawn once per lake: both homes need the same one.
    pseudonym_key(platform.lake.store)
    copy = twin("started")
    assert platform.start_round().success
    assert command("round", "start") == {"round": ONE, "job": "start_round"}
    require_same(copy, platform, STARTED)

    platform.annotate(ONE)
    copy = twin("merged")
    assert platform.run("merge_round", ONE).success
    run_job("merge_round", copy.settings, round_id=ONE)
    require_same(copy, platform, MERGED)

    platform.decide(ONE)
    copy = twin("released")
    assert platform.run("release_round", ONE).success
    assert command("round", "release", ONE)["job"] == "release_round"
    require_same(copy, platform, RELEASED)
    assert version_of(copy) == version_of(platform)

    assert command("version", "verify", "--all")["whole"] is True
    run_job("verify_versions", copy.settings)
    next((copy.settings.home_path / "remote").rglob("*.dir")).unlink()
    with pytest.raises(AnnotationPlatformError, match=r"verify_versions failed: .*damaged"):
        run_job("verify_versions", copy.settings)


def test_a_job_that_cannot_run_ends_with_one_line(platform, twin):
    copy = twin("empty")
    missing = CliRunner().invoke(app, ["round", "merge", "round-0009"])
    assert isinstance(missing.exception, AnnotationPlatformError)
    assert "round-0009 does not exist" in str(missing.exception)
    nothing = CliRunner().invoke(app, ["round", "start"])
    assert "There is no round to start" in str(nothing.exception)
    assert copy.lake.manifests.rounds() == []
