"""A registry behind an address: published to by many, read by strangers, over real transports."""

import json
import multiprocessing
import os
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
from typer.testing import CliRunner

from annotation_platform import load
from annotation_platform.cli import app
from annotation_platform.errors import AnnotationPlatformError, PublishError
from annotation_platform.policy import Policy
from annotation_platform.registry_address import is_address, parse_address
from annotation_platform.settings import read_settings, settings_environment
from annotation_platform.versioning.collect import OtherRegistries, collect_garbage
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.mirror import open_registry
from annotation_platform.versioning.registry import (
    checkout_on_new_machine,
    list_versions,
    make_registry,
)
from annotation_platform.versioning.remote import DvcRemote
from annotation_platform.versioning.sharing import recorded_registries
from annotation_platform.versioning.stages import assign_stage, stages_of_versions
from annotation_platform.versioning.verify import verify_versions
from resources.deployments import build_resources
from tests.system.git_servers import SSHD, TOKEN, GitOverHttp, GitOverSsh
from tests.system.worlds import ONTOLOGY, World

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _identity(monkeypatch, tmp_path):
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def world(tmp_path) -> World:
    made = World(tmp_path, params=Policy(ontology=ONTOLOGY).to_yaml())
    made.add_images(0, 8)
    return made


@pytest.fixture
def bare(world, tmp_path) -> Path:
    """What the servers serve: a bare clone of the world's registry, at a path with a blank."""
    folder = tmp_path / "served" / "data sets.git"
    folder.parent.mkdir()
    git(tmp_path, "clone", "--quiet", "--bare", str(world.registry), str(folder))
    git(folder, "config", "http.receivepack", "true")
    return folder


@pytest.fixture
def over_http(bare, tmp_path):
    server = GitOverHttp(bare.parent)
    # Somebody whose git writes down every password that it hears of.
    with (tmp_path / "gitconfig").open("a") as config:
        config.write(f"[credential]\n\thelper = store --file={tmp_path}/credentials\n")
    yield server
    server.stop()


@pytest.fixture
def over_ssh(tmp_path, monkeypatch):
    if SSHD is None:
        pytest.skip("there is no sshd on this machine: install Debian's openssh-server")
    server = GitOverSsh(tmp_path / "sshd")
    try:
        server.start()
        monkeypatch.setenv("GIT_SSH_COMMAND", server.command())
        yield server
    finally:
        server.stop()


@pytest.fixture(params=["file", "http", pytest.param("ssh", marks=pytest.mark.long)])
def served(request, bare):
    """An address of the bare repository, and what a stranger's git needs to get in."""
    if request.param == "file":
        return SimpleNamespace(address=f"file://{bare}", environment={})
    if request.param == "http":
        server = request.getfixturevalue("over_http")
        return SimpleNamespace(address=server.address("data%20sets.git"), environment={})
    server = request.getfixturevalue("over_ssh")
    known = {"GIT_SSH_COMMAND": server.command()}
    return SimpleNamespace(address=server.address(bare), environment=known)


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def line_of(registry: Path) -> list[str]:
    """Return the versions from the first on, after checking that they are one line of commits."""
    versions = list_versions(registry)
    for before, info in zip([None, *versions], versions, strict=False):
        parents = git(registry, "rev-parse", f"{info.commit}^@").split()
        assert parents == [*([before.commit] if before else []), info.manifest.code.commit]
    assert git(registry, "rev-parse", "datasets") == versions[-1].commit
    return [info.version for info in versions]


def assert_no_token_below(folder: Path) -> None:
    for path in folder.rglob("*"):
        assert not (path.is_file() and TOKEN.encode() in path.read_bytes()), path


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def run_json(*arguments: str) -> dict:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, (done.output, done.exception)
    return json.loads(done.stdout.splitlines()[-1])


