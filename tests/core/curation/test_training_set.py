from datetime import UTC, datetime

import pandas as pd
import pytest

from annotation_platform.curation import gates
from annotation_platform.curation.training_set import (
    TrainingSetSettings,
    build_training_set,
    round_digest,
)
from annotation_platform.policy import SplitPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    AutoLabels,
    CertificateRechecks,
    Certificates,
    CleanedImages,
    ImportedLabels,
    RawImages,
    ReviewedLabels,
    RoundTasks,
    Splits,
    TrainingRounds,
)
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.storage.round_tables import RoundTables
from annotation_platform.storage.table_files import parquet_bytes

ONTOLOGY = Ontology.from_names(["cat", "dog"])


def digest(number):
    return f"{number:064x}"


def cleaned(round_id, number, *, group=None):
    row = dict.fromkeys(CleanedImages.empty().columns)
    return row | {
        "round_id": round_id,
        "source_key": f"{number}.jpg",
        "arrival_version": "1-1",
        "image_id": digest(number),
        "outcome": "accepted",
        "reason": "",
        "group_id": digest(number if group is None else group),
        "joins": "",
        "width": 100,
        "height": 80,
        "extension": "jpg",
        "stored_sha256": digest(number),
        "stored_md5": f"{number:032x}",
        "stored_bytes": 10,
        "flags": "",
    }


def label(round_id, number, *, box=(1.0, 2.0, 30.5, 40.25), name="cat"):
    shape = "box" if box else "none"
    corners = dict(zip(["x1", "y1", "x2", "y2"], box or [None] * 4, strict=True))
    return {
        "round_id": round_id,
        "task_id": f"{round_id}/boxes/{digest(number)}",
        "image_id": digest(number),
        "label_id": f"{digest(number)}:{shape}",
        "shape": shape,
        "class_name": name if box else None,
        **corners,
        "geometry": "",
        "support": 3,
        "annotations": 3,
        "decision": "undisputed",
        "decided_by": "",
        "comment": "",
        "decided_at": None,
    }


def task(round_id, number):
    return {
        "round_id": round_id,
        "task_id": f"{round_id}/boxes/{digest(number)}",
        "image_id": digest(number),
        "purpose": "label",
        "assignments": 3,
        "counted": 3,
        "state": "annotated",
    }


def raw(round_id, number, **metadata):
    row = dict.fromkeys(RawImages.empty().columns)
    same = {"round_id": round_id, "source_key": f"{number}.jpg", "arrival_version": "1-1"}
    facts = {"image_id": digest(number), "byte_size": 10, "problem": "", "other_metadata": ""}
    return row | same | facts | metadata


def imported(round_id, number, *, box=(5.0, 6.0, 20.0, 30.0), name="dog", problem=""):
    label_row = label(round_id, number, box=box, name=name)
    known = {"origin": "coco:a.json", "problem": problem}
    held = {key: value for key, value in label_row.items() if key in ImportedLabels.columns}
    return held | known


@pytest.fixture
def tables(tmp_path):
    return RoundTables(LocalObjectStore(tmp_path))


def add_round(tables, round_id, numbers, *, decision="undisputed", comment="", **options):
    images = [cleaned(round_id, n) for n in numbers]
    tables.write(CleanedImages, round_id, CleanedImages.from_rows(images))
    asked = [task(round_id, n) for n in numbers]
    tables.write(RoundTasks, round_id, RoundTasks.from_rows(asked))
    about = {"decision": decision, "comment": comment}
    labels = [label(round_id, n, **options) | about for n in numbers]
    tables.write(ReviewedLabels, round_id, ReviewedLabels.from_rows(labels))


def add_imports(tables, round_id, numbers, **options):
    """A round of which the images landed with labels and nothing is merged."""
    images = [cleaned(round_id, n) for n in numbers]
    tables.write(CleanedImages, round_id, CleanedImages.from_rows(images))
    rows = [imported(round_id, n, **options) for n in numbers]
    tables.write(ImportedLabels, round_id, ImportedLabels.from_rows(rows))


def build_and_write(tables, round_id, **options):
    """Build the training set, and write what the asset writes next to it."""
    settings = TrainingSetSettings(ontology=ONTOLOGY, splits=SplitPolicy(), seed=0, **options)
    built = build_training_set(tables, round_id, settings)
    tables.write(TrainingRounds, round_id, built.included(round_id))
    if not built.splits.empty:
        tables.write(Splits, round_id, built.splits)
    return built


def build(tables, round_id):
    return build_and_write(tables, round_id)


