"""A checkout brings what differs and nothing else, and DVC finds it as it would have made it."""

import hashlib
import json
import os
import shutil
import subprocess

import pytest

from annotation_platform.errors import PublishError, SettingsError
from annotation_platform.versioning.checkout import checkout_version
from annotation_platform.versioning.registry import list_versions
from tests.commands import run_dvc
from tests.system.worlds import World


def three_versions(root):
    made = World(root)
    made.add_images(0, 12)
    made.publish()
    made.add_images(12, 5)
    made.publish()
    # Of one image the label is gone, and of another the box has moved.
    made.rows[3] |= {"x2": 99.0}
    made.publish()
    return made


@pytest.fixture
def world(tmp_path, monkeypatch, once):
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    return once(three_versions)


@pytest.fixture
def tags(world):
    return [info.tag for info in list_versions(world.registry)]


def content(folder):
    """Every file of a version by its path."""
    root = folder / "datasets" / "training-set"
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def dvc(folder, *arguments):
    environment = {"DVC_SITE_CACHE_DIR": str(folder / ".dvc" / "tmp" / "site")}
    return run_dvc(folder, *arguments, environment=environment)


def pulled(world, tag, folder):
    """What DVC itself brings."""
    subprocess.run(["git", "clone", "--quiet", world.registry, folder], check=True)
    subprocess.run(["git", "-C", folder, "checkout", "--quiet", tag], check=True)
    dvc(folder, "pull")
    return content(folder)


def test_every_version_in_any_order_is_what_dvc_pulls_and_dvc_agrees(world, tags, tmp_path):
    expected = {tag: pulled(world, tag, tmp_path / f"pulled-{tag}") for tag in tags}
    mine = tmp_path / "mine"
    for tag in [*tags, *reversed(tags), tags[2], tags[0]]:
        done = checkout_version(world.registry, tag, mine)
        assert content(mine) == expected[tag]
        assert done.files == len(expected[tag])
        assert "up to date" in dvc(mine, "status", "datasets/training-set.dvc")
    assert done.fetched == 0
    head = subprocess.run(["git", "-C", mine, "describe", "--tags"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert head.stdout.strip() == tags[0]


def test_only_what_differs_is_fetched_and_nothing_the_second_time(world, tags, tmp_path):
    mine = tmp_path / "mine"
    first = checkout_version(world.registry, tags[0], mine)
    assert first.linked == first.files
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in mine.rglob("*.jpg")}
    second = checkout_version(world.registry, tags[1], mine)
    changed = set(content(mine)) - {
        path for path, data in pulled(world, tags[0], tmp_path / "p").items()
        if content(mine).get(path) == data
    }  # fmt: skip
    assert second.linked == len(changed)
    assert second.fetched <= len(changed)
    after = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before}
    assert after == before
    again = checkout_version(world.registry, tags[1], mine)
    assert (again.fetched, again.linked, again.removed) == (0, 0, 0)


def test_what_somebody_changed_is_kept_unless_they_say_otherwise(world, tags, tmp_path):
    mine = tmp_path / "mine"
    checkout_version(world.registry, tags[1], mine)
    root = mine / "datasets" / "training-set"
    label = next(root.glob("labels/train/*.txt"))
    label.unlink()
    label.write_text("mine\n")
    (root / "notes.txt").write_text("mine too\n")
    with pytest.raises(PublishError, match=r"2 files were added or changed.*--force"):
        checkout_version(world.registry, tags[0], mine)
    assert label.read_text() == "mine\n"
    head = subprocess.run(["git", "-C", mine, "describe", "--tags"], capture_output=True, text=True,
                          check=True)  # fmt: skip
    assert head.stdout.strip() == tags[1]
    checkout_version(world.registry, tags[0], mine, force=True)
    assert content(mine) == pulled(world, tags[0], tmp_path / "pulled")


def test_what_was_written_through_a_link_into_the_cache_is_fetched_again(world, tags, tmp_path):
    mine = tmp_path / "mine"
    checkout_version(world.registry, tags[0], mine)
    image = next(mine.rglob("images/*/*.jpg"))
    whole = image.read_bytes()
    image.chmod(0o644)
    with image.open("r+b") as file:
        file.write(b"spoilt")
    done = checkout_version(world.registry, tags[0], mine, force=True)
    assert image.read_bytes() == whole
    assert done.fetched == 1


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_file_that_is_not_whole_in_the_remote_is_never_delivered(world, tags, tmp_path, damage):
    files = (world.root / "remote" / "files" / "md5").glob("*/*")
    spoilt = next(path for path in files if path.stat().st_size == 2000)
    spoilt.chmod(0o644)
    spoilt.unlink() if damage == "missing" else spoilt.write_bytes(b"x" * 2000)
    with pytest.raises(PublishError, match=f"is {damage}.*verify --repair"):
        checkout_version(world.registry, tags[-1], tmp_path / "mine")
    names = [path.name for path in (tmp_path / "mine").rglob("*") if path.is_file()]
    assert not any(name.endswith(".tmp") for name in names)