def test_what_one_home_publishes_another_builds_on_and_strangers_pull(
    served, world, bare, tmp_path, monkeypatch
):
    mine, yours = tmp_path / "mine", tmp_path / "yours"
    first = world.publish(registry=open_registry(served.address, mine))
    world.add_images(8, 2)
    second = world.publish(registry=open_registry(served.address, yours))
    assert (first.version, second.version) == ("1.0.0", "1.1.0")
    assert second.parent == first.commit
    again = world.publish(registry=open_registry(served.address, mine))
    assert (again.version, again.new_version) == ("1.1.0", False)
    assert line_of(bare) == ["1.0.0", "1.1.0"]

    into = checkout_on_new_machine(
        served.address, second.tag, tmp_path / "stranger", environment=served.environment
    )
    assert len(list(into.rglob("*.jpg"))) == 10

    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    run_json(
        "version", "stage", "1.1.0", "production", "--reason", "best", "--registry", served.address
    )
    (commit,) = stages_of_versions(open_registry(served.address, yours))
    assert commit == second.commit
    monkeypatch.setenv("ANNOTATION_REGISTRY", served.address)
    listed = run_json("version", "list")
    assert [each["stages"] for each in listed["versions"]] == ["", "production: best"]
    assert listed["warnings"] == []
    assert run_json("version", "verify", "--all")["whole"] is True
    assert run_json("version", "gc")["removed"] == []
    assert run_json("policy", "guidelines") == {"guidelines": []}
    assert (
        run_json("version", "checkout", "1.0.0", str(tmp_path / "out"))["files"]
        == first.manifest.folder_files
    )
    loaded = load(first.tag, registry=served.address)
    assert loaded.labels["image_id"].nunique() == 8
    run_json("version", "export", "1.1.0", "--format", "csv", "--out", str(tmp_path / "csv"))
    # The stranger's own git keeps the address that it was given.
    shutil.rmtree(tmp_path / "stranger")
    assert_no_token_below(tmp_path)
    assert TOKEN not in repr(loaded)


def _publish_many(root: Path, address: str, mirrors: Path, first: int, barrier) -> None:
    world = World(root)
    for step in range(3):
        world.add_images(first + step * 10, 2)
        barrier.wait(60)
        world.publish(registry=open_registry(address, mirrors))


