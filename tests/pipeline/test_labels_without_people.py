"""Images that no person labels, in whole rounds: certified, trained on, seen again, withdrawn."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from annotation_platform.curation.history import require_legal
from annotation_platform.demo.annotators import EXPERT
from annotation_platform.images.decoding import encode_png
from annotation_platform.labeling.backends.regions import write_decision, write_regions
from annotation_platform.provenance.changes import find_changes
from annotation_platform.provenance.diff import diff_versions
from annotation_platform.provenance.explain import explain_image
from annotation_platform.provenance.image_history import image_history
from annotation_platform.provenance.impact import Subject, find_impact
from annotation_platform.provenance.rebuilding.derive import derive_version
from annotation_platform.provenance.rebuilding.inputs import read_inputs
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import (
    AutoLabels,
    CalibrationFrame,
    CertificateRechecks,
    Certificates,
    DatasetVersions,
    ErrorBars,
    LabelIssues,
    LabelTasks,
    ModelPredictions,
    ReviewTasks,
    RoundReports,
    SelectedImages,
    TrainingSet,
)
from annotation_platform.versioning.contents import versions_with
from annotation_platform.versioning.registry import read_manifest
from tests.pipeline.conftest import open_platform

ONE, TWO, THREE = "round-0001", "round-0002", "round-0003"
WIDTH, HEIGHT = 160, 120
CLASSES = ["boat", "container"]


def draw(rng):
    """A soft image with a red rectangle in it: its bytes, and the rectangle as a label."""
    coarse = rng.integers(60, 170, (9, 12, 3)).astype(np.uint8)
    soft = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.array(soft)
    wide = rng.random() < 0.5
    w, h = (50, 30) if wide else (30, 50)
    x, y = int(rng.integers(2, WIDTH - w - 2)), int(rng.integers(2, HEIGHT - h - 2))
    pixels[y : y + h, x : x + w] = (255, 0, 0)
    return encode_png(pixels), Label.box(CLASSES[0 if wide else 1], x, y, x + w, y + h)


class World:
    """A platform that proposes what is really there, and people who see it, or nothing."""

    def __init__(self, platform):
        self.platform, self.rng, self.truth = platform, np.random.default_rng(5), {}
        self.tables = platform.lake.tables

    def land(self, batch, images):
        for number in range(images):
            data, label = draw(self.rng)
            self.truth[hashlib.sha256(data).hexdigest()] = label
            self.platform.lake.landing.put(f"batch-{batch}/{number:02d}.png", data)

    def annotate(self, round_id, *, nothing_in=()):
        def what(image_id, _):
            seen = [] if image_id in nothing_in else [self.truth[image_id]]
            return write_regions(seen)

        self.platform.submit(round_id, what, seconds=6.0)

    def play(self, round_id, *, images=24, nothing_in=()):
        self.land(round_id[-1], images)
        assert self.platform.start_round(round_id).success
        self.annotate(round_id, nothing_in=nothing_in)
        merged = self.platform.run("merge_round", round_id)
        assert merged.success
        return self.release(round_id, merged)

    def release(self, round_id, merged=None):
        """Return the checks of a release, or of the merge that went on to it."""
        if merged is None:
            released = self.platform.run("release_round", round_id)
        else:
            released = self.platform.release(round_id, merged)
        assert released.success
        return {each.check_name: each for each in released.get_asset_check_evaluations()}

    def history(self, image_id):
        lake, settings = self.platform.lake, self.platform.settings
        held = versions_with(image_id, settings.registry_path, settings.remote_url)
        events = image_history(image_id, lake, held)
        require_legal(image_id, events)
        return events


def write_weights(path):
    from tests.pipeline.sees_red import weights

    path.write_bytes(weights())
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def world(tmp_path, store):
    weights = store.folder / "sees-red.pt"
    digest = store.once("sees-red", lambda: write_weights(weights))
    with open_platform(tmp_path / "home", store=store) as platform:
        made = World(platform)
        platform.change_policy(
            prediction={
                "weights": str(weights),
                "class_names": CLASSES,
                "profile": "serving",
                "weights_sha256": digest,
                "image_side": WIDTH,
            },
            rounds={"minimum_images": 1},
            labeling={"annotations_per_task": 1},
            review={"gate": "auto"},
            selection={"budget": 16, "calibration_share": 0.85},
            auto_accept={
                "enabled": True,
                "alpha": 0.25,
                "class_alpha": 0.0,
                "delta": 0.2,
                "recheck_share": 0.5,
            },
        )
        yield made


def accepted_in(world, round_id):
    return set(world.tables.read(AutoLabels, round_id)["image_id"])


def tag_of(world, round_id):
    return str(world.tables.read(DatasetVersions, round_id).iloc[0]["tag"])


def causes(world, before, now):
    """The images of each cause of what changed from one version to another."""
    changes = diff_versions(world.platform.state(before), world.platform.state(now)).changes
    return {cause: set(images) for cause, images in changes.groupby("cause")["image_id"]}


def test_what_is_right_is_accepted_and_trains_and_its_path_is_told(world):
    world.play(ONE)
    tables = world.tables
    overall = tables.read(Certificates, ONE).set_index("class_name").loc[""]
    assert overall["granted"], overall["reason"]
    assert overall["bound"] <= overall["alpha"] == 0.25
    taken = accepted_in(world, ONE)
    frame = tables.read(CalibrationFrame, ONE)
    selected = tables.read(SelectedImages, ONE)
    assert (len(frame), len(selected)) == (24, 16)
    assert taken
    assert not taken & {*frame.loc[frame["by_rule"], "image_id"], *selected["image_id"]}

    labels = tables.read(TrainingSet, ONE)
    auto = labels[labels["origin"] == "auto"]
    assert set(auto["image_id"]) == taken
    assert set(auto["split"]) == {"train"}
    for row in auto.itertuples():
        true = world.truth[row.image_id]
        assert row.class_name == true.class_name
        assert abs(np.array([row.x1, row.y1, row.x2, row.y2]) - [true.x1, true.y1, true.x2, true.y2]
                   ).max() < 3  # fmt: skip
    assert world.platform.run("report_round", ONE).success
    report = tables.read(RoundReports, ONE).iloc[0]
    audited = selected["calibration_sample"] & ~selected["image_id"].isin(
        frame.loc[frame["by_rule"], "image_id"]
    )
    assert (report["auto_images"], report["sampled_images"]) == (len(taken), audited.sum())
    assert report["auto_share"] == len(taken) / 24
    # Six seconds an image; half of what was accepted is seen again.
    assert report["minutes_saved"] == pytest.approx(6 / 60 * (len(taken) // 2))
    assert report["auto_bound"] <= report["auto_alpha"]
    bars = tables.read(ErrorBars, ONE).set_index(["origin", "class_name"])
    assert bars.loc[("auto", ""), "high"] == overall["bound"]
    assert bars.loc[("people", ""), ["reviewed", "low", "high"]].tolist() == [0, 0.0, 1.0]

    events = world.history(min(taken))
    assert [each.state for each in events] == ["landed", "clean", "accepted", "exported"]
    assert f"predictions accepted under the certificate of {ONE} (bound " in events[2].detail
    assert events[3].detail.endswith("split train: 1 label accepted automatically.")

    version = tables.read(DatasetVersions, ONE).iloc[0]
    manifest = read_manifest(world.platform.settings.registry_path, version["tag"])
    assert set(manifest.weights) == set(tables.read(AutoLabels, ONE)["weights_sha256"])
    bars = {(bar.origin, bar.class_name): bar for bar in manifest.label_errors}
    assert bars["auto", ""].high == round(overall["bound"], 4)
    assert (bars["people", ""].rate, bars["people", ""].high) == (None, 1.0)
    derived = derive_version(
        world.platform.lake,
        read_inputs(world.platform.lake, manifest.inputs, where=version["tag"]),
        world.platform.policy.ontology,
        dataset=manifest.dataset,
        folder_md5=manifest.folder_md5,
        progress=lambda *_: None,
    )
    assert derived.differences == ()
    assert derived.labels == len(labels)

    # The audit speaks of the images that there were; today's pins and policy do not move it.
    before = tables.digest(AutoLabels, ONE)
    chosen = tables.digest(SelectedImages, ONE)
    world.platform.change_policy(selection={"budget": 20, "strategy": "random"})
    world.platform.run("start_round", ONE)
    assert tables.digest(SelectedImages, ONE) == chosen
    world.release(ONE)
    assert tables.digest(AutoLabels, ONE) == before

    world.platform.change_policy(auto_accept={"use_in_training": False})
    world.release(ONE)
    assert set(tables.read(TrainingSet, ONE)["origin"]) == {"people"}
    assert causes(world, version["tag"], tag_of(world, ONE)) == {"policy": taken}
    # What rests on the model, and what was so without it, was known before.
    was, now = (world.platform.state(tag) for tag in (version["tag"], tag_of(world, ONE)))
    (proposed,) = set(tables.read(AutoLabels, ONE)["weights_sha256"])
    (impact,) = find_impact(Subject("model", proposed), [was, now], {}).versions[:1]
    rests = impact.dependents.set_index("label_id")["how"]
    assert set(rests.index[rests == "accepted"]) == set(auto["label_id"])
    expected, found = impact.without.changes, find_changes(was.labels, now.labels)
    assert expected.equals(found[expected.columns])
    explained = explain_image(world.platform.state(version["tag"]), min(taken)).labels[0]
    assert (explained.origin, explained.votes, explained.rests_on) == ("auto", [], [])
    assert explained.certificate["bound"] == overall["bound"]
    # The labels of a version stay explained, whatever later versions leave out.
    assert [each.state for each in world.history(min(taken))][-1] == "exported"


def test_accepted_images_are_seen_again_blind_and_a_later_certificate_takes_over(world):
    tables = world.tables
    world.play(ONE)
    taken = accepted_in(world, ONE)
    accepted = tables.read(AutoLabels, ONE)
    drawn = set(accepted.loc[accepted["recheck_sample"], "image_id"])
    assert len(drawn) == -(-len(taken) // 2)

    checks = world.play(TWO)
    selected = tables.read(SelectedImages, TWO)
    again = selected[selected["rule"] == "recheck"]
    assert set(again["image_id"]) == drawn
    assert "automatically accepted" in again["reason"].iloc[0]
    tasks = tables.read(LabelTasks, TWO)
    assert tasks.loc[tasks["image_id"].isin(drawn), "without_predictions"].all()
    verdict = tables.read(CertificateRechecks, TWO).set_index("certified_round").loc[ONE]
    audited = selected.loc[selected["calibration_sample"], "image_id"]
    assert verdict["images"] == len(drawn | (taken & set(audited)))
    assert verdict["errors"] == 0
    assert not verdict["contradicted"]
    assert checks["certificates_hold"].passed

    labels = tables.read(TrainingSet, TWO).drop_duplicates("image_id").set_index("image_id")
    assert set(labels.loc[sorted(drawn), "origin"]) == {"people"}
    assert set(labels.loc[labels["origin"] == "auto", "round_id"]) == {TWO}
    now = accepted_in(world, TWO)
    assert set(labels.index[labels["origin"] == "auto"]) == now
    # Where people were asked about what was accepted, their round says what it is now.
    by_cause = causes(world, tag_of(world, ONE), tag_of(world, TWO))
    # What both certificates accept is the same label.
    assert now - taken <= by_cause["model"]
    assert not by_cause["model"] & set(labels.index[labels["origin"] == "people"])
    assert by_cause["new round"] >= drawn
    assert set(by_cause) == {"model", "new round"}


def test_what_people_contradict_is_withdrawn_and_named(world):
    tables = world.tables
    world.play(ONE)
    taken = accepted_in(world, ONE)
    # Nothing more is accepted, so the first certificate would go on standing.
    world.platform.change_policy(auto_accept={"alpha": 0.001})
    checks = world.play(TWO, nothing_in=taken)
    assert not tables.read(Certificates, TWO)["granted"].any()
    verdict = tables.read(CertificateRechecks, TWO).set_index("certified_round").loc[ONE]
    assert verdict["errors"] == verdict["labels"] == verdict["images"] >= 3
    assert verdict["contradicted"]
    assert not checks["certificates_hold"].passed
    assert f"{ONE}: " in str(checks["certificates_hold"].metadata["first"].value)
    labels = tables.read(TrainingSet, TWO)
    assert set(labels["origin"]) == {"people"}
    by_cause = causes(world, tag_of(world, ONE), tag_of(world, TWO))
    assert by_cause["model"] == taken - set(labels["image_id"])
    # Images of a holdout sample are judged by people alone: what the model says of them is listed,
    # and sends no reviewer there.
    selected = tables.read(SelectedImages, TWO)
    at_random = set(
        selected.loc[selected["calibration_sample"] | (selected["rule"] == "recheck"), "image_id"]
    )
    suspected = set(tables.read(LabelIssues, TWO)["image_id"])
    assert suspected & at_random
    world.platform.change_policy(review={"gate": "manual"})
    merged = world.platform.run(
        "merge_round", TWO, only=["consensus_labels", "label_issues", "review_tasks"]
    )
    assert merged.success
    tasks = tables.read(ReviewTasks, TWO)
    sent = set(tasks.loc[tasks["kinds"].str.contains("suspected "), "image_id"])
    assert not sent & at_random


def test_without_a_frame_or_with_other_proposals_nothing_is_accepted(world):
    tables = world.tables
    world.platform.change_policy(auto_accept={"enabled": False})
    world.land(1, 24)
    assert world.platform.start_round(ONE).success
    world.platform.change_policy(auto_accept={"enabled": True})
    world.annotate(ONE)
    world.platform.run("merge_round", ONE)
    world.release(ONE)
    assert accepted_in(world, ONE) == set()
    assert "was off when the images" in tables.read(Certificates, ONE)["reason"].iloc[0]

    world.land(2, 24)
    assert world.platform.start_round(TWO).success
    changed = tables.read(ModelPredictions, TWO)
    tables.write(ModelPredictions, TWO, changed.assign(score=0.98))
    world.annotate(TWO)
    world.platform.run("merge_round", TWO)
    world.release(TWO)
    assert accepted_in(world, TWO) == set()
    assert "predictions changed after the audit" in tables.read(Certificates, TWO)["reason"].iloc[0]


def test_a_version_waits_until_an_audit_shows_that_its_labels_are_good_enough(world):
    tables = world.tables
    world.platform.change_policy(
        auto_accept={"enabled": False},
        selection={"budget": 0},
        review={"gate": "manual", "sample_share": 0.6},
        release={"maximum_label_error": 0.01},
    )
    world.land(1, 20)
    world.platform.start_round(ONE)
    world.annotate(ONE)
    world.platform.run("merge_round", ONE)
    assert set(tables.read(ReviewTasks, ONE)["kinds"]) == {"sample"}
    places = world.platform.labeling.open_assignments(EXPERT)
    assert len(places) == 12
    for place in places:
        accepted = [*write_decision("accept"), *place.pre_annotations.content]
        world.platform.labeling.submit(place.backend_task, EXPERT, accepted, 5.0)
    stopped = world.platform.run("release_round", ONE, raise_on_error=False)
    assert not stopped.success
    assert not tables.exists(DatasetVersions, ONE)
    (check,) = [
        each
        for each in stopped.get_asset_check_evaluations()
        if each.check_name == "label_error_within_limit"
    ]
    assert "0 of 12 audited labels from people are wrong" in check.description

    world.platform.change_policy(release={"maximum_label_error": 0.4})
    world.release(ONE)
    assert tables.exists(DatasetVersions, ONE)