def test_every_finished_round_is_in_it_whichever_finished_first(tables):
    add_round(tables, "round-0002", range(10, 20))
    second = build(tables, "round-0002")
    add_round(tables, "round-0001", range(10))
    both = build(tables, "round-0001")
    assert set(second.rounds) == {"round-0002"}
    assert set(both.rounds) == {"round-0001", "round-0002"}
    assert both.labels["image_id"].nunique() == 20
    # What the test split held stays there.
    assert gates.test_images_in_train(both.labels, [second.labels]) == []
    before = second.labels.set_index("image_id")["split"]
    assert (both.labels.set_index("image_id")["split"].loc[before.index] == before).all()


def test_an_image_with_nothing_in_it_is_kept(tables):
    add_round(tables, "round-0001", range(3), box=None)
    labels = build(tables, "round-0001").labels
    assert (len(labels), set(labels["shape"])) == (3, {"none"})
    assert labels["class_id"].isna().all()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"box": (1.0, 2.0, 101.0, 40.0)}, "outside their image", id="outside"),
        pytest.param({"box": (5.0, 5.0, 5.0, 9.0)}, "outside their image", id="no area"),
        pytest.param({"name": "bird"}, "outside the ontology", id="unknown class"),
    ],
)
def test_a_round_that_fails_a_gate_is_held_back_whole_and_named(tables, options, reason):
    add_round(tables, "round-0001", range(3))
    add_round(tables, "round-0002", range(3, 6), **options)
    built = build(tables, "round-0002")
    assert set(built.rounds) == {"round-0001"}
    assert reason in built.held["round-0002"]


def test_a_round_with_an_unannotated_task_is_held_back(tables):
    add_round(tables, "round-0001", range(3))
    labels = tables.read(ReviewedLabels, "round-0001").iloc[1:].reset_index(drop=True)
    tables.write(ReviewedLabels, "round-0001", labels)
    assert "without a label" in build(tables, "round-0001").held["round-0001"]


@pytest.mark.parametrize("decision", ["rejected", "undecided"])
def test_images_that_a_review_left_open_are_left_out_and_named(tables, decision):
    add_round(tables, "round-0001", range(3))
    add_round(tables, "round-0002", range(3, 6), decision=decision, comment="too dark")
    built = build(tables, "round-0002")
    assert set(built.labels["image_id"]) == {digest(number) for number in range(3)}
    assert built.held_images == {digest(number): "too dark" for number in range(3, 6)}
    # The labels of an earlier round count until a later round has others.
    add_round(tables, "round-0003", range(1), decision=decision, comment="too dark")
    assert digest(0) in set(build(tables, "round-0003").labels["image_id"])


def test_a_late_image_between_two_splits_is_left_out_and_the_version_stays(tables):
    add_round(tables, "round-0001", range(20))
    before = build(tables, "round-0001").labels.set_index("image_id")["split"]
    trained, tested = before[before == "train"].index[0], before[before == "test"].index[0]
    add_round(tables, "round-0002", range(20, 24))
    late = tables.read(CleanedImages, "round-0002")
    late.loc[late["image_id"] == digest(20), ["group_id", "joins"]] = [trained, tested]
    late.loc[late["image_id"] == digest(21), "group_id"] = tested
    tables.write(CleanedImages, "round-0002", late)
    built = build(tables, "round-0002")
    assert built.held_images == {digest(20): "it belongs with images of test and train"}
    after = built.labels.set_index("image_id")["split"]
    assert after[before.index].equals(before)
    assert after[digest(21)] == "test"
    assert set(after.index) == {digest(number) for number in range(24)} - {digest(20)}


def test_gates_find_what_was_planted(tables):
    add_round(tables, "round-0001", range(10))
    labels = build(tables, "round-0001").labels
    assert gates.groups_in_two_splits(labels) == []
    twin = labels[labels["split"] == "train"].head(1).assign(split="test", label_id="x")
    assert gates.groups_in_two_splits(pd.concat([labels, twin])) == [twin["group_id"].iloc[0]]
    moved = labels.assign(split="train")
    tested = labels.loc[labels["split"] == "test", "image_id"]
    assert gates.test_images_in_train(moved, [labels]) == sorted(tested)


def test_formats_read_back_to_the_labels(tables):
    add_round(tables, "round-0001", range(10))
    labels = build(tables, "round-0001").labels
    dataset = Dataset.from_training_set(labels, ONTOLOGY)
    assert gates.formats_disagree(dataset) == []
    # A box beyond the image cannot be written in YOLO's shares without being cut.
    wide = dataset.labels.assign(x2=130.0)
    assert gates.formats_disagree(Dataset(dataset.images, wide, ONTOLOGY))