def test_a_folder_of_something_else_is_left_alone(world, tags, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="Name an empty or a new folder"):
        checkout_version(world.registry, tags[0], tmp_path / "full")
    with pytest.raises(PublishError, match=r"no version 'training-set@v8.0.0'. Published: "):
        checkout_version(world.registry, "training-set@v8.0.0", tmp_path / "mine")
    shutil.rmtree(tmp_path / "mine")


def rewritten(world, tag, change):
    """The pointer to a list of files as somebody would make it who means harm."""
    registry = world.registry
    pointer = subprocess.run(["git", "-C", registry, "show", f"{tag}:datasets/training-set.dvc"],
                             capture_output=True, text=True, check=True).stdout  # fmt: skip
    md5 = next(line.split()[-1] for line in pointer.splitlines() if "md5:" in line)
    objects = world.root / "remote" / "files" / "md5"
    entries = json.loads((objects / md5[:2] / md5[2:]).read_bytes())
    data = json.dumps(change(entries)).encode()
    name = hashlib.md5(data).hexdigest()
    (objects / name[:2]).mkdir(exist_ok=True)
    (objects / name[:2] / f"{name[2:]}.dir").write_bytes(data)
    return pointer.replace(md5, f"{name}.dir")


def commit(world, tag, files, links=()):
    """Tag a version 9.9.9 that is another one with some of its files replaced."""
    place = world.root / "work"
    git = ["git", "-C", place]
    subprocess.run(["git", "clone", "--quiet", world.registry, place], check=True)
    subprocess.run([*git, "checkout", "--quiet", tag], check=True)
    for path, text in files.items():
        (place / path).write_text(text)
    for path, target in links:
        (place / path).parent.mkdir(exist_ok=True)
        (place / path).symlink_to(target)
    subprocess.run([*git, "add", "--force", "--all"], check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "x"], check=True)
    subprocess.run([*git, "tag", "-a", "training-set@v9.9.9", "-m", "x"], check=True)
    subprocess.run([*git, "push", "--quiet", "origin", "training-set@v9.9.9"], check=True)
    return "training-set@v9.9.9"


@pytest.mark.parametrize("path", ["../../../victim.txt", "/{root}/victim.txt", "a/./b", "a//b"])
def test_a_list_of_files_that_leads_out_of_the_folder_is_refused(world, tags, tmp_path, path):
    (tmp_path / "victim.txt").write_text("precious")
    path = path.format(root=tmp_path)

    def change(entries):
        return [{**entries[0], "relpath": path}, *entries[1:]]

    pointer = rewritten(world, tags[0], change)
    evil = commit(world, tags[0], {"datasets/training-set.dvc": pointer})
    for force in (False, True):
        with pytest.raises(PublishError, match="no path inside a version"):
            checkout_version(world.registry, evil, tmp_path / "mine", force=force)
    assert (tmp_path / "victim.txt").read_text() == "precious"


def test_a_pointer_and_links_that_lead_elsewhere_are_refused(world, tags, tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    shown = subprocess.run(
        ["git", "-C", world.registry, "show", f"{tags[0]}:datasets/training-set.dvc"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    away = shown.replace("path: training-set", "path: ../../victim")
    evil = commit(world, tags[0], {"datasets/training-set.dvc": away})
    with pytest.raises(PublishError, match="would land outside"):
        checkout_version(world.registry, evil, tmp_path / "mine", force=True)
    shutil.rmtree(world.root / "work")
    subprocess.run(["git", "-C", world.registry, "tag", "-d", evil], check=True)
    evil = commit(world, tags[0], {}, links=[("datasets/training-set/images", victim)])
    with pytest.raises(PublishError, match="would land outside"):
        checkout_version(world.registry, evil, tmp_path / "other", force=True)
    assert list(victim.iterdir()) == []


def test_a_folder_of_another_registry_is_not_taken_for_this_one(world, tags, tmp_path):
    mine = tmp_path / "mine"
    checkout_version(world.registry, tags[0], mine)
    other = World(tmp_path / "else")
    other.add_images(50, 3)
    other.publish()
    with pytest.raises(SettingsError, match=r"not a checkout of this registry.*set-url"):
        checkout_version(other.registry, tags[0], mine)


def test_an_interrupted_checkout_is_completed_by_the_next_call(world, tags, tmp_path):
    mine = tmp_path / "mine"
    checkout_version(world.registry, tags[0], mine)
    checkout_version(world.registry, tags[1], mine)
    # Killed before it wrote down what it did, with a draft left behind.
    checkout_version(world.registry, tags[0], mine)
    (mine / ".dvc" / "tmp" / "annotation-checkout.json").unlink()
    label = next(mine.rglob("labels/train/*.txt"))
    os.link(label, label.with_name(f".{label.name}.999.tmp"))
    checkout_version(world.registry, tags[1], mine)
    assert content(mine) == pulled(world, tags[1], tmp_path / "pulled")
