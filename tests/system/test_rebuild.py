"""A published version is rebuilt from ledger and lake by its own code, without its files."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest

from annotation_platform.demo.annotators import EXPERT
from annotation_platform.errors import PublishError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.regions import write_decision, write_regions
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.rounds import annotations_as_of, collected_annotations
from annotation_platform.labeling.snapshots import as_of
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.publish import publish
from annotation_platform.policy import read_policy
from annotation_platform.provenance.rebuilding.inputs import read_inputs
from annotation_platform.provenance.rebuilding.rebuild import rebuild_version
from annotation_platform.schema.annotations import Payload
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import (
    ConsensusLabels,
    HumanLabels,
    LabelTasks,
    ReviewedLabels,
    TrainingSet,
    table_named,
)
from annotation_platform.settings import Settings, settings_environment
from annotation_platform.storage.lineage import input_key
from annotation_platform.storage.table_files import parquet_bytes, read_table, table_digest
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.manifest import Manifest
from annotation_platform.versioning.objects import name_objects
from annotation_platform.versioning.registry import list_versions, read_manifest
from annotation_platform.versioning.store import VersionStore
from tests.commands import run_command
from tests.pipeline.conftest import open_platform
from tests.system.worlds import PROJECT, World

PUBLISHED_FROM = ("training_set", "training_rounds", "error_bars")
ONE, TWO = "round-0001", "round-0002"
FIRST, SECOND, THIRD = (f"training-set@v{each}" for each in ("1.0.0", "1.1.0", "1.1.1"))
OTHER_RENDERING = """

_built = build_folder


def build_folder(*arguments, **options):
    folder = _built(*arguments, **options)
    folder.texts["README.md"] += b"Rendered by other code.\\n"
    folder.md5s["README.md"] = _md5s(folder.texts)["README.md"]
    return folder
"""


@dataclass(frozen=True)
class Story:
    """A home with three versions; only the last one matches the present tables."""

    settings: Settings
    source: Path  # the code that published them

    def with_own_lake(self, folder: Path) -> "Story":
        """The same versions, with a copy of the lake to damage."""
        shutil.copytree(self.settings.lake_path, folder)
        return replace(self, settings=self.settings.model_copy(update={"lake": str(folder)}))

    @property
    def lake(self):
        return lake_of(self.settings)

    def inputs(self, tag):
        digest = read_manifest(self.settings.registry_path, tag).inputs
        return read_inputs(self.lake, digest, where=tag)

    def rebuild(self, tag):
        return rebuild_version(self.settings, self.settings.registry_path, tag)

    def command(self, *arguments):
        environment = settings_environment(self.settings)
        return run_command("version", "rebuild", *arguments, environment=environment)


def copied_source(folder):
    """Copy the present code to a folder, so that it does not change during a test."""
    folder.mkdir()
    for name in ("requirements.lock", "dvc.yaml", "params.yaml", ".gitignore"):
        shutil.copy(PROJECT / name, folder / name)
    shutil.copytree(
        PROJECT / "annotation_platform",
        folder / "annotation_platform",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return folder


def one_box(name, x):
    return write_regions([Label.box(name, x, 20, x + 60, 80)])


def rejection():
    return write_decision("reject", "not this one")


def change_minds(platform):
    """Change all annotations of one image of the first round, and the review of another.

    Both changes count; the additional, unassigned annotation is late.
    """
    labeling, names = platform.labeling, platform.policy.ontology.names
    collected = labeling.collect(ONE)
    decided = labeling.collect(review_round(ONE))[0]
    image = min(each.image_id for each in collected if each.image_id != decided.image_id)
    for each in collected:
        if each.image_id == image:
            labeling.submit(
                each.backend_task, each.author, one_box(names[0], 40), 1.0,
                annotation=each.annotation,
            )  # fmt: skip
    labeling.submit(collected[0].backend_task, EXPERT, one_box(names[1], 90), 1.0)
    labeling.submit(decided.backend_task, EXPERT, rejection(), 1.0, annotation=decided.annotation)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    source = copied_source(folder / "source")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resources.deployments.PROJECT_ROOT", source)
        with open_platform(folder / "home") as platform:
            # The review sample gives the reviewer tasks even without disputes.
            policy = platform.settings.policy_path
            text = policy.read_text()
            assert "sample_share: 0.0" in text
            policy.write_text(text.replace("sample_share: 0.0", "sample_share: 0.3"))
            for batch, round_id in enumerate((ONE, TWO), start=1):
                platform.land(batch)
                platform.start_round(round_id)
                platform.annotate(round_id)
                assert platform.release(round_id, platform.merge(round_id)).success
            change_minds(platform)
            assert platform.release(ONE, platform.merge(ONE)).success
            settings = platform.settings
    shutil.rmtree(settings.remote_url)
    return Story(settings, source)


def everything_in(folder):
    """The bytes of every file."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def test_every_version_is_rebuilt_as_it_was_published(story):
    assert [info.tag for info in list_versions(story.settings.registry_path)] == [
        FIRST, SECOND, THIRD,
    ]  # fmt: skip
    # The first round was merged again, so no present table is an input of the first two versions.
    for table in ("human_labels", "consensus_labels", "reviewed_labels"):
        now = story.lake.tables.digest(table_named(table), ONE)
        assert now != story.inputs(FIRST).made[f"{table}/{ONE}"].sha256
        assert now == story.inputs(THIRD).made[f"{table}/{ONE}"].sha256
    before = everything_in(story.settings.lake_path), everything_in(story.settings.registry_path)
    for tag, rounds in ((FIRST, 1), (SECOND, 2), (THIRD, 2)):
        done = story.command(tag.removeprefix("training-set@v"), "--json")
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        manifest = read_manifest(story.settings.registry_path, tag)
        assert facts["same"] is True
        assert facts["rebuilt_md5"] == manifest.folder_md5
        assert facts["code_commit"] == manifest.code.commit
        assert (facts["rounds"], facts["annotations"]) == (rounds, 24 * rounds)
        assert (facts["images"], facts["files"]) == (manifest.images, manifest.folder_files)
    assert before == (
        everything_in(story.settings.lake_path),
        everything_in(story.settings.registry_path),
    )


