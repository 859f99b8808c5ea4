"""A dataset version, with the real git and the real DVC: what is published is what one gets."""

import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import dvc.api
import pandas as pd
import pytest
from dvc.api import DVCFileSystem

from annotation_platform.errors import PublishError, SettingsError
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.storage.table_files import parquet_bytes
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.registry import (
    checkout_on_new_machine,
    list_versions,
    make_registry,
    read_manifest,
)
from annotation_platform.versioning.remote import folder_object
from annotation_platform.versioning.uploading import InBucket
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


def run_dvc(folder: Path, *arguments: str) -> str:
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
    # Two images and their labels; the tables, COCO files and card that hold them are rewritten.
    digits = {row["image_id"][0] for row in world.rows[12:]}
    assert second.uploaded_files <= 2 + 2 + len(digits) + 3 + 8

    world.rows[1]["x2"] = 99.0
    third = world.publish()
    assert third.version == "1.1.1"

    world.ontology = Ontology(classes=(*ONTOLOGY.classes, LabelClass(id=7, name="cone")))
    fourth = world.publish(weights=["c" * 64])
    assert fourth.version == "2.0.0"
    assert assert_whole(world) == ["1.0.0", "1.1.0", "1.1.1", "2.0.0"]
    assert read_manifest(world.registry, "training-set@v2.0.0").weights == ("c" * 64,)

    # The restore drill: each tag, from the remote alone.
    texts = rendered(world.table, world.ontology)
    shutil.rmtree(world.root / "lake")
    for published, images in [(first, 12), (second, 14), (third, 14), (fourth, 14)]:
        into = checkout_on_new_machine(world.registry, published.tag, tmp_path / published.version)
        folder = into / "datasets" / "training-set"
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        hashed = {path: hashlib.md5(data).hexdigest() for path, data in files.items()}
        assert folder_object(hashed)[0] == published.folder_md5
        assert sum(map(len, files.values())) == published.manifest.folder_bytes
        assert len(files) == published.manifest.folder_files
        image_files = {path: data for path, data in files.items() if path.startswith("images/")}
        assert len(image_files) == images
        for path, data in image_files.items():
            assert Path(path).stem == hashlib.sha256(data).hexdigest()
        assert (into / "params.yaml").read_text() == PARAMS
        assert (into / "code.py").exists()
        assert git(into, "status", "--porcelain") == ""
    assert {path: data for path, data in files.items() if path not in image_files} == texts

    main = checkout_on_new_machine(world.registry, "main", tmp_path / "main")
    assert (main / "dvc.yaml").exists()


