"""Every flipped byte and every lost object of a remote is found, and what can be is put back."""

import hashlib
import json
import os
import random
import subprocess
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from annotation_platform.cli import app
from annotation_platform.errors import PublishError
from annotation_platform.policy import Policy
from annotation_platform.versioning.collect import collect_garbage
from annotation_platform.versioning.registry import checkout_on_new_machine, list_versions
from annotation_platform.versioning.remote import DvcRemote
from annotation_platform.versioning.uploading import Source
from annotation_platform.versioning.verify import verify_versions
from tests.system.worlds import ONTOLOGY, World

NOW = datetime.now(UTC)


def three_versions(root):
    made = World(root, params=Policy(ontology=ONTOLOGY).to_yaml())
    for first, count in ((0, 12), (12, 6), (18, 3)):
        made.add_images(first, count)
        made.publish()
    return made


@pytest.fixture
def world(tmp_path, monkeypatch, once):
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    return once(three_versions)


@pytest.fixture
def remote(world):
    return DvcRemote(str(world.root / "remote"))


def objects(world):
    found = (world.root / "remote" / "files" / "md5").glob("*/*")
    return sorted(path for path in found if path.is_file())


def name_of(path):
    return path.parent.name + path.name


def spoil(path, rng):
    """Flip one bit, cut the end off, or take it away; return what verify is to call that."""
    data = path.read_bytes()
    path.chmod(0o644)
    # An empty label file has no byte to flip.
    how = rng.choice(["flip", "cut", "lose", "empty"]) if data else "lose"
    if how == "lose":
        path.unlink()
        return "missing"
    place = rng.randrange(len(data))
    flipped = data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]
    path.write_bytes({"flip": flipped, "cut": data[:-1], "empty": b""}[how])
    path.chmod(0o444)
    return "damaged"


def stored_source(world):
    """What a lake gives: the images."""

    def find(path, _md5):
        stored = world.root / "lake" / path.rpartition("/")[2]
        return Source(stored, path) if path.startswith("images/") and stored.exists() else None

    return find


def test_a_whole_remote_is_whole_and_every_object_was_read(world, remote):
    calls = []
    found = verify_versions(world.registry, remote, progress=lambda *done: calls.append(done))
    assert found.problems == found.orphans == ()
    assert found.tags == tuple(info.tag for info in list_versions(world.registry))
    stored = objects(world)
    assert found.objects == len(stored)
    assert found.byte_size == sum(path.stat().st_size for path in stored)
    assert calls[-1] == (len(stored), len(stored))


@pytest.mark.parametrize("seed", range(6))
def test_whatever_was_spoilt_is_named_and_put_back_from_lake_and_tables(world, remote, seed):
    rng = random.Random(seed)
    # The lists of files come last: without them it is not known what else there is.
    files = [path for path in objects(world) if path.suffix != ".dir"]
    images = {path.read_bytes() for path in (world.root / "lake").iterdir()}
    tables = {path for path in files if path.read_bytes()[:4] == b"PAR1"}
    chosen = rng.sample([path for path in files if path not in tables], 12)
    planted = {name_of(path): spoil(path, rng) for path in chosen}
    found = verify_versions(world.registry, remote)
    assert {each.name: each.kind for each in found.problems} == planted
    for each in found.problems:
        assert set(each.tags) <= set(found.tags)
    mended = verify_versions(world.registry, remote, find_source=stored_source(world))
    assert {each.name for each in mended.repaired} == set(planted)
    assert mended.problems == ()
    assert verify_versions(world.registry, remote).problems == ()
    assert len(images) == 21


def test_a_table_is_not_made_up_and_a_lost_list_of_files_hides_no_orphans(world, remote):
    (list_,) = (p for p in objects(world) if name_of(p) == list_versions(world.registry)[0]
                .manifest.folder_md5)  # fmt: skip
    table = next(path for path in objects(world) if path.read_bytes()[:4] == b"PAR1")
    for path in (list_, table):
        path.chmod(0o644)
        path.unlink()
    found = verify_versions(world.registry, remote, find_source=stored_source(world))
    assert {(each.kind, each.name) for each in found.problems} >= {("missing", name_of(list_))}
    assert found.repaired == ()
    # What only the lost list names would look like orphans.
    assert found.orphans == ()
    with pytest.raises(PublishError, match="lacks the folder"):
        collect_garbage(world.registry, remote, expected=(), now=NOW)


