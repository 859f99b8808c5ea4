"""Annotations of release 0.1.0 are read as they were then, and nothing of them comes twice.

``tests/data/labeling-0.1.0`` was written by the code of commit 20fc45f: a lake with the ledger and
a vendor's round, a simulated back end, what vendors returned, and the labels read from it all.
"""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from annotation_platform.errors import DataError, SettingsError
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.labeling.annotation_tables import human_labels
from annotation_platform.labeling.backends.pybossa.exports import read_pybossa
from annotation_platform.labeling.backends.regions import (
    read_pre_annotations,
    shown_regions,
    write_decision,
    write_regions,
)
from annotation_platform.labeling.backends.registry import (
    BACKENDS,
    CODECS,
    check_backend,
    count_regions,
    decode,
    decode_review,
    is_changed,
)
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
from annotation_platform.labeling.backends.vendor.returns import import_annotations, read_returned
from annotation_platform.labeling.counting import count_annotations
from annotation_platform.labeling.ledger import AnnotationsLedger, as_revision
from annotation_platform.schema.annotations import (
    FIRST_CODEC,
    Canvas,
    Payload,
    PreAnnotation,
    Review,
    same_labels,
)
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import UNSURE, Label
from annotation_platform.schema.tables import HumanLabels
from annotation_platform.schema.tables.shared import NO_EXTRAS
from annotation_platform.storage.objects import LocalObjectStore
from tests.core.labeling.outside import (
    HEIGHT,
    LATER,
    ONTOLOGY,
    ROUND,
    WIDTH,
    image_id,
    make_copies,
    proposal,
    put_images,
    tasks_of,
)

OLD = Path(__file__).resolve().parents[2] / "data" / "labeling-0.1.0"
ROUNDS = (ROUND, "round-0002", "round-0003")
CANVAS = Canvas(WIDTH, HEIGHT, ONTOLOGY)


@pytest.fixture
def store(tmp_path):
    shutil.copytree(OLD / "lake", tmp_path / "lake")
    store = LocalObjectStore(tmp_path / "lake")
    put_images(store, 3)
    return store


@pytest.fixture
def simulated(tmp_path):
    with closing(sqlite3.connect(tmp_path / "old.sqlite")) as connection:
        connection.executescript((OLD / "simulated.sql").read_text())
    return SimulatedLabeling(tmp_path / "old.sqlite")


def as_blind(replicas):
    shown = {"weights_sha256": "a" * 64, "pre_annotations": (proposal(10, 20, 60, 80),)}
    return [
        replace(replica, **({"without_predictions": True} if replica.assignment == 2 else shown))
        for replica in replicas
    ]


def without_codecs(submission):
    """The line as release 0.1.0 wrote it."""
    content = {**vars(submission), "result": submission.payload.content}
    content["place"] = content.pop("assignment")
    content["proposed"] = content.pop("pre_annotations").content
    del content["payload"]
    times = {name: content[name].isoformat() for name in ("created_at", "updated_at")}
    return {**content, **times}


@pytest.mark.parametrize("round_id", ROUNDS)
def test_lines_of_the_first_release_keep_their_digests_and_their_content(store, round_id):
    path = OLD / f"lake/ledger/answers/{round_id}/000001.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    revisions = AnnotationsLedger(store).read(round_id)
    assert [each.digest for each in revisions] == [line["digest"] for line in lines]
    assert {each.submission.payload.codec for each in revisions} == {FIRST_CODEC}
    for revision, line in zip(revisions, lines, strict=True):
        assert as_revision(revision.submission).digest == line["digest"]
        assert without_codecs(revision.submission) == line["submission"]


