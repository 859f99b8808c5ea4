"""A home and a lake written by v0.1.0 open, go on, verify, explain and rebuild with this code.

``tests/data/v0.1.0`` holds them; its README says what is in them. What is expected is what v0.1.0
itself read there: ``expected.json``, whose names stay as they are. The home was made at another
path, so opening it here is also what a user does who moves a home: name the new places in the
environment (``ANNOTATION_HOME``, ``ANNOTATION_REGISTRY``, ``ANNOTATION_REMOTE``).
"""

import hashlib
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pytest

from annotation_platform.audit_log.events import EventLog
from annotation_platform.audit_log.verify import verify_logs
from annotation_platform.demo.annotators import make_people
from annotation_platform.demo.material import Material
from annotation_platform.demo.scenes import draw_batch
from annotation_platform.ingestion.lake import access_log_of, lake_of
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.provenance.diff import diff_versions
from annotation_platform.provenance.explain import explain_image
from annotation_platform.provenance.image_ids import find_image
from annotation_platform.provenance.rebuilding.rebuild import rebuild_version
from annotation_platform.provenance.state import read_state
from annotation_platform.reporting.status import round_states
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.tables import (
    TABLES,
    CleanedImages,
    PredictedImages,
    SelectedImages,
    TrainingSet,
    table_named,
)
from annotation_platform.selection.overrides import SelectionOverrides
from annotation_platform.settings import Settings
from annotation_platform.storage.migration import migrate
from annotation_platform.versioning.checkout import checkout_version
from annotation_platform.versioning.registry import list_versions, open_remote, read_manifest
from annotation_platform.versioning.stages import stages_of_versions
from annotation_platform.versioning.verify import audit_versions, verify_versions
from tests.invariants import check_account
from tests.pipeline.conftest import Platform

DATA = Path(__file__).resolve().parents[1] / "data" / "v0.1.0"
EXPECTED = json.loads((DATA / "expected.json").read_text())
OLD = [each["tag"] for each in EXPECTED["versions"]]
NEW, THREE = "training-set@v1.2.0", "round-0003"
OLD_ROUNDS = ["round-0001", "round-0002"]
LABEL_COLUMNS = ["image_id", "label_id", "shape", "class_name", *BOX_COLUMNS, "origin"]
WIDTH, HEIGHT, SOUND = 96, 72, 3


@dataclass(frozen=True)
class Home:
    """A home of v0.1.0 at the place where it was unpacked."""

    settings: Settings

    @property
    def lake(self):
        return lake_of(self.settings)

    @property
    def registry(self):
        return self.settings.registry_path

    @property
    def remote(self):
        return open_remote(self.registry, self.settings.remote_url)

    def state(self, tag):
        return read_state(self.registry, tag, remote_url=self.settings.remote_url, lake=self.lake)


