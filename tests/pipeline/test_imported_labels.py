"""Images that land with their labels: they need no annotators, and a version starts from them."""

import hashlib
import json

import dagster as dg
import pandas as pd
import pytest

from annotation_platform.images.accepted import accepted_images
from annotation_platform.reporting.status import round_states
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.tables import (
    ImportedLabels,
    LabelTasks,
    RoundReports,
    SelectedImages,
    TrainingSet,
)
from annotation_platform.versioning.registry import list_versions, read_manifest
from sensors.labeling import labeling_complete_sensor
from sensors.releases import review_complete_sensor

ORIGIN = "coco:harbour.json"


def land_with_labels(platform, batch, *, leave_out=(), rename=None):
    """Land a batch with the true labels of its images, all but ``leave_out``, in sidecars."""
    truth = platform.material.truth
    sizes = truth.images.set_index("image_id")[["width", "height"]]
    for file_name, data in platform.material.batches[batch - 1].items():
        image_id = hashlib.sha256(data).hexdigest()
        sidecar = b""
        if image_id in sizes.index and file_name not in leave_out:
            rows = truth.labels[truth.labels["image_id"] == image_id]
            boxes = [
                {"class": (rename or {}).get(name, name), "box": box}
                for name, *box in rows[["class_name", *BOX_COLUMNS]].to_numpy().tolist()
            ]
            width, height = map(int, sizes.loc[image_id])
            found = {"origin": ORIGIN, "width": width, "height": height, "boxes": boxes}
            sidecar = json.dumps({"source": "pier 4", "labels": found}).encode()
        platform.lake.landing.put(f"batch-{batch}/{file_name}", data, sidecar=sidecar)


def requested(result):
    return [(r.job_name, r.partition_key) for r in getattr(result, "run_requests", None) or []]


def waits(platform):
    return {state["round"]: state["waits_for"] for state in round_states(platform.lake)}


@pytest.fixture
def home(platform):
    return platform


def test_a_round_that_lands_with_labels_becomes_a_version_without_people(home):
    tables = home.lake.tables
    land_with_labels(home, 1)
    started = home.start_round("round-0001")
    assert tables.read(LabelTasks, "round-0001").empty
    assert waits(home) == {"round-0001": "merging (all images landed with labels)"}

    # The sensors alone bring it to a version.
    merge = home.tick(labeling_complete_sensor)
    assert requested(merge) == [("merge_round", "round-0001")]
    home.merge("round-0001")
    assert requested(home.tick(labeling_complete_sensor)) == []
    assert requested(home.tick(review_complete_sensor)) == []
    manifest = read_manifest(home.settings.registry_path, "training-set@v1.0.0")
    assert set(manifest.rounds) == {"round-0001"}

    labels = tables.read(TrainingSet, "round-0001")
    accepted = accepted_images(home.lake.tables)
    assert set(labels["image_id"]) == set(accepted["image_id"])
    assert set(labels["origin"]) == {ORIGIN}
    assert set(labels["source"]) == {"pier 4"}
    truth = home.material.truth.labels
    truth = truth[truth["image_id"].isin(accepted["image_id"])]
    columns = ["image_id", "class_name", *BOX_COLUMNS]
    boxes = labels[labels["shape"] == "box"][columns].sort_values(columns, ignore_index=True)
    expected = truth[columns].sort_values(columns, ignore_index=True)
    pd.testing.assert_frame_equal(boxes, expected, check_dtype=False)

    shown = started.asset_materializations_for_node("imported_labels")[-1].metadata
    assert shown["images"].value == len(accepted)
    assert shown["boxes"].value == len(truth)
    assert json.loads(json.dumps(shown["origins"].value)) == {ORIGIN: len(accepted)}
    checks = {event.check_name: event.passed for event in started.get_asset_check_evaluations()}
    assert checks["imported_labels_usable"] is True

    # The model learns from them as from any others, and the round is reported.
    home.run("train_model", "round-0001")
    assert waits(home) == {"round-0001": "–"}
    report = tables.read(RoundReports, "round-0001").iloc[0]
    assert (report["tasks"], report["annotations"], report["version"]) == (0, 0, "1.0.0")


