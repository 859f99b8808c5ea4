"""Lakes of older releases, rewritten in place."""

import json
import signal
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from annotation_platform.cli import app
from annotation_platform.errors import TableError
from annotation_platform.governance.erasure.rewriting import Rewriting
from annotation_platform.schema.tables import TABLES, CleanedImages, Splits, Table, table_named
from annotation_platform.schema.tables.table import Column, text
from annotation_platform.storage.lineage import Lineage, TableInputs
from annotation_platform.storage.migration import migrate, pending_changes
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables, table_key
from annotation_platform.storage.table_files import parquet_bytes, table_bytes

ROUNDS = [f"round-{number:04}" for number in range(1, 13)]


def splits_of(round_id):
    return Splits.from_rows([{"round_id": round_id, "key": round_id[-4:] * 16, "split": "train"}])


def make_lake(root):
    """Write the lake of v0.1.0: files without a schema version."""
    store = LocalObjectStore(root)
    for round_id in ROUNDS:
        store.put(table_key("splits", round_id), parquet_bytes(splits_of(round_id)))
    store.put(table_key("cleaned_images", ROUNDS[0]), parquet_bytes(CleanedImages.empty()))
    return store


def contents(store):
    return {key: store.get(key) for folder in ("tables", "inputs") for key in store.list(folder)}


def test_a_lake_is_migrated_once_and_its_tables_keep_their_digests(tmp_path):
    store = make_lake(tmp_path)
    tables, before = RoundTables(store), contents(store)
    digests = {key: tables.digest(Splits, key) for key in ROUNDS}
    rows = tables.read_all(Splits)
    tables.lineage.write("splits", ROUNDS[0], digests[ROUNDS[0]], TableInputs({}))
    done = []
    changed = migrate(store, progress=lambda *each: done.append(each))
    assert [change.key for change in changed] == sorted(before)
    assert done == [(number, 13) for number in range(14)]
    assert contents(store) != before
    assert {key: tables.digest(Splits, key) for key in ROUNDS} == digests
    noted = {}
    assert tables.recording(noted).read_all(Splits).equals(rows)
    assert noted == {f"splits/{key}": digest for key, digest in digests.items()}
    # What lineage knows is still there: to keep the tables again finds the bytes of before.
    tables.lineage.keep_tables(noted)
    for round_id, digest in digests.items():
        assert Lineage(store).load(digest) == before[table_key("splits", round_id)]
    assert tables.lineage.read("splits", ROUNDS[0], digests[ROUNDS[0]]) == TableInputs({})
    after = contents(store)
    assert migrate(store) == []
    assert contents(store) == after


KILLED = """
import sys, time
from pathlib import Path
from annotation_platform.storage.migration import migrate
from annotation_platform.storage.objects import LocalObjectStore

class Stopping(LocalObjectStore):
    left = 5
    def put(self, key, data):
        if self.left == 0:
            print("now", flush=True)
            time.sleep(600)
        self.left -= 1
        super().put(key, data)

migrate(Stopping(Path(sys.argv[1])))
"""


def test_a_migration_that_was_killed_is_finished_by_the_next_one(tmp_path):
    whole, killed = make_lake(tmp_path / "whole"), make_lake(tmp_path / "killed")
    migrate(whole)
    command = [sys.executable, "-c", KILLED, str(killed.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGKILL)
    assert len(pending_changes(killed)) == 13 - 5
    assert contents(killed) != contents(whole)
    migrate(killed)
    assert contents(killed) == contents(whole)


def test_a_lake_of_a_newer_release_is_refused_and_left_alone(tmp_path):
    store = make_lake(tmp_path)
    newer = type("Newer", (Table,), {"round_id": text("", key=True)}, name="splits", version=9)
    frame = newer.from_rows([{"round_id": ROUNDS[-1]}])
    store.put(table_key("splits", ROUNDS[-1]), table_bytes(newer, frame))
    before = contents(store)
    with pytest.raises(TableError, match=r"splits .*version 9.* Upgrade annotation-platform"):
        migrate(store)
    assert contents(store) == before


@pytest.fixture
def declared():
    """The tables, to be changed; they come back in their order, which the reference shows."""
    before = dict(TABLES)
    yield TABLES
    TABLES.clear()
    TABLES.update(before)


def test_a_renamed_table_moves_to_its_new_folder(tmp_path, declared):
    store = make_lake(tmp_path)
    migrate(store)
    tables = RoundTables(store)
    digests = {key: tables.digest(Splits, key) for key in ROUNDS}

    class Parts(Table, name="parts", version=2, renamed_from=("splits",)):
        """The splits of the release after this one."""

        round_id = text("the round")
        value = Column("string[pyarrow]", "what is split", key=True, renamed_from=("key",))

    del declared["splits"]
    declared["parts"] = Parts
    assert len(migrate(store)) == len(ROUNDS)
    assert migrate(store) == []
    assert list(store.list("tables/splits")) == []
    assert tables.rounds(Parts) == ROUNDS
    assert tables.read(Parts, ROUNDS[1])["value"].tolist() == ["0002" * 16]
    # The digest of the first release stays the name that lineage has.
    assert {key: tables.digest(Parts, key) for key in ROUNDS} == digests


def test_an_erasure_replaces_the_digest_that_a_file_was_migrated_from(tmp_path):
    store = make_lake(tmp_path)
    digest = RoundTables(store).digest(Splits, ROUNDS[0])
    migrate(store)
    data = store.get(table_key("splits", ROUNDS[0]))
    rewriting = Rewriting(frozenset(), frozenset(), {digest: "f" * 64})
    metadata = pq.read_schema(pa.BufferReader(rewriting.table(data))).metadata
    assert metadata[b"annotation_platform.migrated_from"] == b"f" * 64


def test_the_command_lists_migrates_and_finds_nothing_more(tmp_path, monkeypatch):
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path))
    store = make_lake(tmp_path / "lake")
    before = contents(store)

    def migrated_by(*options):
        result = CliRunner().invoke(app, ["migrate", "--json", *options])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout.splitlines()[-1])

    listed = migrated_by("--dry-run")
    assert contents(store) == before
    assert {each["key"] for each in listed["changes"]} == set(before)
    for each in listed["changes"]:
        version = table_named(each["key"].split("/")[1]).schema_version
        assert each["change"] == f"schema version 0 to {version}"
    assert migrated_by() == {"changes": listed["changes"], "dry_run": False}
    migrated = contents(store)
    assert migrated_by("--dry-run") == {"changes": [], "dry_run": True}
    # A second migration changes nothing.
    assert migrated_by() == {"changes": [], "dry_run": False}
    assert contents(store) == migrated