def opened(home):
    """The settings of a home that was moved to ``home``: every place is in it."""
    return Settings(
        home=home,
        registry=str(home / "registry"),
        remote=str(home / "remote"),
        labeling="simulated",
    )


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The home as v0.1.0 left it; nothing but the log of uses is written in it."""
    place = tmp_path_factory.mktemp("earlier")
    with tarfile.open(DATA / "home.tar.xz") as packed:
        packed.extractall(place, filter="data")
        for member in packed:
            if "mtime" in member.pax_headers:
                # tarfile rounds them, and the landing zone knows its files by them.
                seconds, _, rest = member.pax_headers["mtime"].partition(".")
                moment = int(seconds) * 10**9 + int(rest)
                os.utime(place / member.name, ns=(moment, moment))
    return Home(opened(place / "home"))


@pytest.fixture(scope="module")
def continued(old, tmp_path_factory):
    """A copy of the home in which this code has finished a third round."""
    home = tmp_path_factory.mktemp("continued") / "home"
    shutil.copytree(old.settings.home_path, home, symlinks=True)
    settings = opened(home)
    labeling = SimulatedLabeling(home / "simulated-labeling.sqlite")
    drawn = draw_batch(3, SOUND, seed=0, width=WIDTH, height=HEIGHT)
    images = drawn.truth.images
    known = Dataset(images.drop_duplicates("image_id"), drawn.truth.labels, drawn.truth.ontology)
    material = Material([{}, {}, drawn.files], known)
    # Dagster's own storage is not kept: to it, the old rounds' runs never were.
    with dg.DagsterInstance.ephemeral() as instance:
        platform = Platform(
            settings, lake_of(settings), labeling, instance, material, make_people(4, 0)
        )
        platform.land(3)
        platform.start_round(THREE)
        annotated = platform.annotate(THREE)
        platform.merge(THREE)
        assert platform.run("release_round", THREE).success
        yield SimpleNamespace(home=Home(settings), annotated=annotated)


def plain(rows, columns):
    """Rows of a table as JSON has them."""
    chosen = rows[columns].astype(object)
    return chosen.where(chosen.notna(), None).to_numpy().tolist()


def labels_of(rows):
    """The labels among rows, by id: every value that ``expected.json`` holds of them."""
    return {row[1]: row for row in plain(rows, LABEL_COLUMNS)}


def expected_of(tag):
    return next(each for each in EXPECTED["versions"] if each["tag"] == tag)


def same_values(found, expected):
    """Whether two lists of label rows agree; coordinates to a millionth of a pixel."""
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        for one, other in zip(found[key], row, strict=True):
            assert one == (pytest.approx(other, abs=1e-6) if isinstance(other, float) else other)


def today(name):
    """Return the name that a table of v0.1.0 has now."""
    return next((each for each, table in TABLES.items() if name in table.old_names), name)


def test_every_table_of_the_earlier_release_is_read(old):
    tables = old.lake.tables
    written = {today(name): of_rounds for name, of_rounds in EXPECTED["tables"].items()}
    assert sum(len(of_rounds) for of_rounds in written.values()) > 60
    found = {
        name: {
            key: len(tables.read(table_named(name), key))
            for key in tables.rounds(table_named(name))
        }
        for name in TABLES
    }
    assert {name: counts for name, counts in found.items() if counts} == {
        name: {key: each["rows"] for key, each in of_rounds.items()}
        for name, of_rounds in written.items()
        if of_rounds
    }
    # All rounds at once is another way to read them.
    for name, counts in found.items():
        assert len(tables.read_all(table_named(name))) == sum(counts.values()), name
    cleaned = tables.read_all(CleanedImages)
    assert {
        outcome: sorted(rows["image_id"]) for outcome, rows in cleaned.groupby("outcome")
    } == EXPECTED["images"]
    for tag, key in zip(OLD, OLD_ROUNDS, strict=True):
        labels = labels_of(tables.read(TrainingSet, key))
        same_values(labels, {row[1]: row for row in expected_of(tag)["labels"]})


def test_status_ledger_pins_and_models_are_what_they_were(old):
    lake = old.lake
    states = {row["round"]: row for row in round_states(lake)}
    assert list(states) == OLD_ROUNDS
    assert {row["waits_for"] for row in states.values()} == {"–"}
    assert [row["version"] for row in states.values()] == [tag.partition("@v")[2] for tag in OLD]
    rounds = [*OLD_ROUNDS, *(review_round(key) for key in OLD_ROUNDS)]
    assert {key: len(AnnotationsLedger(lake.store).read(key)) for key in rounds} == EXPECTED[
        "annotations"
    ]
    assert {key: row["annotations"] for key, row in states.items()} == EXPECTED[
        "counted_annotations"
    ]
    overrides = SelectionOverrides(lake.store).read()
    assert {key: override.wanted for key, override in overrides.items()} == EXPECTED[
        "manual_selection"
    ]
    assert sorted(override.wanted for override in overrides.values()) == [False, True]

    models = ModelRegistry(old.settings.models_path)
    known = EXPECTED["models"]
    assert models.promoted() == known["promoted"]
    assert sorted(models.cards()) == known["weights"]
    # The first round's model made the predictions of the second round.
    assert known["used"]["round-0002"] == [models.history()[0].weights_sha256]
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    assert len(models.load(known["promoted"]).predict([noise])) == 1
    check_account(lake)


def test_the_audit_log_is_whole(old):
    lake = lake_of(old.settings, audited=False)
    found = verify_logs(EventLog(lake.store), access_log_of(old.settings))
    assert (found.problems, found.events) == ((), sum(EXPECTED["audit_log"].values()))
    assert found.uses > 100


def test_the_published_versions_verify_and_check_out(old, tmp_path):
    assert [info.tag for info in list_versions(old.registry)] == OLD
    for tag in OLD:
        manifest, known = read_manifest(old.registry, tag), expected_of(tag)
        assert (manifest.folder_md5, manifest.labels_root, manifest.images) == (
            known["dataset_md5"], known["labels_root"], known["images"]
        )  # fmt: skip
    found = verify_versions(old.registry, old.remote)
    assert (found.tags, found.problems, found.orphans) == (tuple(OLD), (), ())
    assert audit_versions(old.registry, old.remote) == {tag: {} for tag in OLD}
    stages = stages_of_versions(old.registry)
    assert [stage.name for stage in stages[expected_of(OLD[0])["commit"]]] == ["production"]
    done = checkout_version(
        old.registry, OLD[0], tmp_path / "clone", remote_url=old.settings.remote_url
    )
    images = list((tmp_path / "clone" / "datasets").rglob("images/*/*.*"))
    assert sorted(each.stem for each in images) == sorted(expected_of(OLD[0])["splits"])
    assert done.files > len(images)


def test_an_image_of_the_earlier_release_is_explained_as_it_was(old):
    known = EXPECTED["explained"]
    image = find_image(known["image"][:12], old.lake)
    told = explain_image(old.state(known["tag"]), image)
    assert (told.image_id, told.round_id, told.split, told.guideline) == (
        known["image"], known["round"], known["split"], known["guideline"]
    )  # fmt: skip
    assert [each["source_key"] for each in told.landed] == known["landed"]
    assert len(told.labels) == len(known["labels"]) > 0
    for label, one in zip(told.labels, known["labels"], strict=True):
        assert (label.label_id, label.label["class_name"], label.origin) == (
            one["id"], one["class"], one["origin"]
        )  # fmt: skip
        assert (label.decision, label.decided_by) == (one["decision"], one["decided_by"])
        assert {vote.annotation_id: vote.says for vote in label.votes} == {
            key: says for key, (says, _) in one["votes"].items()
        }
        weights = {vote.annotation_id: vote.weight for vote in label.votes}
        assert weights == pytest.approx({key: weight for key, (_, weight) in one["votes"].items()})
        assert label.there == pytest.approx(one["probability"])
        assert sorted(label.rests_on) == one["flip_set"]
    assert any(one["votes"] for one in known["labels"])


def test_the_earlier_release_goes_on_with_a_further_round(old, continued):
    home, tables = continued.home, continued.home.lake.tables
    assert continued.annotated > 0
    assert [info.tag for info in list_versions(home.registry)] == [*OLD, NEW]
    # The model of the earlier release proposes in the new round.
    predicted = tables.read(PredictedImages, THREE)
    assert set(predicted["weights"]) == {EXPECTED["models"]["promoted"]}
    cleaned = tables.read(CleanedImages, THREE)
    # What landed in the earlier rounds does not come in again.
    assert set(cleaned["source_key"].str.partition("/")[0]) == {"batch-3"}
    asked = set(tables.read(SelectedImages, THREE)["image_id"])
    accepted = cleaned[cleaned["outcome"] == "accepted"]
    assert set(accepted["image_id"]) <= asked
    # Copies of images that the earlier release took in are found out.
    resaved = cleaned[cleaned["source_key"].str.contains("_resaved")]
    assert resaved["outcome"].tolist() == ["duplicate"]
    assert set(resaved["duplicate_of"]) <= set(EXPECTED["images"]["accepted"])

    before, now = expected_of(OLD[-1]), home.state(NEW).labels
    splits = dict(zip(now["image_id"], now["split"], strict=True))
    assert {image: splits[image] for image in before["splits"]} == before["splits"]
    assert set(splits) - set(before["splits"]) == asked - set(before["splits"])
    kept = now[now["image_id"].isin(set(before["splits"]) - asked)]
    same_values(labels_of(kept), {row[1]: row for row in before["labels"] if row[0] not in asked})
    again = asked & set(before["splits"])
    assert again <= set(EXPECTED["manual_selection"])
    check_account(home.lake)
    # What v0.1.0 wrote is as it was.
    for name, of_rounds in EXPECTED["tables"].items():
        table = table_named(today(name))
        for key in of_rounds:
            assert tables.digest(table, key) == old.lake.tables.digest(table, key), (name, key)
    rounds = [*OLD_ROUNDS, *(review_round(key) for key in OLD_ROUNDS)]
    assert {key: len(AnnotationsLedger(home.lake.store).read(key)) for key in rounds} == EXPECTED[
        "annotations"
    ]


def test_all_versions_verify_after_the_further_round(continued):
    home = continued.home
    found = verify_versions(home.registry, home.remote)
    assert (found.tags, found.problems) == ((*OLD, NEW), ())
    assert audit_versions(home.registry, home.remote) == {tag: {} for tag in (*OLD, NEW)}
    lake = lake_of(home.settings, audited=False)
    logs = verify_logs(EventLog(lake.store), access_log_of(home.settings))
    assert logs.problems == ()
    assert logs.events > sum(EXPECTED["audit_log"].values())


def test_images_old_and_new_are_explained_in_the_new_version(continued):
    home = continued.home
    state, known = home.state(NEW), EXPECTED["explained"]
    images = state.labels
    new = images[(images["round_id"] == THREE) & (images["shape"] == "box")]["image_id"].iloc[0]
    told = explain_image(state, new)
    assert (told.round_id, told.landed[0]["source_key"].startswith("batch-3/")) == (THREE, True)
    assert told.labels
    assert all(each.rests_on for each in told.labels)
    told = explain_image(home.state(known["tag"]), known["image"])
    assert [each.label_id for each in told.labels] == [one["id"] for one in known["labels"]]
    kept = next(
        image for image in expected_of(OLD[-1])["splits"]
        if image in set(images.loc[images["round_id"] == OLD_ROUNDS[0], "image_id"])
    )  # fmt: skip
    assert explain_image(state, kept).round_id == OLD_ROUNDS[0]


@pytest.mark.parametrize("tag", [OLD[0], OLD[-1]])
def test_a_version_of_the_earlier_release_is_rebuilt_by_its_own_code(old, tag):
    done = rebuild_version(old.settings, old.registry, tag)
    assert done.differences == ()
    assert done.rebuilt_md5 == expected_of(tag)["dataset_md5"]
    assert done.same
    assert done.images == expected_of(tag)["images"]


def test_a_migrated_home_is_read_explained_and_rebuilt_as_before(old, tmp_path):
    shutil.copytree(old.settings.home_path, tmp_path / "home", symlinks=True)
    moved = Home(opened(tmp_path / "home"))
    written = sum(len(of_rounds) for of_rounds in EXPECTED["tables"].values())
    assert len(migrate(moved.lake.store)) == written
    assert migrate(moved.lake.store) == []
    test_every_table_of_the_earlier_release_is_read(moved)
    test_an_image_of_the_earlier_release_is_explained_as_it_was(moved)
    test_a_version_of_the_earlier_release_is_rebuilt_by_its_own_code(moved, OLD[-1])


def test_the_new_version_differs_from_the_old_ones_by_the_new_round(continued):
    home = continued.home
    before = expected_of(OLD[-1])
    found = diff_versions(home.state(OLD[-1]), home.state(NEW))
    assert (found.before, found.now) == (OLD[-1], NEW)
    added = found.changes[found.changes["kind"] == "image_added"]
    splits = dict(zip(home.state(NEW).labels["image_id"], home.state(NEW).labels["split"],
                      strict=True))  # fmt: skip
    assert set(added["image_id"]) == set(splits) - set(before["splits"])
    assert set(added["cause"]) == {"new round"}
    assert not set(found.changes["kind"]) & {"image_removed", "image_moved"}
    earlier = diff_versions(home.state(OLD[0]), home.state(OLD[-1]))
    first = set(expected_of(OLD[0])["splits"])
    assert set(earlier.changes.query("kind == 'image_added'")["image_id"]) == (
        set(before["splits"]) - first
    )


def test_the_archive_is_what_the_readme_says():
    packed = DATA / "home.tar.xz"
    sizes = [path.stat().st_size for path in DATA.iterdir() if path.is_file()]
    assert sum(sizes) < 1_000_000
    text = (DATA / "README.md").read_text()
    assert hashlib.sha256(packed.read_bytes()).hexdigest() in text
    for version in EXPECTED["versions"]:
        assert f"`{version['dataset_md5']}`" in text
    for name in ("training_set", "human_labels", "consensus_labels", "reviewed_labels", "splits"):
        for each in EXPECTED["tables"][name].values():
            assert f"`{each['sha256']}`" in text
