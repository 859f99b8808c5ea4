"""A dataset version, with the real git and the real DVC: what is published is what one gets."""

import hashlib
import io
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pytest

from annotation_platform.errors import PublishError, SettingsError
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.storage.round_tables import parquet_bytes
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.registry import (
    checkout_as_stranger,
    list_versions,
    make_registry,
    read_manifest,
)
from tests.system.worlds import ONTOLOGY, PARAMS, World


@pytest.fixture(autouse=True)
def _identity(monkeypatch, tmp_path):
    # Neither the tester's git configuration nor a calling git hook may matter.
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def world(tmp_path) -> World:
    made = World(tmp_path)
    made.add_images(0, 12)
    return made


def rendered(table: pd.DataFrame, ontology: Ontology = ONTOLOGY) -> dict[str, bytes]:
    return build_folder(table, ontology, name="training-set").texts


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_whole(world: World, registry: Path | None = None) -> list[str]:
    """Every tagged version is in the remote, object by object, and the versions form one line."""
    registry = registry or world.registry
    versions = list_versions(registry)
    objects = world.root / "remote" / "files" / "md5"
    for before, info in zip([None, *versions], versions, strict=False):
        manifest = info.manifest
        assert manifest.version == info.version
        assert manifest.parent_commit == (before.commit if before else "")
        folder = objects / manifest.folder_md5[:2] / manifest.folder_md5[2:]
        entries = json.loads(folder.read_bytes())
        assert len(entries) == manifest.folder_files
        for md5 in [manifest.folder_md5, *(entry["md5"] for entry in entries)]:
            data = (objects / md5[:2] / md5[2:]).read_bytes()
            assert hashlib.md5(data).hexdigest() == md5.removesuffix(".dir")
    return [info.version for info in versions]


def test_versions_are_numbered_by_what_changed_and_a_stranger_pulls_each_of_them(world, tmp_path):
    first = world.publish()
    assert (first.version, first.tag) == ("1.0.0", "training-set@v1.0.0")
    assert first.new_version
    assert first.parent == ""

    again = world.publish()
    assert (again.version, again.new_version, again.uploaded_files) == ("1.0.0", False, 0)

    world.add_images(12, 2)
    second = world.publish()
    assert second.version == "1.1.0"
    assert second.parent == first.commit
    # Two pictures and their labels; the tables, COCO files and cards that hold them are rewritten.
    digits = {row["image_id"][0] for row in world.rows[12:]}
    assert second.uploaded_files <= 2 + 2 + len(digits) + 3 + 2

    world.rows[1]["x2"] = 99.0
    third = world.publish()
    assert third.version == "1.1.1"

    world.ontology = Ontology(classes=(*ONTOLOGY.classes, LabelClass(id=7, name="cone")))
    fourth = world.publish(weights=["c" * 64])
    assert fourth.version == "2.0.0"
    assert assert_whole(world) == ["1.0.0", "1.1.0", "1.1.1", "2.0.0"]
    assert read_manifest(world.registry, "training-set@v2.0.0").weights == ("c" * 64,)

    for published, images in [(first, 12), (second, 14), (third, 14), (fourth, 14)]:
        into = checkout_as_stranger(world.registry, published.tag, tmp_path / published.version)
        folder = into / "datasets" / "training-set"
        pictures = list((folder / "images").rglob("*.jpg"))
        assert len(pictures) == images
        for picture in pictures:
            assert picture.read_bytes() == (world.root / "lake" / picture.name).read_bytes()
        assert (into / "params.yaml").read_text() == PARAMS
        assert (into / "code.py").exists()
        assert git(into, "status", "--porcelain") == ""
    texts = rendered(world.table, world.ontology)
    for path, data in texts.items():
        assert (folder / path).read_bytes() == data
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {path for path in files if not path.startswith("images/")} == set(texts)

    main = checkout_as_stranger(world.registry, "main", tmp_path / "main")
    assert (main / "dvc.yaml").exists()