@pytest.mark.parametrize("round_id", ROUNDS)
def test_lines_of_the_first_release_give_the_labels_that_they_gave(store, round_id):
    revisions = AnnotationsLedger(store).read(round_id)
    tasks = tasks_of(VendorLabeling(store), as_blind(make_copies(3, 2)))
    images = pd.DataFrame({"image_id": [image_id(n) for n in range(3)]})
    names = {each.submission.author: f"annotator-{each.submission.author}" for each in revisions}
    table = human_labels(
        round_id, count_annotations(revisions, tasks), tasks,
        images.assign(width=WIDTH, height=HEIGHT), ONTOLOGY, names,
    )  # fmt: skip
    # The recorded labels have the columns of release 0.1.0, under their names.
    assert (table[list(NO_EXTRAS)].isna() | table[list(NO_EXTRAS)].isin(["", False])).all(axis=None)
    first_names = {
        name: column.renamed_from[-1]
        for name, column in HumanLabels.columns.items()
        if column.renamed_from
    }
    table = table.drop(columns=list(NO_EXTRAS)).rename(columns=first_names)
    text = table.to_json(orient="records", date_format="iso", double_precision=15)
    # Problems of release 0.1.0 have another word for images.
    recorded = (OLD / "human_labels.json").read_text()
    recorded = recorded.replace("a picture", "an image").replace("picture", "image")
    assert json.loads(text) == json.loads(recorded)[round_id]


def test_what_back_ends_show_again_after_an_upgrade_is_no_further_revision(store, simulated):
    ledger = AnnotationsLedger(store)
    assert ledger.append(ROUND, VendorLabeling(store).collect(ROUND), now=LATER) == 0
    assert ledger.append("round-0002", simulated.collect("round-0002"), now=LATER) == 0
    # As Label Studio's client gives them today.
    again = [each.submission for each in ledger.read("round-0003")]
    nothing_shown = [
        each if each.pre_annotations.content else replace(each, pre_annotations=None)
        for each in again
    ]
    assert ledger.append("round-0003", nothing_shown, now=LATER) == 0


def test_a_simulated_round_of_the_first_release_goes_on_in_the_same_file(simulated):
    (assignment,) = simulated.open_assignments("ada")[:1]
    assert assignment.pre_annotations.codec == FIRST_CODEC
    assert same_labels(
        decode(assignment.pre_annotations, CANVAS).labels, [proposal(10, 20, 60, 80).label]
    )
    simulated.submit(
        assignment.backend_task, "ada", write_regions([Label.box("boat", 1, 2, 3, 4)]), 2
    )
    old, new = simulated.collect("round-0002")
    assert (old.payload.codec, new.payload.codec) == (FIRST_CODEC, "regions/1")
    assert decode(new.payload, CANVAS).labels == [Label.box("boat", 1, 2, 3, 4)]
    assert is_changed(new.payload, new.pre_annotations, CANVAS)
    assert not is_changed(old.payload, old.pre_annotations, CANVAS)


def test_a_package_of_the_first_release_and_its_annotations_are_known(store):
    vendor = VendorLabeling(store)
    (replica,) = {each.codec for each in vendor.replicas(ROUND)}
    assert replica == FIRST_CODEC
    manifest = vendor.make_package(ROUND, vendor="acme")
    assert manifest.to_json() == (OLD / "manifest.json").read_bytes()
    returned = [read_returned(OLD / name) for name in ("answers.json", "answers.coco.json")]
    returned.append(read_pybossa(OLD / "task.json", OLD / "task_run.json"))
    for each in returned:
        done = import_annotations(vendor, each, annotator="kim", now=LATER)
        assert (done.stored, done.problems) == (0, [])
        assert done.known == len(each.annotations) > 0


def test_a_package_of_today_is_that_of_the_first_release(tmp_path):
    store = LocalObjectStore(tmp_path / "lake")
    put_images(store, 3)
    vendor = VendorLabeling(store)
    vendor.publish(ROUND, ONTOLOGY, as_blind(make_copies(3, 2)))
    assert {each.codec for each in vendor.replicas(ROUND)} == {"regions/1"}
    manifest = vendor.make_package(ROUND, vendor="acme")
    assert manifest.to_json() == (OLD / "manifest.json").read_bytes()
    for name, codecs in (
        ("answers.json", {FIRST_CODEC, "vendor-answers/1"}),
        ("answers.coco.json", {"vendor-coco/1"}),
    ):
        returned = read_returned(OLD / name)
        assert {each.payload.codec for each in returned.annotations} == codecs
        assert import_annotations(vendor, returned, annotator="kim", now=LATER).problems == []
    read = {each.assignment: decode(each.payload, CANVAS) for each in vendor.collect(ROUND)}
    assert [UNSURE] in [each.labels for each in read.values()]