def test_two_homes_that_publish_at_once_make_one_line_of_versions(served, world, bare, tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [
        context.Process(
            target=_publish_many,
            args=(world.root, served.address, tmp_path / f"home{first}", first, barrier),
        )
        for first in (100, 200)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    versions = line_of(bare)
    assert len(versions) == len(set(versions)) == 6
    assert verify_versions(bare, DvcRemote(str(world.root / "remote"))).problems == ()


def test_who_comes_second_builds_on_what_the_first_pushed(world, bare, tmp_path):
    # Both looked before either published.
    mine = open_registry(f"file://{bare}", tmp_path / "mine")
    yours = open_registry(f"file://{bare}", tmp_path / "yours")
    first = world.publish(registry=mine)
    assign_stage(mine, first.tag, "staging", reason="mine", now=NOW)
    world.add_images(8, 2)
    second = world.publish(registry=yours)
    assert (second.version, second.parent) == ("1.1.0", first.commit)
    # So it is with the numbers of stages.
    assign_stage(mine, first.tag, "staging", reason="again", now=NOW)
    assign_stage(yours, first.tag, "staging", reason="yours", now=NOW)
    assert sorted(Git(bare).tags("*#*")) == [f"training-set#staging#{n}" for n in (1, 2, 3)]
    assert line_of(bare) == ["1.0.0", "1.1.0"]


def test_what_was_left_half_done_here_or_there_is_mended(world, bare, tmp_path):
    address = f"file://{bare}"
    first = world.publish(registry=open_registry(address, tmp_path / "home"))
    git(bare, "tag", "-d", first.tag)
    (mirror,) = (tmp_path / "home").iterdir()
    # Of a git that was killed as it fetched.
    locks = [mirror / "packed-refs.lock", mirror / "refs" / "heads" / "datasets.lock"]
    for lock in locks:
        lock.touch()
        os.utime(lock, (0, 0))
    registry = open_registry(address, tmp_path / "home")
    assert list_versions(registry) == []
    again = world.publish(registry=registry)
    assert (again.commit, again.new_version) == (first.commit, False)
    assert line_of(bare) == ["1.0.0"]
    # The mirror is a copy, and nothing is lost with it.
    shutil.rmtree(tmp_path / "home")
    assert world.publish(registry=open_registry(address, tmp_path / "home")) == again


def test_nothing_is_published_where_branch_or_tag_may_not_be_pushed(world, bare, over_http):
    registry = open_registry(over_http.address("data%20sets.git"), world.root / "home")
    hook = bare / "hooks" / "update"
    hook.write_text('#!/bin/sh\ncase "$1" in refs/tags/*) echo "no tags here" >&2; exit 1;; esac\n')
    hook.chmod(0o755)
    with pytest.raises(PublishError, match=r"push failed.*Request permission to push refs/heads/d"):
        world.publish(registry=registry)
    assert git(bare, "for-each-ref", "--format=%(refname)") == "refs/heads/main"
    hook.unlink()
    over_http.may_push = False
    with pytest.raises(PublishError, match=r"access to the registry is denied .*403"):
        world.publish(registry=registry)
    over_http.may_push = True
    assert world.publish(registry=registry).version == "1.0.0"
    # A tag that somebody else set under the name of the next version is not moved.
    git(bare, "tag", "training-set@v1.1.0", "main")
    world.add_images(8, 1)
    with pytest.raises(PublishError, match=r"tag training-set@v1.1.0 names .*Move or delete"):
        world.publish(registry=registry)


def test_a_response_that_was_lost_on_the_way_is_no_failure(world, bare, over_http):
    registry = open_registry(over_http.address("data%20sets.git"), world.root / "home")
    over_http.lose_next_response = True
    published = world.publish(registry=registry)
    assert not over_http.lose_next_response
    assert (published.version, published.new_version) == ("1.0.0", True)
    assert line_of(bare) == ["1.0.0"]


def _publish_once(root: Path, address: str, mirrors: Path, pid: Path) -> None:
    world = World(root)
    world.add_images(0, 9)
    pid.write_text(str(os.getpid()))
    world.publish(registry=open_registry(address, mirrors))


def test_a_publisher_killed_right_after_the_push_is_completed_by_the_next(world, bare, tmp_path):
    pid = tmp_path / "pid"
    hook = bare / "hooks" / "post-receive"
    hook.write_text(f"#!/bin/sh\nkill -9 $(cat {pid})\n")
    hook.chmod(0o755)
    address, home = f"file://{bare}", tmp_path / "home"
    context = multiprocessing.get_context("fork")
    worker = context.Process(target=_publish_once, args=(world.root, address, home, pid))
    worker.start()
    worker.join(60)
    assert worker.exitcode == -9
    hook.unlink()
    (mirror,) = home.iterdir()
    assert line_of(bare) == ["1.0.0"]
    assert git(mirror, "for-each-ref", "refs/tags") == ""
    remote = DvcRemote(str(world.root / "remote"))
    assert [note.commit for note in recorded_registries(remote)] == [""]

    again = World(world.root)
    again.add_images(0, 9)
    done = again.publish(registry=open_registry(address, home))
    assert (done.version, done.new_version) == ("1.0.0", False)
    assert git(mirror, "rev-parse", "datasets") == git(bare, "rev-parse", "datasets")
    assert [note.commit for note in recorded_registries(remote)] == [done.commit]


def test_what_is_wrong_with_an_address_is_reported_in_one_line_without_its_token(
    over_http, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    good = over_http.address("data%20sets.git")
    cases = {
        over_http.address("data%20sets.git", f"robot:not-{TOKEN}@"): "access .* is denied",
        over_http.address("data%20sets.git", f"{TOKEN}@"): "access .* is denied",
        over_http.address("data%20sets.git", ""): "access .* is denied",
        over_http.address("elsewhere.git"): "no git repository is there",
        f"http://robot:{TOKEN}@127.0.0.1:1/x.git": "cannot be reached",
        f"http://robot:{TOKEN}@no-such-host.invalid/x.git": "cannot be reached",
        f"file://{tmp_path}/nothing.git": "no git repository is there",
    }
    for address, expected in cases.items():
        out = str(tmp_path / "out")
        for command in (
            ["version", "list"],
            ["version", "verify"],
            ["version", "stage", "1.0.0", "production", "--reason", "x"],
            ["version", "gc"],
            ["version", "checkout", "1.0.0", out],
            ["version", "export", "1.0.0", "--format", "coco", "--out", out],
        ):
            done = run(*command, "--registry", address)
            assert isinstance(done.exception, AnnotationPlatformError), (command, done.exception)
            message = str(done.exception)
            assert "\n" not in message
            assert TOKEN not in message + done.output
            assert re.search(expected, message), (command, message)
    monkeypatch.setenv("ANNOTATION_REGISTRY", good)
    assert run_json("version", "list")["versions"] == []
    assert_no_token_below(tmp_path / "home")


@pytest.mark.long
def test_ssh_says_who_is_not_let_in_and_where_nothing_is(over_ssh, bare, tmp_path, monkeypatch):
    with pytest.raises(PublishError, match="no git repository is there"):
        open_registry(over_ssh.address(tmp_path / "nothing.git"), tmp_path / "home")
    with pytest.raises(PublishError, match=r"cannot be reached \(.*Connection refused"):
        open_registry("ssh://127.0.0.1:1/x.git", tmp_path / "home")
    monkeypatch.setenv("GIT_SSH_COMMAND", over_ssh.command("stranger"))
    with pytest.raises(PublishError, match=r"access .* is denied \(.*Permission denied"):
        open_registry(over_ssh.address(bare), tmp_path / "home")


def test_versions_are_listed_as_last_seen_while_the_registry_gives_no_response(
    world, bare, tmp_path, monkeypatch
):
    server = GitOverHttp(bare.parent)
    address = server.address("data%20sets.git")
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANNOTATION_REGISTRY", address)
    monkeypatch.setenv("ANNOTATION_REMOTE", str(world.root / "remote"))
    mirrors = tmp_path / "home" / "cache" / "registries"
    world.publish(registry=open_registry(address, mirrors))
    server.stop()
    listed = run_json("version", "list")
    assert [each["version"] for each in listed["versions"]] == ["1.0.0"]
    (warning,) = listed["warnings"]
    assert "cannot be reached" in warning
    assert "The output shows the registry as of 20" in warning
    assert TOKEN not in warning
    # Whatever writes, or judges what is there, does not go by what was.
    for command in (
        ["version", "verify"],
        ["version", "gc"],
        ["version", "stage", "1.0.0", "production", "--reason", "x"],
    ):
        assert "cannot be reached" in str(run(*command).exception)
    with pytest.raises(PublishError, match="cannot be reached"):
        open_registry(address, mirrors)


def test_gc_through_a_mirror_knows_what_others_published_meanwhile(world, bare, tmp_path):
    address = f"file://{bare}"
    world.publish(registry=open_registry(address, tmp_path / "mine"))
    mine = open_registry(address, tmp_path / "mine")
    world.add_images(8, 2)
    second = world.publish(registry=open_registry(address, tmp_path / "yours"))
    remote = DvcRemote(str(world.root / "remote"))
    later = datetime.now(UTC) + timedelta(days=3)
    found = collect_garbage(mine, remote, expected=(), now=later, dry_run=False)
    assert (found.versions, found.removed) == (2, ())
    checkout_on_new_machine(address, second.tag, tmp_path / "stranger")


def test_gc_leaves_what_another_registry_of_the_same_remote_needs(world, tmp_path):
    world.publish()
    shared = world.root / "remote"
    other = World(tmp_path / "other")
    make_registry(other.registry, other.root / "source", "seed: 7\n", remote_url=str(shared))
    other.add_images(50, 4)
    theirs = other.publish(remote=shared)
    remote = DvcRemote(str(shared))
    later = datetime.now(UTC) + timedelta(days=3)

    def gc(*, dry_run=False, **more):
        others = OtherRegistries(**more)
        return collect_garbage(
            world.registry, remote, expected=(), now=later, dry_run=dry_run, others=others
        )

    orphan = shared / "files" / "md5" / "ab" / ("0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"of a publisher that was killed")
    assert gc().removed == ("ab" + "0" * 30,)
    checkout_on_new_machine(other.registry, theirs.tag, tmp_path / "stranger")

    # The same registry by another name is no other one, and needs not be there.
    name = tmp_path / "copy.git"
    git(tmp_path, "clone", "--quiet", "--mirror", str(world.registry), str(name))
    world.publish(registry=name)
    assert len(recorded_registries(remote)) == 3
    shutil.rmtree(name)
    assert gc().removed == ()

    moved = tmp_path / "moved"
    other.registry.rename(moved)
    with pytest.raises(PublishError, match=r"other/registry on .* there too.*--deleted-registry"):
        gc()
    # Another registry at the same path is not the one that published.
    make_registry(other.registry, other.root / "source", "seed: 7\n", remote_url=str(shared))
    with pytest.raises(PublishError, match=rf"it no longer has the commit {theirs.commit[:12]}"):
        gc()
    assert gc(at_hand=[Git(moved)]).removed == ()
    with pytest.raises(
        PublishError, match=r"'nobody' is not recorded there. Recorded: .*other/reg"
    ):
        gc(deleted=["nobody"])
    # On another machine there may be another one under the same path.
    (noted,) = (
        each for each in recorded_registries(remote) if each.registry == str(other.registry)
    )
    elsewhere = replace(noted, host="elsewhere")
    remote.write_record(elsewhere.name, json.dumps(asdict(elsewhere)).encode())
    with pytest.raises(PublishError, match=r"is on several machines. Recorded: .* on elsewhere'"):
        gc(deleted=[str(other.registry)])
    # A dry run deletes no record.
    notes = recorded_registries(remote)
    dry = gc(deleted=[noted.shown, elsewhere.shown], dry_run=True)
    assert theirs.folder_md5 in dry.removed
    assert recorded_registries(remote) == notes
    assert theirs.folder_md5 in gc(deleted=[noted.shown, elsewhere.shown]).removed
    assert not {noted, elsewhere} & set(recorded_registries(remote))
    assert verify_versions(world.registry, remote).problems == ()


def test_the_platform_publishes_to_an_address_and_shows_it_without_its_token(
    over_http, world, bare, tmp_path, monkeypatch
):
    address = over_http.address("data%20sets.git")
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ANNOTATION_REGISTRY", address)
    settings = read_settings()
    resource = build_resources(settings)["versions"]
    # What the Dagster UI shows of a resource, and what any message or table may hold.
    assert TOKEN not in repr(resource) + str(resource.model_dump()) + repr(settings)
    with dg.build_resources({"versions": resource}) as opened:
        store = opened.versions
        assert TOKEN not in repr(store) + store.shown
        world.publish(registry=store.open())
    assert line_of(bare) == ["1.0.0"]
    # The servers that `make up` start` get the same address.
    assert settings_environment(settings)["ANNOTATION_REGISTRY"] == address


@pytest.mark.parametrize(
    ("written", "url", "user", "password"),
    [
        ("https://me:p%40ss@host:8443/a.git", "https://host:8443/a.git", "me", "p@ss"),
        ("https://t0ken@host/a.git", "https://host/a.git", "t0ken", ""),
        ("ssh://git@host:22/a.git", "ssh://git@host:22/a.git", "", ""),
        ("ssh://git:secret@host/a.git", "ssh://git@host/a.git", "", ""),
        ("git@host:team/a.git", "git@host:team/a.git", "", ""),
        ("file:///srv/a.git", "file:///srv/a.git", "", ""),
    ],
)
def test_the_secret_of_an_address_is_apart_from_what_is_shown(written, url, user, password):
    address = parse_address(written)
    assert is_address(written)
    assert (address.url, address.user, address.password) == (url, user, password)
    assert not password or password not in repr(address)


@pytest.mark.parametrize("path", ["registry", "/srv/a:b/registry", "./a:b", "~/registry"])
def test_a_path_is_no_address(path):
    assert not is_address(path)