def test_every_way_that_dvc_reads_a_version_works(world, tmp_path):
    tag = world.publish().tag
    registry = str(world.registry)
    dvc(tmp_path, "artifacts", "get", registry, "training-set", "--rev", "v1.0.0", "-o", "a")
    dvc(tmp_path, "get", registry, "datasets/training-set", "--rev", tag, "-o", "b")
    a, b = tmp_path / "a", tmp_path / "b"
    names = sorted(path.relative_to(a) for path in a.rglob("*"))
    assert names == sorted(path.relative_to(b) for path in b.rglob("*"))
    assert len(list((a / "images").rglob("*.jpg"))) == 12
    into = checkout_as_stranger(world.registry, tag, tmp_path / "clone")
    assert "in sync" in dvc(into, "status", "-c")
    shown = subprocess.run(
        [Path(sys.executable).parent / "gto", "show", "-r", registry, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "v1.0.0" in shown.stdout


def test_the_registrys_working_tree_index_and_branch_are_not_touched(world):
    (world.registry / "code.py").write_text("half an idea\n")
    (world.registry / "notes.txt").write_text("mine\n")
    git(world.registry, "add", "notes.txt")
    hook = world.registry / ".git" / "hooks" / "reference-transaction"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    index = (world.registry / ".git" / "index").read_bytes()
    before = git(world.registry, "--no-optional-locks", "status", "--porcelain")
    world.publish()
    assert (world.registry / ".git" / "index").read_bytes() == index
    assert git(world.registry, "status", "--porcelain") == before
    assert git(world.registry, "rev-parse", "--abbrev-ref", "HEAD") == "main"
    assert not git(world.registry, "log", "main", "--format=%s").count("training-set")


def test_a_version_names_its_code_and_what_in_it_was_not_committed(world):
    clean = world.publish().manifest.code
    # The demo: the source tree is no checkout, and the registry's main is the very same tree.
    assert clean.commit == git(world.registry, "rev-parse", "main")
    assert (clean.snapshot, clean.dirty) == (True, False)

    source = world.root / "source"
    (source / "code.py").write_text("print('changed')\n")
    (source / ".venv").mkdir()
    (source / ".venv" / "secret").write_text("not code")
    world.add_images(12, 1)
    second = world.publish()
    assert second.manifest.code.commit != clean.commit
    assert git(world.registry, "show", f"{second.tag}:code.py") == "print('changed')"
    listed = git(world.registry, "ls-tree", "-r", "--name-only", second.tag)
    assert ".venv/secret" not in listed.splitlines()
    parents = git(world.registry, "rev-parse", f"{second.commit}^1", f"{second.commit}^2").split()
    assert parents == [second.parent, second.manifest.code.commit]


def test_the_project_itself_can_be_the_registry(tmp_path):
    world = World(tmp_path)
    world.add_images(0, 3)
    source = tmp_path / "source"
    git(source, "init", "-q", "-b", "main")
    git(source, "add", "-A")
    git(source, "commit", "-q", "-m", "code")
    (source / "code.py").write_text("print('not committed')\n")
    published = world.publish(registry=source)
    code = published.manifest.code
    assert code.commit == git(source, "rev-parse", "main")
    assert code.dirty_paths == ("code.py", "params.yaml")
    assert git(source, "status", "--porcelain") == "M code.py"
    checkout_as_stranger(source, published.tag, tmp_path / "clone")


def test_the_order_of_rows_does_not_matter(world, tmp_path):
    other = tmp_path / "other"
    make_registry(other, world.root / "source", PARAMS, remote_url=str(tmp_path / "remote2"))
    one = world.publish()
    shuffled = world.table.sample(frac=1.0, random_state=3)
    two = world.publish(table=shuffled, registry=other, remote=tmp_path / "remote2")
    assert one.folder_md5 == two.folder_md5
    # Neither does the way of a table through Parquet and back in pieces.
    parts = [shuffled.iloc[:5], shuffled.iloc[5:]]
    read = pd.concat([pd.read_parquet(io.BytesIO(parquet_bytes(part))) for part in parts])
    assert rendered(read) == rendered(world.table)


def test_the_card_counts_images_and_boxes_by_split_and_class(world):
    texts = rendered(world.table)
    card = json.loads(texts["card.json"])
    # Of images 0 to 11, every fourth is val or test, and 0, 5 and 10 are empty.
    assert card["images"] == {"train": 6, "val": 3, "test": 3}
    assert card["empty_images"] == {"train": 2, "val": 1, "test": 0}
    assert card["classes"] == [
        {"id": 0, "name": "Würfel", "boxes": {"train": 0, "val": 0, "test": 0}},
        {"id": 1, "name": "ball", "boxes": {"train": 4, "val": 2, "test": 3}},
    ]
    # Boxes are 29 + number by 38 pixels, number in 1 2 3 4 6 7 8 9 11: the middle one is 6.
    assert card["median_box_pixels"] == {"width": 35.0, "height": 38.0}
    assert card["rounds"] == {"round-0001": {"images": 12, "boxes": 9}}
    assert set(card["audits"].values()) == {0}
    assert "| 1 | ball | 4 | 2 | 3 | 9 |" in texts["README.md"].decode()


def test_the_card_counts_labels_by_where_they_are_from(world):
    # Of the twelve, every fifth from the first on holds nothing: the last three hold two boxes.
    for row in world.rows[9:]:
        row["origin"] = "coco:a.json"
    texts = rendered(world.table)
    assert json.loads(texts["card.json"])["origins"] == {
        "coco:a.json": {"images": 3, "boxes": 2},
        "people": {"images": 9, "boxes": 7},
    }
    assert "| coco:a.json | 3 | 2 |" in texts["README.md"].decode()
    published = [texts[name] for name in texts if name.startswith("annotations/")]
    origins = pd.concat(pd.read_parquet(io.BytesIO(data)) for data in published)["origin"]
    assert origins.value_counts().to_dict() == {"people": 9, "coco:a.json": 3}


def test_the_card_counts_what_should_never_be(world):
    world.rows[1]["x2"] = 641.0
    world.rows[2]["x2"] = world.rows[2]["x1"]
    world.rows[3]["group_id"] = world.rows[1]["group_id"]
    world.rows[3]["stored_md5"] = world.rows[1]["stored_md5"]
    # Images 1 and 3 are one in train, one in test; boxes 1 and 2 are too wide and without area.
    assert json.loads(rendered(world.table)["card.json"])["audits"] == {
        "groups_in_two_splits": 1,
        "contents_in_two_splits": 1,
        "boxes_outside_image": 2,
    }


def test_a_label_that_the_ontology_does_not_know_is_not_published(world):
    world.rows[1]["class_id"] = 0
    with pytest.raises(PublishError, match="class 'ball' with id 0 is not in the ontology"):
        world.publish()
    world.rows[1] = {**world.rows[1], "class_id": 1, "split": "val"}
    world.rows.append({**world.rows[1], "label_id": "another", "split": "test"})
    with pytest.raises(PublishError, match="different splits"):
        world.publish()


def test_versions_live_in_a_bucket_as_well(world, monkeypatch, tmp_path):
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    access = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    try:
        with pytest.raises(PublishError, match="bucket does not exist"):
            world.publish(remote="s3://versions/dvc")
        boto3.client("s3").create_bucket(Bucket="versions")
        first = world.publish(remote="s3://versions/dvc")
        assert world.publish(remote="s3://versions/dvc").uploaded_files == 0
        into = checkout_as_stranger(
            world.registry, first.tag, tmp_path / "clone", environment=access
        )
        assert len(list(into.rglob("*.jpg"))) == 12
    finally:
        server.stop()


def test_a_bare_registry_without_dvc_works_too(world, tmp_path):
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    published = world.publish(registry=bare)
    into = checkout_as_stranger(bare, published.tag, tmp_path / "clone")
    assert len(list(into.rglob("*.jpg"))) == 12


def test_a_commit_left_without_its_tag_is_given_it(world):
    first = world.publish()
    git(world.registry, "tag", "-d", first.tag)
    assert list_versions(world.registry) == []
    again = world.publish()
    assert (again.commit, again.new_version) == (first.commit, False)
    assert assert_whole(world) == ["1.0.0"]


def test_a_lock_left_by_a_killed_git_is_named_while_fresh_and_removed_when_old(world):
    lock = world.registry / ".git" / "refs" / "heads" / "datasets.lock"
    lock.touch()
    with pytest.raises(PublishError, match=r"datasets\.lock"):
        world.publish()
    os.utime(lock, (0, 0))
    assert world.publish().version == "1.0.0"
    assert not lock.exists()


def test_a_changed_file_of_the_lake_is_refused_by_name_and_nothing_is_published(world):
    victim = world.rows[3]
    path = world.root / "lake" / f"{victim['image_id']}.jpg"
    path.write_bytes(b"something else")
    with pytest.raises(PublishError, match=f"image {victim['image_id']}.*MD5"):
        world.publish()
    assert list_versions(world.registry) == []
    md5 = str(victim["stored_md5"])
    assert not (world.root / "remote" / "files" / "md5" / md5[:2] / md5[2:]).exists()
    path.unlink()
    with pytest.raises(PublishError, match=f"image {victim['image_id']}.*cannot be read"):
        world.publish()


def test_a_damaged_object_of_the_remote_stops_a_reader(world, tmp_path):
    tag = world.publish().tag
    md5 = str(world.rows[0]["stored_md5"])
    path = world.root / "remote" / "files" / "md5" / md5[:2] / md5[2:]
    path.chmod(0o644)
    path.write_bytes(b"x" * 2000)
    path.chmod(0o444)
    with pytest.raises(PublishError, match=r"dvc pull.*failed to pull data"):
        checkout_as_stranger(world.registry, tag, tmp_path / "clone")


def test_the_lake_stays_writable_and_apart_from_the_remote(world):
    world.publish()
    path = world.root / "lake" / f"{world.rows[0]['image_id']}.jpg"
    assert os.access(path, os.W_OK)
    assert path.stat().st_mode & 0o200
    assert path.stat().st_nlink == 1


def test_what_is_missing_on_the_machine_is_said_in_one_line(world, monkeypatch, tmp_path):
    (tmp_path / "plain").mkdir()
    with pytest.raises(SettingsError, match=r"not a git repository. Run `git init"):
        world.publish(registry=tmp_path / "plain")
    with pytest.raises(SettingsError, match="absolute path"):
        world.publish(remote="remote")
    world.rows, rows = [], world.rows
    with pytest.raises(PublishError, match="nothing to publish"):
        world.publish()
    world.rows = rows
    (tmp_path / "gitconfig").write_text("")
    with pytest.raises(SettingsError, match=r"git config --global user.email"):
        world.publish()
    monkeypatch.setenv("PATH", str(tmp_path / "plain"))
    with pytest.raises(SettingsError, match="Install git"):
        world.publish()


def _publish_many(root: Path, registry: Path, first: int, barrier) -> None:
    world = World(root)
    for step in range(3):
        world.add_images(first + step * 10, 2)
        barrier.wait()
        world.publish(registry=registry)


# A bare registry has no DVC lock: there, only the compare-and-swap keeps order.
@pytest.mark.parametrize("bare", [True, False], ids=["compare-and-swap", "lock"])
def test_two_publishers_at_once_make_one_line_of_versions(world, bare):
    registry = world.root / "bare.git" if bare else world.registry
    if bare:
        subprocess.run(["git", "init", "-q", "--bare", registry], check=True)
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [
        context.Process(target=_publish_many, args=(world.root, registry, first, barrier))
        for first in (100, 200)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    versions = assert_whole(world, registry)
    assert len(versions) == len(set(versions)) == 6


def _publish_once(root: Path, count: int) -> None:
    os.setsid()
    world = World(root)
    world.add_images(0, count)
    world.publish()


def test_a_publisher_killed_at_any_moment_leaves_whole_versions_and_the_next_completes(world):
    context = multiprocessing.get_context("fork")
    world.publish()
    world.add_images(12, 1)
    started = time.monotonic()
    world.publish()
    usual = time.monotonic() - started
    moments = random.Random(5)
    counts = range(20, 20 + int(os.environ.get("ANNOTATION_TEST_KILLS", "6")))
    for count in counts:
        worker = context.Process(target=_publish_once, args=(world.root, count))
        worker.start()
        time.sleep(moments.uniform(0.1, 1.1) * usual)
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.join()
        assert_whole(world)
        survivor = World(world.root)
        survivor.add_images(0, count)
        assert survivor.publish().version == f"1.{count - 18}.0"
    assert len(assert_whole(world)) == 2 + len(counts)