def test_every_name_in_the_registry_leads_to_what_it_names():
    unsure = {"unsure": True, "result": []}
    contents = {
        "label-studio/1": ([{"value": {}}], 1),
        "regions/1": (write_regions([UNSURE, BOX]), 2),
        "vendor-answers/1": (unsure, 1),
        "vendor-coco/1": ({"images": [], "categories": [], "annotations": []}, 0),
        "pybossa/1": ("boat", 1),
    }
    assert set(contents) == set(CODECS)
    for name, (content, regions) in contents.items():
        assert count_regions(Payload(name, content)) == regions, name
    assert set(BACKENDS) == {"label-studio", "simulated", "handoff"}
    for name in BACKENDS:
        check_backend(name)
    with pytest.raises(SettingsError, match="chalk"):
        check_backend("chalk")
    with pytest.raises(DataError, match="no codec 'chalk/1'"):
        decode(Payload("chalk/1", []), CANVAS)


BOX = Label.box("box", 1.25, 2, 30, 40)
PIXELS = np.zeros((HEIGHT, WIDTH), bool)
PIXELS[5:9, 7:20] = True
LABELS = [
    BOX,
    Label.rotated_box("rotated_box", 60.5, 70, 20, 10, 33),
    Label.polygon("polygon", [[1, 2, 30, 4, 5, 60], [100, 100, 120, 100, 110, 130]]),
    Label.mask("mask", PIXELS),
    Label.keypoint("keypoint", 3.5, 4),
    Label.choice("choice"),
]
ALL = Ontology(
    classes=[LabelClass(id=n, name=each.shape, shape=each.shape) for n, each in enumerate(LABELS)]
)
ON_ALL = Canvas(WIDTH, HEIGHT, ALL)


def read(*regions, canvas=ON_ALL):
    return decode(Payload("regions/1", json.loads(json.dumps(list(regions)))), canvas)


def test_neutral_regions_of_every_shape_come_back_exactly():
    found = read(*write_regions(LABELS))
    assert (found.labels, found.problems, found.refused) == (LABELS, [], 0)
    assert read().labels == []
    # Whatever else was drawn, an unsure annotator has not labelled it.
    assert read(*write_regions([BOX, UNSURE])).labels == [UNSURE]


def test_shown_regions_keep_scores_and_are_unchanged_whatever_their_order():
    shown = [PreAnnotation(each, n / 10 if n else None) for n, each in enumerate(LABELS)]
    payload = shown_regions(shown)
    assert read_pre_annotations(json.loads(json.dumps(payload.content))) == shown
    as_drawn = Payload("regions/1", write_regions(reversed(LABELS), key="mine-"))
    assert not is_changed(as_drawn, payload, ON_ALL)
    fewer = Payload("regions/1", write_regions(LABELS[1:]))
    assert is_changed(fewer, payload, ON_ALL)
    assert is_changed(fewer, None, ON_ALL)
    assert not is_changed(Payload("regions/1", []), None, ON_ALL)


def test_payloads_of_two_codecs_are_compared_by_their_labels():
    boxes = [each for each in LABELS if each.shape in {"box", "polygon"}]
    drawn = Payload("label-studio/1", write_result(boxes, WIDTH, HEIGHT))
    shown = Payload("regions/1", write_regions(boxes))
    assert not is_changed(drawn, shown, ON_ALL)
    assert is_changed(drawn, Payload("regions/1", write_regions(boxes[:1])), ON_ALL)
    broken = Payload("label-studio/1", [*drawn.content, {"type": "what"}])
    assert is_changed(broken, shown, ON_ALL)


def with_label(**changes):
    return {"id": "7", "label": {**write_regions([BOX])[0]["label"], **changes}}