def test_only_what_no_version_names_is_taken_away_and_not_while_it_is_new(world, remote, tmp_path):
    left = world.root / "remote" / "files" / "md5" / "ab" / ("0" * 30)
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"of a publisher that was killed")
    before = objects(world)
    assert verify_versions(world.registry, remote).orphans == (name_of(left),)
    young = collect_garbage(world.registry, remote, expected=(), now=NOW, dry_run=False)
    assert young.removed == ()
    assert young.young == (name_of(left),)
    long_ago = (NOW - timedelta(days=3)).timestamp()
    for path in before:
        os.utime(path, (long_ago, long_ago))
    dry = collect_garbage(world.registry, remote, expected=(), now=NOW)
    assert dry.removed == (name_of(left),)
    assert left.exists()
    collect_garbage(world.registry, remote, expected=(), now=NOW, dry_run=False)
    assert set(before) - set(objects(world)) == {left}
    for info in list_versions(world.registry):
        checkout_on_new_machine(world.registry, info.tag, tmp_path / info.version)


def test_other_data_of_the_registry_is_not_taken_away(world, remote, tmp_path):
    mine = tmp_path / "mine"
    git = ["git", "-C", mine]
    subprocess.run(["git", "clone", "--quiet", world.registry, mine], check=True)
    data = b"somebody's own table"
    name = hashlib.md5(data).hexdigest()
    place = world.root / "remote" / "files" / "md5" / name[:2] / name[2:]
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(data)
    (mine / "table.csv.dvc").write_text(f"outs:\n- md5: {name}\n  path: table.csv\n")
    subprocess.run([*git, "add", "table.csv.dvc"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "mine"], check=True)
    subprocess.run([*git, "push", "--quiet", "origin", "HEAD:refs/heads/mine"], check=True)
    later = NOW + timedelta(days=5)
    found = collect_garbage(world.registry, remote, expected=(), now=later, dry_run=False)
    assert found.removed == ()
    assert place.read_bytes() == data


def test_a_registry_that_does_not_hold_every_version_is_refused(world, remote, tmp_path):
    with pytest.raises(PublishError, match=r"lacks training-set@v9.0.0.*git fetch --tags"):
        collect_garbage(
            world.registry, remote, expected={"training-set@v9.0.0"}, now=NOW, dry_run=False
        )
    shallow = tmp_path / "shallow"
    os.system(f"git clone --quiet --depth 1 file://{world.registry} {shallow}")
    with pytest.raises(PublishError, match="--unshallow"):
        collect_garbage(shallow, remote, expected=(), now=NOW, dry_run=False)


def test_the_commands_say_so_in_json_and_by_their_exit(world, monkeypatch):
    monkeypatch.setenv("ANNOTATION_HOME", str(world.root / "home"))
    monkeypatch.setenv("ANNOTATION_REGISTRY", str(world.registry))
    monkeypatch.setenv("ANNOTATION_REMOTE", str(world.root / "remote"))
    run = CliRunner().invoke
    whole = run(app, ["version", "verify", "--all", "--json"])
    assert whole.exit_code == 0
    assert json.loads(whole.stdout.splitlines()[-1])["whole"] is True
    audited = run(app, ["version", "verify", "--all", "--audit", "--json"])
    assert audited.exit_code == 0
    tags = [info.tag for info in list_versions(world.registry)]
    assert json.loads(audited.stdout.splitlines()[-1])["audits"] == {tag: {} for tag in tags}
    first, other = (
        next(row for row in world.rows if row["split"] == split) for split in ("train", "test")
    )
    other["group_id"] = first["group_id"]
    leaking = world.publish()
    assert leaking.manifest.audits["groups_in_two_splits"] == 1
    audited = run(app, ["version", "verify", "--audit", "--json"])
    assert audited.exit_code == 1
    found = json.loads(audited.stdout.splitlines()[-1])["audits"]
    assert found == {leaking.tag: {"groups_in_two_splits": 1}}
    spoilt = objects(world)[0]
    spoil(spoilt, random.Random(0))
    bad = run(app, ["version", "verify", "--all", "--json"])
    assert bad.exit_code == 1
    (problem,) = json.loads(bad.stdout.splitlines()[-1])["problems"]
    assert problem["name"] == name_of(spoilt)
    assert "not whole" in run(app, ["version", "verify", "--all"]).stdout
    orphan = world.root / "remote" / "files" / "md5" / "ab" / ("0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"of a publisher that was killed long ago")
    os.utime(orphan, (0, 0))
    dry = json.loads(run(app, ["version", "gc", "--json"]).stdout.splitlines()[-1])
    assert (dry["dry_run"], dry["removed"]) == (True, ["ab" + "0" * 30])
    assert orphan.exists()
    assert run(app, ["version", "gc", "--yes"]).exit_code == 0
    assert not orphan.exists()
    unknown = run(app, ["version", "verify", "7.7.7"])
    assert isinstance(unknown.exception, PublishError)
