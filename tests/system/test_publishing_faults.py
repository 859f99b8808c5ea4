"""Publishing is stopped at each of its steps, by a kill and by a full disk, and completed after.

A step is whatever changes a file or starts a program: Python's audit events tell of each, in the
very code that publishes. ``ANNOTATION_TEST_EVERY_STEP=1`` stops at all of them, one after the
other; without it, at some that lie evenly between the first and the last.
"""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from annotation_platform.errors import AnnotationPlatformError, SettingsError
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.manifest import BRANCH, MANIFEST_PATH, Manifest
from annotation_platform.versioning.registry import list_versions, open_remote
from annotation_platform.versioning.verify import verify_versions
from tests.system.test_versions import assert_whole
from tests.system.worlds import World

pytestmark = pytest.mark.long

_FILES = {"os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate"}
# A kill comes before a program is started, too; a full disk is met by files alone.
_STEPS = {"kill": {*_FILES, "subprocess.Popen"}, "disk full": _FILES - {"os.remove", "os.rmdir"}}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


class Steps:
    """Counts the steps of this process from now on, and stops it at one of them."""

    def __init__(self, stop_at: int, how: str) -> None:
        self.count = 0
        self._stop_at = stop_at
        self._how = how
        sys.addaudithook(self._saw)

    def _saw(self, event: str, arguments: tuple[object, ...]) -> None:
        is_file = event == "open" and not isinstance(arguments[0], int)
        if not (is_file and arguments[2] & _WRITES) and event not in _STEPS[self._how]:
            return
        self.count += 1
        if self.count != self._stop_at:
            return
        if self._how == "kill":
            os.killpg(os.getpgrp(), signal.SIGKILL)
        raise OSError(errno.ENOSPC, "No space left on device", str(arguments[0]))


def _publish(root: Path, stop_at: int, how: str, outcome: Connection) -> None:
    os.setsid()
    world = World(root)
    world.add_images(0, 3)
    steps = Steps(stop_at, how)
    try:
        world.publish()
    except AnnotationPlatformError as error:
        outcome.send(("refused", str(error)))
    except BaseException as error:  # noqa: BLE001  the test says what came
        outcome.send(("raised", "".join(traceback.format_exception(error))))
    else:
        outcome.send(("published", str(steps.count)))


def publish_apart(root: Path, stop_at: int, how: str) -> tuple[str, str]:
    """Publish in another process; return what came of it: ``killed`` if it could not say."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_publish, args=(root, stop_at, how, theirs))
    worker.start()
    theirs.close()
    try:
        outcome: tuple[str, str] = ours.recv()
    except EOFError:
        outcome = ("killed", "")
    worker.join()
    return outcome


def stored(root: Path) -> dict[str, tuple[int, int]]:
    """Return inode and time of writing of each object in the remote."""
    found = (root / "remote" / "files" / "md5").glob("??/*")
    stats = {path.parent.name + path.name: path.stat() for path in found}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


@pytest.mark.parametrize("how", ["kill", "disk full"])
def test_publishing_stopped_at_any_step_is_completed_by_the_next(tmp_path, how):
    first = World(tmp_path / "count")
    first.add_images(0, 2)
    first.publish()
    outcome, count = publish_apart(tmp_path / "count", 0, how)
    assert outcome == "published"
    steps = range(1, int(count) + 1)
    assert len(steps) > 30
    if not os.environ.get("ANNOTATION_TEST_EVERY_STEP"):
        steps = steps[:: len(steps) // 12]
    seen = set()
    for step in steps:
        root = tmp_path / f"{step:04}"
        world = World(root)
        world.add_images(0, 2)
        world.publish()
        outcome, why = publish_apart(root, step, how)
        where = f"step {step} of {count}: {outcome}: {why}"
        seen.add(outcome)
        assert outcome != "raised", where
        if outcome == "refused":
            assert "disk full" in why, where
            assert "run again" in why, where
        # Readers see the old version or the new one, and each is whole.
        before = assert_whole(world)
        assert before in (["1.0.0"], ["1.0.0", "1.1.0"]), where
        remote = open_remote(world.registry, str(root / "remote"))
        found = verify_versions(world.registry, remote)
        assert not found.problems, where
        there = stored(root)
        if before == ["1.0.0"]:
            assert set(found.orphans) == there.keys() - named_by(world, remote), where
        # The next one completes it, and writes nothing again that was whole.
        world.add_images(2, 1)
        published = world.publish()
        assert (published.version, assert_whole(world)) == ("1.1.0", ["1.0.0", "1.1.0"]), where
        now = stored(root)
        assert {name: now[name] for name in there} == there, where
        # What a kill left half written is named too; gc takes it away.
        left = verify_versions(world.registry, remote).orphans
        assert all(name.endswith(".tmp") for name in left), where
    # What only tidies up may fail without harm.
    assert seen - {"published"} == {"killed" if how == "kill" else "refused"}


def named_by(world: World, remote) -> set[str]:
    """Return the objects that the versions name; the last may lack its tag yet."""
    git = Git(world.registry)
    commits = {BRANCH, *(info.commit for info in list_versions(world.registry))}
    texts = [git.read(commit, MANIFEST_PATH) for commit in commits]
    manifests = [Manifest.from_json(text, where="") for text in texts]
    folders = [remote.read_folder(manifest.folder_md5) for manifest in manifests]
    return {
        *(manifest.folder_md5 for manifest in manifests),
        *(md5 for files in folders for md5 in files.values()),
    }


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a disk of its own, and what mounts it anew with other options."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)

    try:
        mount("size=100k")
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("only root may mount a disk of its own")
    try:
        yield place, lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("what", ["remote", "registry"])
def test_a_full_or_read_only_disk_is_named_and_nothing_is_lost(tmp_path, small_disk, what):
    disk, mount_anew = small_disk
    mount_anew("size=10m")
    (tmp_path / "world").mkdir()
    world = World(tmp_path / "world")
    if what == "registry":
        shutil.copytree(world.registry, disk, dirs_exist_ok=True, symlinks=True)
        shutil.rmtree(world.registry)
    (tmp_path / "world" / what).symlink_to(disk)
    world.add_images(0, 3)
    world.publish()
    world.add_images(3, 60)
    used = shutil.disk_usage(disk).used
    mount_anew(f"size={used + 4096}")
    with pytest.raises(SettingsError, match=f"disk full at .*{what}.*run again"):
        world.publish()
    assert assert_whole(world) == ["1.0.0"]
    mount_anew("size=10m,ro")
    with pytest.raises(AnnotationPlatformError, match=f"{what}.*[Rr]ead-only.*run again"):
        world.publish()
    assert assert_whole(world) == ["1.0.0"]
    mount_anew("rw")
    assert world.publish().version == "1.1.0"
    assert assert_whole(world) == ["1.0.0", "1.1.0"]