def test_new_images_are_read_back_and_ten_thousand_of_the_others():
    images = [f"{number:05d}" for number in range(12_000)]
    rounds = ["round-0001" if number < 11_000 else "round-0002" for number in range(12_000)]
    labels = pd.DataFrame({"image_id": images, "round_id": rounds}).loc[
        lambda it: it.index.repeat(2)
    ]
    tried = gates.sample_to_read_back(labels, "round-0002")
    assert len(tried) == 2 * 11_000
    assert set(images[11_000:]) < set(tried["image_id"])
    again = gates.sample_to_read_back(labels.assign(round_id="round-0001"), "round-0003")
    assert set(again["image_id"]) != set(tried["image_id"])
    assert gates.sample_to_read_back(labels, "round-0001").equals(labels)


def test_labels_that_images_landed_with_are_in_it_with_their_origin(tables):
    add_round(tables, "round-0001", range(3))
    add_imports(tables, "round-0002", range(3, 6))
    built = build(tables, "round-0001")
    origins = built.labels.groupby("origin")["image_id"].nunique().to_dict()
    assert origins == {"people": 3, "coco:a.json": 3}
    brought = built.labels[built.labels["origin"] != "people"]
    assert set(brought["round_id"]) == {"round-0002"}
    assert brought[["support", "annotations"]].to_numpy().tolist() == [[0, 0]] * 3
    assert brought["class_id"].tolist() == [1, 1, 1]
    assert set(built.rounds) == {"round-0001", "round-0002"}


def test_an_image_that_landed_with_nothing_in_it_is_kept(tables):
    add_imports(tables, "round-0001", range(2), box=None)
    labels = build(tables, "round-0001").labels
    assert labels["shape"].tolist() == ["none", "none"]
    assert labels["class_id"].isna().all()


def test_what_people_say_counts_where_an_image_landed_with_labels(tables):
    add_imports(tables, "round-0001", range(3))
    add_round(tables, "round-0002", range(1))
    labels = build(tables, "round-0002").labels.set_index("image_id")
    assert labels["origin"].to_dict() == {
        digest(0): "people",
        digest(1): "coco:a.json",
        digest(2): "coco:a.json",
    }
    assert labels.loc[digest(0), "class_name"] == "cat"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        pytest.param({"box": (1.0, 2.0, 101.0, 40.0)}, "boxes outside their image", id="outside"),
        pytest.param({"name": "bird"}, "labels outside the ontology", id="unknown class"),
    ],
)
def test_imported_labels_that_fail_a_gate_hold_their_round_back(tables, options, reason):
    add_round(tables, "round-0001", range(3))
    add_imports(tables, "round-0002", range(3, 6), **options)
    built = build(tables, "round-0001")
    assert set(built.rounds) == {"round-0001"}
    assert reason in built.held["round-0002"]


def test_refused_labels_are_in_no_training_set(tables):
    add_round(tables, "round-0001", range(3))
    add_imports(tables, "round-0002", range(3, 6), problem="made on another image")
    built = build(tables, "round-0001")
    assert set(built.rounds) == {"round-0001"}
    assert built.held == {}


def test_the_digest_of_a_round_covers_what_its_images_landed_with(tables):
    add_round(tables, "round-0001", range(3))
    digests = {round_digest(tables, "round-0001")}
    for name in ("dog", "cat"):
        rows = [imported("round-0001", 9, name=name)]
        tables.write(ImportedLabels, "round-0001", ImportedLabels.from_rows(rows))
        digests.add(round_digest(tables, "round-0001"))
    assert len(digests) == 3


def test_what_is_known_of_an_image_goes_along_with_its_labels(tables):
    add_round(tables, "round-0001", range(2))
    known = {
        "source": "pier 4",
        "captured_at": datetime(2026, 5, 1, 12, tzinfo=UTC),
        "latitude": 53.5,
        "longitude": 9.9,
        "licence": "CC-BY-4.0",
        "other_metadata": '{"tide": "low"}',
    }
    rows = [raw("round-0001", 0, **known), raw("round-0001", 1)]
    tables.write(RawImages, "round-0001", RawImages.from_rows(rows))
    labels = build(tables, "round-0001").labels.set_index("image_id")
    assert labels.loc[digest(0), list(known)].to_dict() == known
    nothing = labels.loc[digest(1), ["source", "captured_at", "device", "consent"]]
    assert nothing.isna().all()
    # Equal rows, equal bytes: a version is named by them.
    again = build(tables, "round-0001").labels
    assert parquet_bytes(again) == parquet_bytes(labels.reset_index()[again.columns])


