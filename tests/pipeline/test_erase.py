"""Images are erased everywhere, versions stay readable, and erased images are refused."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import boto3
import dagster as dg
import numpy as np
import pytest
from PIL import Image

from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.governance.erasure.erase import begin, finish, plan_erasure
from annotation_platform.governance.erasure.locations import Locations
from annotation_platform.governance.erasure.plan import read_plan
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.provenance.diff import diff_versions
from annotation_platform.provenance.explain import explain_image
from annotation_platform.provenance.rebuilding.rebuild import rebuild_version
from annotation_platform.schema.tables import Annotations, CleanedImages, DatasetVersions, RawImages
from annotation_platform.settings import settings_environment
from annotation_platform.storage.erasures import Erasures
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.registry import checkout_on_new_machine, list_versions
from annotation_platform.versioning.stages import assign_stage, stages_of_versions
from resources.event_images import clear_events
from tests.pipeline.conftest import open_platform

ONE, TWO, THREE = "round-0001", "round-0002", "round-0003"


def quiet(_step):
    return lambda _done, _total: None


class Story:
    def __init__(self, platform):
        self.platform, self.lake = platform, platform.lake

    @property
    def places(self):
        settings = self.platform.settings
        return Locations(
            lake=self.lake,
            registry=Git(settings.registry_path),
            remote_url=settings.remote_url,
            labeling=self.platform.labeling,
            models=ModelRegistry(settings.models_path).cards(),
            home=settings.home_path,
            reach=lambda place: Git(Path(place)),
            events=lambda images: clear_events(self.platform.instance, images),
        )

    def play(self, round_id, batch):
        self.platform.land(batch)
        self.platform.start_round(round_id)
        self.platform.annotate(round_id)
        assert self.platform.release(round_id, self.platform.run("merge_round", round_id)).success
        return str(self.lake.tables.read(DatasetVersions, round_id).iloc[0]["tag"])

    def erase(self, image, progress_of=quiet):
        found, expected = plan_erasure("image", image, self.places, self.platform.policy)
        begin(image, found, expected, self.places, self.platform.policy, reason="asked to", by="me")
        return found, finish(self.places, progress_of=progress_of)


@pytest.fixture
def story(tmp_path):
    with open_platform(tmp_path / "home") as platform:
        platform.change_policy(review={"gate": "auto"}, labeling={"annotations_per_task": 3})
        yield Story(platform)


def small(path):
    """Return a small normalized image, or None if the file is not one."""
    try:
        with Image.open(path) as image_file:
            square = np.asarray(image_file.convert("L").resize((16, 16)), dtype=float)
    except (OSError, ValueError, SyntaxError):
        return None
    return (square - square.mean()) / max(square.std(), 1.0)


def left_of(home, image_files):
    """Return the files of a home with the bytes or the content of one of these images."""
    digests = {hashlib.sha256(path.read_bytes()).hexdigest() for path in image_files}
    shown = [small(path) for path in image_files]
    found = []
    for path in home.rglob("*"):
        if not path.is_file():
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() in digests:
            found.append(path)
        there = small(path)
        if there is not None and any(np.abs(there - each).mean() < 0.1 for each in shown):
            found.append(path)
    return found


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_an_image_goes_from_everywhere_and_versions_stay_whole(story, tmp_path):
    platform, home = story.platform, story.platform.settings.home_path
    tags = [story.play(ONE, 1)]
    # Later rounds have predictions, and tables that name them.
    assert platform.run("train_model", ONE).success
    tags.append(story.play(TWO, 2))
    registry = Git(platform.settings.registry_path)
    assign_stage(registry, tags[0], "production", reason="good", now=datetime.now(UTC))
    before = {tag: platform.state(tag) for tag in tags}
    labels_before = {tag: state.labels for tag, state in before.items()}
    commits = {info.tag: info.commit for info in list_versions(registry)}
    first = labels_before[tags[0]]
    image = str(first.loc[first["split"] == "train", "image_id"].iloc[0])
    kept = tmp_path / "kept"
    kept.mkdir()

    found, expected = plan_erasure("image", image, story.places, platform.policy)
    assert expected.versions == dict.fromkeys(tags, len(set(first["image_id"]) & found.images))
    for number, each in enumerate(sorted(found.images)):
        (kept / str(number)).write_bytes(story.lake.store.get(f"raw/{each[:2]}/{each}"))
    image_files = sorted(kept.iterdir())
    assert left_of(home, image_files)

    # A version that is pulled in the registry leaves its files in DVC's cache there.
    cache = platform.settings.registry_path / ".dvc" / "cache" / "files"
    shutil.copytree(Path(platform.settings.remote_url) / "files", cache, dirs_exist_ok=True)
    cached = {path for path in cache.rglob("*") if path.is_file()}
    lake_before = contents(home / "lake")
    planted = home / "planted.jpg"

    def planting(step):
        if step.startswith("searching") and not planted.exists():
            shutil.copy(image_files[0], planted)
        return quiet(step)

    with pytest.raises(DataError, match=r"planted\.jpg has its bytes"):
        story.erase(image, progress_of=planting)
    planted.unlink()
    result = finish(story.places, progress_of=quiet)
    lake_after = contents(home / "lake")
    changed = {key for key, _ in lake_before.items() ^ lake_after.items()}
    ours = {key for key in changed if not key.startswith(("audit/", "erasures/"))}
    assert set(expected.lake) == ours
    assert [sha for sha, _ in result.models] == list(story.places.models)
    assert result.versions == expected.versions
    assert left_of(home, image_files) == []
    assert cached > {path for path in cache.rglob("*") if path.is_file()} > set()
    assert set(result.scanned.stores) >= {"lake", "landing zone", "labelling", "home"}
    assert f"remote {platform.settings.remote_url}" in result.scanned.stores
    private = [path for path in (home / "lake" / "ledger").rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}

    # Versions: the same tags on other commits, readable by strangers, without the image alone.
    versions = {info.tag: info for info in list_versions(registry)}
    assert list(versions) == tags
    for tag in tags:
        assert versions[tag].commit != commits[tag]
        assert [each.images for each in versions[tag].manifest.erased] == [result.versions[tag]]
        now = platform.state(tag).labels
        was = labels_before[tag]
        stays = was[~was["image_id"].isin(found.images)].reset_index(drop=True)
        columns = [name for name in was.columns if name != "group_id"]
        assert stays[columns].equals(now[columns])
        rebuilt = rebuild_version(platform.settings, registry, tag)
        assert rebuilt.same, rebuilt.differences
    assert [each.name for each in stages_of_versions(registry)[versions[tags[0]].commit]] == [
        "production"
    ]
    out = checkout_on_new_machine(platform.settings.registry_path, tags[1], tmp_path / "clone")
    files = {path.stem for path in (out / "datasets" / "training-set").rglob("images/*/*")}
    assert files == set(labels_before[tags[1]]["image_id"]) - found.images
    for each in platform.state(tags[1]).labels["image_id"].unique():
        assert explain_image(platform.state(tags[1]), str(each)).labels
    found_diff = diff_versions(*(platform.state(tag) for tag in tags))
    assert not set(found_diff.changes["image_id"]) & found.images

    # It is refused from now on, and rounds go on.
    landing = platform.settings.landing_path / "batch-9"
    landing.mkdir()
    for path in image_files:
        shutil.copy(path, landing / f"{path.name}.jpg")
    story.play(THREE, 3)
    raw = story.lake.tables.read(RawImages, THREE)
    refused = raw[raw["source_key"].str.startswith("batch-9/")]
    assert refused["image_id"].isna().all()
    assert refused["problem"].str.contains("asked to").all()
    shutil.rmtree(landing)
    assert left_of(home, image_files) == []
    assert Erasures(story.lake.store).find(image).sentence.endswith("asked to")
    assert image not in json.dumps([each.names for each in Erasures(story.lake.store).read()])
    assert Path(platform.settings.home_path).exists()


SHOWN = re.compile(r"!\[images with their boxes: ([^\]]*)\]\(data:image/jpeg;base64,([^)]*)\)")

KILLER = """
import os, random, signal, sys
left = int(sys.argv.pop(1))
def hook(event, args):
    global left
    if event in {"os.rename", "os.remove", "os.link", "subprocess.Popen"}:
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
from annotation_platform.cli import main
main()
"""


def command(story, *arguments, kill_at=0):
    """Run a command of the platform in a process of its own, killed at that many writes."""
    ended = subprocess.run(
        [sys.executable, "-c", KILLER, str(kill_at), *arguments],
        env=settings_environment(story.platform.settings),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
    return ended


@pytest.mark.long
def test_an_erasure_that_is_killed_again_and_again_is_finished(story, tmp_path):
    platform = story.platform
    tags = [story.play(ONE, 1), story.play(TWO, 2)]
    labels = platform.state(tags[1]).labels
    image = str(labels["image_id"].iloc[-1])
    dry_run = json.loads(command(story, "image", "erase", image, "--json").stdout)
    assert not dry_run["erased"]
    assert tags[1] in dry_run["versions"]
    assert platform.state(tags[1]).labels.equals(labels)
    image_file = tmp_path / "kept"
    image_file.write_bytes(story.lake.store.get(f"raw/{image[:2]}/{image}"))

    before = contents(platform.settings.lake_path).keys()

    # Nothing happens before the plan is stored; afterwards every run leaves fewer steps.
    kills, at = 0, 0
    while read_plan(story.lake.store) is None:
        at += 2
        ended = command(story, "image", "erase", image, "--reason", "asked to", "--yes", kill_at=at)
        if read_plan(story.lake.store) is None:
            there = contents(platform.settings.lake_path).keys()
            assert {key for key in there if "/." not in key} == before
    while ended.returncode:
        kills += 1
        assert list_versions(platform.settings.registry_path)[-1].tag == tags[1]
        state = platform.state(tags[1])
        assert set(labels["image_id"]) - set(state.labels["image_id"]) <= set(dry_run["images"])
        ended = command(story, "image", "erase", "--finish", kill_at=3 + 4 * kills)
    assert kills > 8
    assert left_of(platform.settings.home_path, [image_file]) == []
    for tag in tags:
        rebuilt = rebuild_version(platform.settings, platform.settings.registry_path, tag)
        assert rebuilt.same, rebuilt.differences
    assert "There is no interrupted erasure" in subprocess.run(
        [sys.executable, "-m", "annotation_platform.cli", "image", "erase", "--finish"],
        env=settings_environment(platform.settings), capture_output=True, text=True, check=False,
    ).stderr  # fmt: skip
    assert json.loads(command(story, "audit", "verify", "--json").stdout)["whole"]
    assert json.loads(command(story, "version", "verify", "--all", "--json").stdout)


def test_a_version_without_images_is_withdrawn_with_its_stages(story):
    platform = story.platform
    tag = story.play(ONE, 1)
    registry = Git(platform.settings.registry_path)
    assign_stage(registry, tag, "production", reason="good", now=datetime.now(UTC))
    found, expected = plan_erasure("source", "batch-1", story.places, platform.policy)
    assert len(expected.landed) == len(list((platform.settings.landing_path / "batch-1").iterdir()))
    begin("batch-1", found, expected, story.places, platform.policy, reason="no consent", by="me")
    with pytest.raises(NotReadyError, match="in progress"):
        platform.run("release_round", ONE)
    result = finish(story.places, progress_of=quiet)
    assert result.withdrawn == (tag,)
    assert not registry.tags("*")
    assert not list((platform.settings.landing_path / "batch-1").iterdir())
    with pytest.raises(DataError, match="nothing landed from it"):
        plan_erasure("source", "batch-1", story.places, platform.policy)
    # A new version is published.
    again = story.play(TWO, 2)
    assert [info.tag for info in list_versions(registry)] == [again]


def test_only_previews_of_erased_images_leave_the_pages_of_the_ui(story, tmp_path):
    platform = story.platform
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        platform.instance = instance
        platform.land(1)
        platform.start_round(ONE)
        shown = images_on_pages(instance)
        names, image_file = next(iter(shown.items()))
        # A database splits it into pages, and many JPEG files begin with the same bytes.
        pieces = {image_file[at : at + 40].encode() for at in range(2000, len(image_file) - 40, 40)}
        assert pieces_in(tmp_path / "dagster", pieces)
        others = {key: value for key, value in shown.items() if names[:12] not in key}
        assert others

        images = frozenset(
            image
            for image in story.lake.tables.read(CleanedImages, ONE)["image_id"].dropna()
            if image.startswith(names[:12])
        )
        assert clear_events(instance, images)
        assert clear_events(instance, images) == 0
        assert images_on_pages(instance) == others
    assert not pieces_in(tmp_path / "dagster", pieces)


def pieces_in(folder, pieces):
    files = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {each for each in pieces for data in files if each in data}


def images_on_pages(instance):
    """Return the stored previews of materializations, by the image ids in their captions."""
    found = {}
    for asset in ("raw_images", "cleaned_images", "label_tasks", "selected_images"):
        for each in instance.fetch_materializations(dg.AssetKey(asset), limit=5).records:
            for value in each.asset_materialization.metadata.values():
                text = str(value.value)
                for names, image_file in re.findall(
                    r"!\[images with their boxes: ([^\]]*)\]\(data:image/jpeg;base64,([^)]*)\)",
                    text,
                ):
                    found[names] = image_file
    return found


@pytest.mark.long
def test_the_identity_of_an_annotator_is_erased_and_the_votes_stay(story):
    platform, home = story.platform, story.platform.settings.home_path
    tags = [story.play(ONE, 1), story.play(TWO, 2)]
    person = platform.people[1].name
    was = pseudonym_of(story.lake.store, person)
    labels = {tag: platform.state(tag).labels for tag in tags}
    before = story.lake.tables.read_all(Annotations)
    votes = before.loc[before["annotator"] == was, "annotation_id"]
    assert len(votes) > 3
    dry_run = json.loads(command(story, "image", "erase", "--annotator", person, "--json").stdout)
    assert dry_run["pseudonym"] == was
    before = contents(home / "lake")
    result = json.loads(
        command(
            story, "image", "erase", "--annotator", was, "--reason", "left us", "--yes", "--json"
        ).stdout
    )
    changed = {key for key, _ in before.items() ^ contents(home / "lake").items()}
    ours = {key for key in changed if not key.startswith("audit/")}
    # New keys depend on the drawn name, which a dry run does not have.
    assert {key for key in ours if key in before} == {
        key for key in dry_run["lake"] if key in before
    }

    for tag in tags:
        assert platform.state(tag).labels.equals(labels[tag])
        assert rebuild_version(platform.settings, platform.settings.registry_path, tag).same
    now = story.lake.tables.read_all(Annotations)
    assert set(now.loc[now["annotator"] == result["pseudonym"], "annotation_id"]) == set(votes)
    left = [key for key in story.lake.store.list("") if not key.startswith("audit/")]
    for key in left:
        data = story.lake.store.get(key)
        assert f'"{person}"'.encode() not in data, key
        assert was.encode() not in data, key
    assert person not in platform.labeling.annotators()
    # The next round does not bring it back.
    story.play(THREE, 3)
    again = story.lake.tables.read_all(Annotations)
    assert was not in set(again["annotator"])
    assert json.loads(command(story, "audit", "verify", "--json").stdout)["whole"]


@pytest.mark.long
def test_a_bucket_keeps_no_version_of_what_was_erased(tmp_path, s3_bucket):
    s3 = boto3.client("s3")
    s3.put_bucket_versioning(Bucket=s3_bucket, VersioningConfiguration={"Status": "Enabled"})
    url = f"s3://{s3_bucket}"
    places = {"landing": f"{url}/in", "lake": f"{url}/lake", "remote": f"{url}/remote"}
    with open_platform(tmp_path / "home", **places) as platform:
        platform.change_policy(review={"gate": "auto"}, labeling={"annotations_per_task": 3})
        story = Story(platform)
        tag = story.play(ONE, 1)
        labels = platform.state(tag).labels
        image = str(labels["image_id"].iloc[0])
        whole = story.lake.store.get(f"raw/{image[:2]}/{image}")
        stored = hashlib.sha256(
            story.lake.image(image, str(labels["extension"].iloc[0]))
        ).hexdigest()
        # A file that was deleted but not erased is behind a delete marker.
        s3.put_object(Bucket=s3_bucket, Key="in/again.jpg", Body=whole)
        s3.delete_object(Bucket=s3_bucket, Key="in/again.jpg")
        s3.put_object(Bucket=s3_bucket, Key="in/again.jpg.json", Body=b"{}")
        s3.delete_object(Bucket=s3_bucket, Key="in/again.jpg.json")
        # A file that was overwritten has an earlier version.
        s3.put_object(Bucket=s3_bucket, Key="in/other.jpg", Body=whole)
        s3.put_object(Bucket=s3_bucket, Key="in/other.jpg", Body=b"something else")

        found, _ = story.erase(image)
        digests = {*found.images, stored}
        pages = s3.get_paginator("list_object_versions").paginate(Bucket=s3_bucket)
        versions = [each for page in pages for each in page.get("Versions", ())]
        assert len(versions) > 100
        for each in versions:
            data = s3.get_object(Bucket=s3_bucket, Key=each["Key"], VersionId=each["VersionId"])[
                "Body"
            ].read()
            assert hashlib.sha256(data).hexdigest() not in digests, each["Key"]
            if each["Key"].startswith("lake/tables/"):
                assert each["IsLatest"], each["Key"]
            if not each["Key"].startswith("lake/audit/"):
                assert image.encode() not in data, each["Key"]
                assert image not in each["Key"]
        assert s3.get_object(Bucket=s3_bucket, Key="in/other.jpg")["ContentLength"] == 14
        state = platform.state(tag)
        assert len(state.labels) == (~labels["image_id"].isin(found.images)).sum()
        assert rebuild_version(platform.settings, platform.settings.registry_path, tag).same
