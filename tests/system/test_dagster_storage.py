"""Dagster's own database: many runs at once, and tables of an older or a newer Dagster."""

import inspect
import sqlite3
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[2]
RUN = """
import dagster as dg

@dg.asset
def thing(context):
    for number in range(20):
        context.log.info(f"line {number}")

with dg.DagsterInstance.get() as instance:
    assert dg.materialize([thing], instance=instance).success
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return DAGSTER_HOME with the tables of one run, closed again."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    assert run_apart(RUN).returncode == 0
    return tmp_path


def run_apart(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = arguments if arguments[0] == "-m" else ("-c", *arguments)
    return subprocess.run(
        [sys.executable, *command], cwd=PROJECT, capture_output=True, text=True, check=False
    )


def revision(home: Path, new: str = "") -> str:
    """Return the revision that the table of runs is at, having set it if another is given."""
    with sqlite3.connect(home / "history" / "runs.db") as database:
        if new:
            database.execute("UPDATE alembic_version SET version_num = ?", (new,))
        (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


def before(newest: str) -> str:
    """Return the revision before the newest one, from the migrations that Dagster ships."""
    with dg.DagsterInstance.get() as instance:
        module = Path(inspect.getfile(type(instance.run_storage)))
    script = ScriptDirectory.from_config(Config(module.parent / "alembic" / "alembic.ini"))
    return str(script.get_revision(newest).down_revision)


def everything(home: Path) -> list[str]:
    with sqlite3.connect(home / "history" / "runs.db") as database:
        return list(database.iterdump())


def runs(home: Path) -> int:
    with sqlite3.connect(home / "history" / "runs.db") as database:
        return int(database.execute("SELECT count(*) FROM runs").fetchone()[0])


def test_eight_runs_at_once_all_end_and_are_all_recorded(home):
    several = [
        subprocess.Popen([sys.executable, "-c", RUN], stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    for each in several:
        _, said = each.communicate(timeout=120)
        assert each.returncode == 0, said[-2000:]
    assert runs(home) == 9
    with dg.DagsterInstance.get() as instance:
        records = instance.get_runs()
        assert {run.status for run in records} == {dg.DagsterRunStatus.SUCCESS}
        for run in records:
            lines = [event.user_message for event in instance.all_logs(run.run_id)]
            assert sum(line.startswith("line ") for line in lines) == 20


def test_older_tables_are_copied_before_they_are_changed(home):
    newest = revision(home)
    older = before(newest)
    assert older not in {newest, "None"}
    revision(home, older)
    done = run_apart("-m", "resources.instance")
    assert done.returncode == 0, done.stderr
    (copy,) = (home / "backups").iterdir()
    assert str(copy) in done.stdout
    assert revision(home) == newest
    assert runs(home) == 1
    assert revision(copy.parent / copy.name) == older
    # Once is enough.
    assert run_apart("-m", "resources.instance").returncode == 0
    assert len(list((home / "backups").iterdir())) == 1


def test_tables_of_a_newer_dagster_are_refused_and_stay_as_they_are(home):
    revision(home, "f" * 12)
    untouched = everything(home)
    done = run_apart("-m", "resources.instance")
    assert done.returncode == 1
    assert "another Dagster" in done.stderr
    assert "install the version that wrote them" in done.stderr
    assert "Traceback" not in done.stderr
    assert everything(home) == untouched
    assert not list(home.glob("backups/*"))