@pytest.mark.parametrize(
    ("region", "problem"),
    [
        pytest.param("boat", "expected an object with a label", id="no object"),
        pytest.param({"id": "7"}, "expected an object with a label", id="no label"),
        pytest.param(with_label(x1="1"), "x1: ", id="no number"),
        pytest.param(with_label(x1=float("nan")), "usable number|four numbers", id="not finite"),
        pytest.param({"id": "7", "label": {"shape": "box", "class_name": "box"}},
                     "usable number|four numbers", id="no place"),
        pytest.param(with_label(class_name="ship"), "'ship' is not in the ontology", id="class"),
        pytest.param(with_label(class_name="polygon"), "has shape 'polygon'", id="shape"),
        pytest.param(with_label(shape="ring"), "'ring'", id="no shape"),
        pytest.param(with_label(x2=1.25), "no area|too small", id="no area"),
        pytest.param(with_label(x1=400, x2=500), "entirely outside", id="outside"),
        pytest.param(with_label(x1=-40), "reaches 12.5 percent outside", id="far outside"),
        pytest.param({"label": {"shape": "polygon", "class_name": "polygon", "geometry": "[[1]]"}},
                     "geometry|argument|four numbers", id="no outline"),
        pytest.param({"label": {"shape": "keypoint", "class_name": "keypoint",
                                "geometry": "[900, 1]", "x1": 900.0, "y1": 1.0, "x2": 900.0,
                                "y2": 1.0}}, "outside", id="a point outside"),
        pytest.param({"label": {"shape": "mask", "class_name": "mask",
                                "geometry": '{"size": [1, 1], "counts": "01"}', "x1": 0.0,
                                "y1": 0.0, "x2": 1.0, "y2": 1.0}},
                     "size|mask", id="a mask of another image"),
    ],
)  # fmt: skip
def test_a_neutral_region_that_cannot_be_used_is_a_problem_and_no_label(region, problem):
    found = read(region, *write_regions([Label.keypoint("keypoint", 1, 1)], key="good-"))
    assert found.labels == [Label.keypoint("keypoint", 1, 1)]
    assert found.refused == 1
    assert re.search(problem, found.problems[0])
    assert found.problems[0].startswith("region ")


def test_boxes_just_outside_are_clipped_with_a_remark_and_the_same_region_counts_once():
    found = read(with_label(x1=-16), with_label(x1=-16))
    assert found.labels == [replace(BOX, x1=0.0)]
    assert (found.refused, len(found.problems)) == (0, 3)
    assert "given twice" in found.problems[2]


def test_two_choices_where_one_is_asked_are_both_refused():
    names = ["day", "night"]
    classes = [LabelClass(id=n, name=name, shape="choice") for n, name in enumerate(names)]
    canvas = Canvas(WIDTH, HEIGHT, Ontology(classes=classes, choose="one"))
    found = read(*write_regions([Label.choice(name) for name in names]), canvas=canvas)
    assert (found.labels, found.refused) == ([], 2)


def test_a_review_is_accepted_fixed_or_rejected_in_neutral_regions():
    shown = shown_regions([PreAnnotation(BOX)])

    def decided(*content):
        return decode_review(Payload("regions/1", list(content)), shown, ON_ALL)

    same, accept = write_regions([BOX]), write_decision("accept", " Well seen. ")
    assert decided(*accept, *same) == Review("accepted", [BOX], "Well seen.", [])
    assert decided(*accept) == Review("fixed", [], "Well seen.", [])
    assert decided(*write_decision("reject", "Too wide.")).comment == "Too wide."
    (problem,) = decided(*write_decision("reject")).problems
    assert "without a reason" in problem
    assert decided(*same) is None
    assert decided(*accept, *write_decision("reject", "no")) is None
    assert decided(*accept, *write_regions([UNSURE])) is None
    assert decided(*accept, {"id": "1"}) is None


def test_coco_annotations_that_are_more_than_a_box_give_the_box_around_them():
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}],
        "categories": [{"id": 3, "name": "boat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 20, 30, 40], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 1, 1],
             "segmentation": [[5, 6, 50, 6, 50, 60]]},
        ],
    }  # fmt: skip
    found = decode(Payload("vendor-coco/1", document), CANVAS)
    assert found.labels == [Label.box("boat", 10, 20, 40, 60), Label.box("boat", 5, 6, 50, 60)]
    bare = {**document, "annotations": document["annotations"][:1]}
    assert decode(Payload("vendor-coco/1", bare), CANVAS).labels == found.labels[:1]