def test_every_way_that_dvc_reads_a_version_works(world, tmp_path):
    tag = world.publish().tag
    registry = str(world.registry)
    run_dvc(tmp_path, "artifacts", "get", registry, "training-set", "--rev", "v1.0.0", "-o", "a")
    run_dvc(tmp_path, "get", registry, "datasets/training-set", "--rev", tag, "-o", "b")
    a, b = tmp_path / "a", tmp_path / "b"
    names = sorted(path.relative_to(a) for path in a.rglob("*"))
    assert names == sorted(path.relative_to(b) for path in b.rglob("*"))
    assert len(list((a / "images").rglob("*.jpg"))) == 12
    with dvc.api.open("datasets/training-set/card.json", repo=registry, rev=tag) as card:
        assert json.load(card)["images"] == {"train": 6, "val": 3, "test": 3}
    files = DVCFileSystem(registry, rev=tag)
    assert set(files.find("datasets/training-set/images", detail=False)) == {
        f"datasets/training-set/{path.relative_to(a)}" for path in (a / "images").rglob("*.jpg")
    }
    world.params = "seed: 8\n"
    world.add_images(12, 1)
    world.publish()
    into = checkout_on_new_machine(world.registry, tag, tmp_path / "clone")
    assert "in sync" in run_dvc(into, "status", "-c")
    diff = json.loads(run_dvc(into, "params", "diff", "--json", tag, "training-set@v1.1.0"))
    assert diff == {"params.yaml": {"seed": {"old": 7, "new": 8, "diff": 1}}}
    shown = subprocess.run(
        [Path(sys.executable).parent / "gto", "show", "training-set", "-r", registry, "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert {"v1.0.0", "v1.1.0"} == {each["version"] for each in json.loads(shown.stdout)}


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
    git(world.registry, "-c", "core.hooksPath=", "checkout", "-q", "--detach")
    world.add_images(12, 1)
    assert world.publish().version == "1.1.0"
    assert git(world.registry, "rev-parse", "--abbrev-ref", "HEAD") == "HEAD"
    assert git(world.registry, "status", "--porcelain") == before
    assert not git(world.registry, "log", "main", "--format=%s").count("training-set")


def test_a_version_names_its_code_and_what_in_it_was_not_committed(world):
    manifest = world.publish().manifest
    assert (manifest.policy_digest, manifest.rounds) == ("b" * 64, {"round-0001": "a" * 64})
    clean = manifest.code
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
    checkout_on_new_machine(source, published.tag, tmp_path / "clone")


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
        into = checkout_on_new_machine(
            world.registry, first.tag, tmp_path / "clone", environment=access
        )
        assert len(list(into.rglob("*.jpg"))) == 12

        # From a lake in S3, the images never come to this machine to be uploaded.
        s3 = boto3.resource("s3")
        s3.create_bucket(Bucket="lake")
        world.add_images(12, 3)
        for image_file in (world.root / "lake").iterdir():
            s3.Object("lake", f"images/{image_file.name}").put(Body=image_file.read_bytes())
            image_file.unlink()
        second = world.publish(remote="s3://versions/dvc", image_path=in_bucket)
        into = checkout_on_new_machine(
            world.registry, second.tag, tmp_path / "second", environment=access
        )
        assert len(list(into.rglob("*.jpg"))) == 15
        damaged = World(world.root, rows=world.rows[:-1])
        damaged.add_images(20, 1)
        image_id = str(damaged.rows[-1]["image_id"])
        s3.Object("lake", f"images/{image_id}.jpg").put(Body=b"another image")
        md5 = str(damaged.rows[-1]["stored_md5"])
        with pytest.raises(PublishError, match=f"image {image_id}.*had {md5} when it was cleaned"):
            damaged.publish(
                remote="s3://versions/dvc",
                image_path=lambda image, extension: InBucket(
                    f"s3://lake/images/{image}.{extension}",
                    lambda: fetched_from(s3, image, tmp_path),
                ),
            )
        names = {each.key for each in s3.Bucket("versions").objects.all()}
        assert f"dvc/files/md5/{md5[:2]}/{md5[2:]}" not in names
    finally:
        server.stop()


def in_bucket(image_id: str, extension: str) -> InBucket:
    def fetch() -> Path:
        raise AssertionError(f"{image_id} was fetched")

    return InBucket(f"s3://lake/images/{image_id}.{extension}", fetch)


def fetched_from(s3, image_id: str, folder: Path) -> Path:
    s3.Object("lake", f"images/{image_id}.jpg").download_file(str(folder / "fetched"))
    return folder / "fetched"


def test_a_bare_registry_without_dvc_works_too(world, tmp_path):
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", bare], check=True)
    published = world.publish(registry=bare)
    into = checkout_on_new_machine(bare, published.tag, tmp_path / "clone")
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
    # The list of a version's files is not there before all of them are.
    assert not list((world.root / "remote").rglob("*.dir"))
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
        checkout_on_new_machine(world.registry, tag, tmp_path / "clone")


def test_the_lake_stays_writable_and_apart_from_the_remote(world):
    world.publish()
    path = world.root / "lake" / f"{world.rows[0]['image_id']}.jpg"
    assert os.access(path, os.W_OK)
    assert path.stat().st_mode & 0o200
    assert path.stat().st_nlink == 1


def test_what_is_missing_on_the_machine_is_reported_in_one_line(world, monkeypatch, tmp_path):
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


_RACES = int(os.environ.get("ANNOTATION_TEST_RACES", "3"))


def _publish_many(root: Path, registry: Path, first: int, barrier) -> None:
    world = World(root)
    for step in range(_RACES):
        world.add_images(first + step * 2, 2)
        barrier.wait(60)
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
        for first in (1000, 9000)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60 + 10 * _RACES)
        assert worker.exitcode == 0
    versions = assert_whole(world, registry)
    assert len(versions) == len(set(versions)) == 2 * _RACES


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