def add_auto(tables, round_id, numbers, *, box=(1.0, 2.0, 30.5, 40.25), name="cat", new=True):
    """Labels accepted without a person, of images that landed in that round if they are new."""
    if new:
        images = [cleaned(round_id, n) for n in numbers]
        tables.write(CleanedImages, round_id, CleanedImages.from_rows(images))
    marked = {
        "score": 0.99,
        "confidence": 0.98,
        "recheck_sample": False,
        "weights_sha256": digest(7),
    }
    rows = [label(round_id, n, box=box, name=name) | marked for n in numbers]
    tables.write(AutoLabels, round_id, AutoLabels.from_rows(rows))
    granted = dict.fromkeys(Certificates.empty().columns, 0)
    text = dict.fromkeys(["class_name", "reason", "weights_sha256", "profile", "calibration"], "")
    row = granted | text | {"round_id": round_id, "granted": True}
    tables.write(Certificates, round_id, Certificates.from_rows([row]))


def build_with_auto(tables, round_id, **options):
    return build_and_write(tables, round_id, **({"use_auto": True} | options))


def test_labels_without_a_person_train_are_marked_and_can_be_left_out(tables):
    add_round(tables, "round-0001", range(20))
    add_auto(tables, "round-0002", range(20, 120))
    labels = build_with_auto(tables, "round-0002").labels
    auto = labels[labels["origin"] == "auto"]
    assert len(auto) == 100
    assert set(auto["split"]) == {"train"}
    assert set(auto["annotations"]) == set(auto["support"]) == {0}
    # What people labelled still validates and tests.
    people = labels[labels["origin"] == "people"]
    assert set(people["split"]) == {"train", "val", "test"}
    assert set(build_with_auto(tables, "round-0002", use_auto=False).labels["origin"]) == {"people"}


def test_what_people_said_replaces_what_was_accepted_without_them(tables):
    add_round(tables, "round-0001", range(10), name="dog")
    add_auto(tables, "round-0002", range(5, 15), new=False)
    add_auto(tables, "round-0003", range(10, 15))
    labels = build_with_auto(tables, "round-0003").labels
    assert set(labels.loc[labels["origin"] == "auto", "image_id"]) == set(
        map(digest, range(10, 15))
    )
    first = labels[labels["image_id"] == digest(5)]
    assert first["class_name"].tolist() == ["dog"]


def test_one_certificate_stands_at_a_time_and_what_others_accepted_is_named(tables):
    add_round(tables, "round-0001", range(10))
    add_auto(tables, "round-0002", range(10, 15))
    add_auto(tables, "round-0003", range(13, 17), name="dog", new=False)
    tables.write(
        CleanedImages,
        "round-0003",
        CleanedImages.from_rows([cleaned("round-0003", n) for n in (15, 16)]),
    )

    def accepted(**options):
        built = build_with_auto(tables, "round-0003", **options)
        auto = built.labels[built.labels["origin"] == "auto"]
        why = {key: reason for key, reason in built.held_images.items() if key not in auto}
        return dict(zip(auto["image_id"], auto["class_name"], strict=True)), why

    found, why = accepted()
    assert found == {digest(number): "dog" for number in range(13, 17)}
    assert why == {
        digest(number): "accepted without a person in round-0002, and the certificate of round-0003"
        " does not cover it"
        for number in range(10, 13)
    }
    # Where the last one does not stand, the one before does: it speaks of its own images.
    contradicted = {
        "round_id": "round-0004",
        "certified_round": "round-0003",
        "images": 3,
        "labels": 3,
        "errors": 3,
        "alpha": 0.05,
        "contradicted": True,
    }
    tables.write(CertificateRechecks, "round-0004", CertificateRechecks.from_rows([contradicted]))
    found, why = accepted()
    assert found == {digest(number): "cat" for number in range(10, 15)}
    assert set(why) == {digest(15), digest(16)}
    assert "contradict its certificate" in why[digest(15)]
    found, why = accepted(cancelled={"round-0002": "the vendor cheated"})
    assert found == {}
    assert "the vendor cheated" in why[digest(10)]


def test_another_proposal_is_another_state_of_the_round(tables):
    add_round(tables, "round-0001", range(3))
    add_auto(tables, "round-0002", range(3, 6))
    before = build_with_auto(tables, "round-0002").rounds
    add_auto(tables, "round-0002", range(3, 6), name="dog")
    after = build_with_auto(tables, "round-0002").rounds
    assert before["round-0001"] == after["round-0001"]
    assert before["round-0002"] != after["round-0002"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        pytest.param({"box": (1.0, 2.0, 300.0, 40.0)}, "outside the image", id="box"),
        pytest.param({"name": "cow"}, "outside the ontology", id="class"),
    ],
)
def test_an_accepted_proposal_that_cannot_be_leaves_its_image_out_and_is_named(
    tables, options, why
):
    add_round(tables, "round-0001", range(3))
    add_auto(tables, "round-0002", [7], **options)
    built = build_with_auto(tables, "round-0002")
    assert digest(7) not in set(built.labels["image_id"])
    assert why in built.held_images[digest(7)]