def test_a_rebuild_does_not_depend_on_time_zone_locale_or_threads(story):
    elsewhere = {
        "TZ": "Pacific/Kiritimati",
        "LC_ALL": "tr_TR.UTF-8",
        "PYTHONHASHSEED": "4711",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "annotation_platform.cli", "version", "rebuild", THIRD],
        env={**settings_environment(story.settings), **elsewhere},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{THIRD} is rebuilt as it was published" in done.stdout


def test_a_version_is_rebuilt_by_its_own_code(story, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(story.source, other)
    folder = other / "annotation_platform" / "versioning" / "folder.py"
    folder.write_text(folder.read_text() + OTHER_RENDERING)
    publish = (
        "from datetime import UTC, datetime\n"
        "from annotation_platform.ingestion.lake import lake_of\n"
        "from annotation_platform.policy import read_policy\n"
        "from annotation_platform.versioning.store import VersionStore\n"
        "from annotation_platform.pipeline.context import RoundContext\n"
        "from annotation_platform.pipeline.publish import publish\n"
        "from annotation_platform.settings import PROJECT_ROOT, read_settings\n"
        "settings = read_settings()\n"
        "lake = lake_of(settings)\n"
        "versions = VersionStore(settings.registry_path, settings.remote_url, PROJECT_ROOT,\n"
        "                        settings.mirrors_path)\n"
        f"context = RoundContext('{ONE}', lake, read_policy(settings.policy_path),\n"
        "                       datetime.now(UTC))\n"
        "from annotation_platform.schema.tables import table_named\n"
        "names = ('training_set', 'training_rounds', 'error_bars')\n"
        f"frames = [lake.tables.read(table_named(name), '{ONE}') for name in names]\n"
        "made = publish(context, *frames, versions)\n"
        "print(made.dataset_version['tag'].iloc[0])\n"
    )
    registry, remote = tmp_path / "registry", tmp_path / "remote"
    shutil.copytree(story.settings.registry_path, registry)
    delete_versions(registry)
    places = {"registry": str(registry), "remote": str(remote)}
    mine = replace(story, settings=story.settings.model_copy(update=places))
    done = subprocess.run(
        [sys.executable, "-c", publish],
        env={**settings_environment(mine.settings), "PYTHONPATH": str(other)},
        cwd=other, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tag = done.stdout.strip()
    shutil.rmtree(remote)
    published = read_manifest(registry, tag).folder_md5
    frame = mine.lake.tables.read(TrainingSet, ONE)
    ontology = read_policy(mine.settings.policy_path).ontology
    today = build_folder(frame, ontology, name="training-set")
    assert name_objects(today, mine.lake.image_path).md5 != published
    rebuilt = mine.rebuild(tag)
    assert rebuilt.same
    assert rebuilt.rebuilt_md5 == published


def delete_versions(registry):
    for name in ("refs/heads/datasets", *(f"refs/tags/{tag}" for tag in (FIRST, SECOND, THIRD))):
        subprocess.run(["git", "-C", registry, "update-ref", "-d", name], check=True)


def test_uncommitted_code_is_reported(story, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(story.source, source)
    author = ["-c", "user.name=Ada", "-c", "user.email=ada@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "Code"]):
        subprocess.run(["git", "-C", source, *arguments], check=True)
    (source / "annotation_platform" / "extra.py").write_text('"""Not committed."""\n')
    for key, value in (("user.name", "Ada"), ("user.email", "ada@example.org")):
        subprocess.run(["git", "-C", source, "config", key, value], check=True)
    settings = story.settings
    policy = read_policy(settings.policy_path)
    publish(
        RoundContext(ONE, story.lake, policy, datetime.now(UTC)),
        *(story.lake.tables.read(table_named(name), ONE) for name in PUBLISHED_FROM),
        VersionStore(source, str(tmp_path / "remote"), source, tmp_path / "mirrors"),
    )
    rebuilt = rebuild_version(settings, source, FIRST)
    assert rebuilt.same
    assert "Its code was not committed: annotation_platform/extra.py." in rebuilt.remarks
    assert any("human_labels" not in each and "imported_labels" in each for each in rebuilt.remarks)


def a_kept_table(story):
    digest = story.inputs(THIRD).made[f"reviewed_labels/{ONE}"].sha256
    path = story.settings.lake_path / input_key(digest)
    frame = read_table(ReviewedLabels, path.read_bytes())
    path.write_bytes(parquet_bytes(frame.assign(support=frame["support"] + 1)))
    return [f"reviewed_labels/{ONE} ({input_key(digest)})"]


def first_line(story, *, with_digest):
    """Change the first annotation in the ledger, optionally with its digest."""
    from annotation_platform.labeling.ledger import AnnotationsLedger, as_revision

    path = story.settings.lake_path / f"ledger/answers/{ONE}/000001.jsonl"
    lines = path.read_text().splitlines()
    entry = json.loads(lines[0])
    entry["submission"]["payload"]["content"] = one_box(
        read_policy(story.settings.policy_path).ontology.names[0], 7
    )
    old = AnnotationsLedger(story.lake.store).read(ONE)[0].submission
    if with_digest:
        changed = replace(old, payload=Payload(**entry["submission"]["payload"]))
        entry["digest"] = as_revision(changed).digest
    path.chmod(0o600)
    path.write_text("\n".join([json.dumps(entry), *lines[1:]]) + "\n")


def a_line_of_the_ledger(story):
    first_line(story, with_digest=False)
    return [f"ledger/answers/{ONE}/000001.jsonl"]


def a_line_and_its_digest(story):
    first_line(story, with_digest=True)
    return [f"ledger/answers/{ONE}"]


def a_lost_entry(story):
    (story.settings.lake_path / f"ledger/answers/{ONE}-review/000001.jsonl").unlink()
    return [f"ledger/answers/{ONE}-review/000001.jsonl"]


def an_image(story):
    training_set = story.lake.tables.read(TrainingSet, ONE)
    row = training_set.iloc[0]
    path = story.settings.lake_path / image_key(row["image_id"], row["extension"])
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    return [f"images/{row['split']}/{row['image_id']}.{row['extension']}"]


def a_guideline(story):
    (path,) = (story.settings.lake_path / "guidelines").iterdir()
    path.write_text(path.read_text().replace('"name": "', '"name": "un', 1))
    return [f"guidelines/{path.name}"]


@pytest.mark.parametrize(
    "tamper",
    [a_kept_table, a_line_of_the_ledger, a_line_and_its_digest, a_lost_entry, an_image,
     a_guideline],
)  # fmt: skip
def test_tampering_is_located(story, tmp_path, tamper):
    mine = story.with_own_lake(tmp_path / "lake")
    locations = tamper(mine)
    done = mine.command(THIRD, "--json")
    assert done.returncode == 1, done.stderr
    facts = json.loads(done.stdout)
    assert facts["same"] is False
    assert [each["where"] for each in facts["differences"]] == locations


def test_the_text_output_locates_tampering(story, tmp_path):
    mine = story.with_own_lake(tmp_path / "lake")
    (location,) = a_kept_table(mine)
    shown = mine.command(THIRD)
    assert shown.returncode == 1
    assert "is not rebuilt the same" in shown.stdout
    assert location.split(" ")[0] in shown.stdout


def test_a_version_that_cannot_be_rebuilt_is_an_error(story, tmp_path):
    unknown = story.command("9.9.9")
    assert unknown.returncode == 2
    assert "no version 'training-set@v9.9.9'" in unknown.stderr
    # A version without stored inputs, and one with another lake.
    world = World(tmp_path)
    world.add_images(0, 4)
    tag = world.publish().tag
    with pytest.raises(PublishError, match="were not stored when it was published"):
        rebuild_version(story.settings, world.registry, tag)
    elsewhere = story.settings.model_copy(update={"lake": str(tmp_path / "empty")})
    with pytest.raises(PublishError, match="Set ANNOTATION_LAKE"):
        rebuild_version(elsewhere, story.settings.registry_path, FIRST)


def test_manifests_of_earlier_versions_can_still_be_read(story):
    manifest = read_manifest(story.settings.registry_path, FIRST)
    content = json.loads(manifest.to_json())
    del content["inputs"]
    older = Manifest.from_json(json.dumps(content).encode(), where="older")
    assert older == replace(manifest, inputs="")
    for wrong in ({**content, "other": 1}, {k: v for k, v in content.items() if k != "rounds"}):
        with pytest.raises(PublishError, match="its fields are not those of a manifest"):
            Manifest.from_json(json.dumps(wrong).encode(), where="wrong")


@pytest.fixture
def merged(tmp_path, monkeypatch, store):
    """A round that is annotated and merged, but not released."""
    source = copied_source(tmp_path / "source")
    monkeypatch.setattr("resources.deployments.PROJECT_ROOT", source)
    with open_platform(tmp_path / "home", store=store) as platform:
        platform.land(1)
        platform.start_round(ONE)
        platform.annotate(ONE)
        platform.change_policy(release={"gate": "manual"})
        platform.merge(ONE)
        # From here on the code matters, which is no part of what steps are copied by.
        platform.recorder = None
        yield platform


def released(platform):
    assert platform.run("release_round", ONE).success
    return rebuild_version(platform.settings, platform.settings.registry_path, FIRST)


def test_a_table_that_the_platform_did_not_make_is_reported(merged):
    tables = merged.lake.tables
    labels = tables.read(ConsensusLabels, ONE)
    tables.write(ConsensusLabels, ONE, labels.assign(support=labels["support"] + 1))
    rebuilt = released(merged)
    assert not rebuilt.same
    assert [each.where for each in rebuilt.differences] == [f"consensus_labels/{ONE}"]
    # The tables that depend on it are derived from it.
    assert rebuilt.rebuilt_md5 == rebuilt.folder_md5


def test_tables_without_recorded_inputs_are_taken_from_storage(merged):
    shutil.rmtree(merged.settings.lake_path / "lineage")
    rebuilt = released(merged)
    assert rebuilt.same
    assert (rebuilt.rounds, rebuilt.annotations) == (0, 0)
    (taken,) = [each for each in rebuilt.remarks if each.startswith("Taken from storage")]
    assert "consensus_labels (1)" in taken


def test_an_annotation_that_comes_during_the_merge_counts_from_the_ledger(merged):
    edited = one_box(merged.policy.ontology.names[0], 33)

    class Busy(SimulatedLabeling):
        """An annotation is edited each time that the annotations are collected."""

        def collect(self, round_id):
            collected = super().collect(round_id)
            one = collected[0]
            self.submit(one.backend_task, one.author, edited, 1.0, annotation=one.annotation)
            return collected

    tasks = merged.lake.tables.read(LabelTasks, ONE)
    busy = Busy(merged.settings.home_path / "simulated-labeling.sqlite")
    annotations = collected_annotations(
        ONE, tasks, busy, merged.lake, merged.policy, now=datetime.now(UTC)
    )
    known = {each.digest for each in AnnotationsLedger(merged.lake.store).read(ONE)}
    assert set(annotations.labels["revision"]) <= known
    # The recorded inputs are exactly those of the table.
    digest = table_digest(HumanLabels, annotations.labels)
    recorded = merged.lake.tables.lineage.read("human_labels", ONE, digest)
    again = annotations_as_of(ONE, as_of(merged.lake, recorded))
    assert table_digest(HumanLabels, again.labels) == digest


@pytest.mark.long
def test_a_version_with_its_lake_in_s3_is_rebuilt(tmp_path, s3_bucket, monkeypatch):
    source = copied_source(tmp_path / "source")
    monkeypatch.setattr("resources.deployments.PROJECT_ROOT", source)
    with open_platform(tmp_path / "home", lake=f"s3://{s3_bucket}/lake") as platform:
        platform.land(1)
        platform.start_round(ONE)
        platform.annotate(ONE)
        platform.merge(ONE)
        assert released(platform).same
        row = platform.lake.tables.read(TrainingSet, ONE).iloc[0]
        key = image_key(row["image_id"], row["extension"])
        boto3.client("s3").delete_object(Bucket=s3_bucket, Key=f"lake/{key}")
        settings = platform.settings
        rebuilt = rebuild_version(settings, settings.registry_path, FIRST)
    assert [each.what for each in rebuilt.differences] == [f"{key} is not in the lake."]