def test_what_people_label_later_adds_to_it(home):
    tables = home.lake.tables
    land_with_labels(home, 1)
    home.start_round("round-0001")
    home.release("round-0001", home.merge("round-0001"))
    home.land(2)
    home.start_round("round-0002")
    asked = set(tables.read(SelectedImages, "round-0002")["image_id"])
    images = accepted_images(home.lake.tables)
    assert asked == set(images.loc[images["round_id"] == "round-0002", "image_id"])
    home.annotate("round-0002")
    home.release("round-0002", home.merge("round-0002"))
    labels = tables.read(TrainingSet, "round-0002").drop_duplicates("image_id")
    origin = labels.set_index("image_id")["origin"]
    assert set(origin[list(asked)]) == {"people"}
    assert set(origin.drop(list(asked))) == {ORIGIN}
    assert len(origin) == len(images)
    registry = home.settings.registry_path
    assert [info.version for info in list_versions(registry)] == ["1.0.0", "1.1.0"]
    # What was in the first version is in the second as it was.
    first = tables.read(TrainingSet, "round-0001")
    second = tables.read(TrainingSet, "round-0002")
    kept = second[second["image_id"].isin(first["image_id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.drop(columns="round_id"), first.drop(columns="round_id"))


def test_people_are_asked_only_about_images_without_usable_labels(home):
    names = sorted(home.material.batches[0])
    land_with_labels(home, 1, leave_out=names[:3], rename={"boat": "ship"})
    started = home.start_round("round-0001")
    tables = home.lake.tables
    imported = tables.read(ImportedLabels, "round-0001")
    usable = set(imported.loc[imported["problem"] == "", "image_id"])
    refused = set(imported["image_id"]) - usable
    assert refused  # boats are in the images, ships not in the ontology
    accepted = set(accepted_images(home.lake.tables)["image_id"])
    assert set(tables.read(SelectedImages, "round-0001")["image_id"]) == accepted - usable
    checks = {event.check_name: event for event in started.get_asset_check_evaluations()}
    check = checks["imported_labels_usable"]
    assert check.passed is False
    assert f"{len(refused)} images with unusable labels" in check.description
    assert any("class 'ship'" in text for text in check.metadata["first"].value)
    assert waits(home) == {"round-0001": "people"}

    # Until people are done no version comes of this round alone; then it has all labels at once.
    assert requested(home.tick(labeling_complete_sensor)) == []
    home.annotate("round-0001")
    assert requested(home.tick(labeling_complete_sensor)) == [("merge_round", "round-0001")]
    home.release("round-0001", home.merge("round-0001"))
    labels = tables.read(TrainingSet, "round-0001")
    assert set(labels["image_id"]) == accepted
    assert set(labels.loc[labels["origin"] == ORIGIN, "image_id"]) == usable


def test_people_can_be_asked_all_the_same(home):
    policy = home.settings.policy_path
    text = policy.read_text()
    assert "annotate_imported: false" in text
    policy.write_text(text.replace("annotate_imported: false", "annotate_imported: true"))
    land_with_labels(home, 1)
    home.start_round("round-0001")
    tables = home.lake.tables
    accepted = set(accepted_images(home.lake.tables)["image_id"])
    assert set(tables.read(SelectedImages, "round-0001")["image_id"]) == accepted
    home.annotate("round-0001")
    home.release("round-0001", home.merge("round-0001"))
    assert set(tables.read(TrainingSet, "round-0001")["origin"]) == {"people"}


def test_imported_labels_that_change_are_released_anew(home):
    land_with_labels(home, 1)
    home.start_round("round-0001")
    home.merge("round-0001")
    home.run("release_round", "round-0001")
    before = home.tick(review_complete_sensor)
    tables = home.lake.tables
    labels = tables.read(ImportedLabels, "round-0001")
    labels.loc[labels["shape"] == "box", "x1"] += 0.5
    tables.write(ImportedLabels, "round-0001", labels)
    after = home.tick(review_complete_sensor)
    assert before.run_requests[0].run_key != after.run_requests[0].run_key
    home.run("release_round", "round-0001")
    versions = [info.version for info in list_versions(home.settings.registry_path)]
    assert versions == ["1.0.0", "1.0.1"]


def test_the_page_of_imported_labels_shows_them_with_their_boxes(home):
    land_with_labels(home, 1)
    started = home.start_round("round-0001")
    shown = started.asset_materializations_for_node("imported_labels")[-1].metadata
    assert shown["preview"].value.startswith("![images with their boxes: ")
    assert isinstance(shown["refused"], dg.MarkdownMetadataValue)
