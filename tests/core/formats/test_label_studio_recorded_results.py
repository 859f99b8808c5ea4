"""Payloads that a real Label Studio wrote, and a damaged export: what each of them says."""

import json
import math

import numpy as np
import pytest

from annotation_platform.formats.label_studio.results import read_result, write_result
from annotation_platform.schema.annotations import same_labels
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import Label, rotated_corners

WIDTH, HEIGHT = 640, 480

# The project that was recorded, as project_create.json has it.
SHAPES = {
    "Cat": "box",
    "Dog": "box",
    "CatP": "polygon",
    "DogP": "polygon",
    "Nose": "keypoint",
    "Mask": "mask",
    "ok": "choice",
    "bad": "choice",
}


def ontology(shapes):
    pairs = enumerate(shapes.items())
    return Ontology(classes=tuple(LabelClass(id=n, name=a, shape=b) for n, (a, b) in pairs))


RECORDED = ontology(SHAPES)
ROTATED = ontology({**SHAPES, "Cat": "rotated_box"})


def read(regions, of=RECORDED, width=WIDTH, height=HEIGHT):
    return read_result(regions, width=width, height=height, ontology=of)


def sides(label):
    return (label.x1, label.y1, label.x2, label.y2)


def results_in(payload):
    """Yield every list of regions in a payload: of annotations, predictions, drafts, webhooks."""
    if isinstance(payload, dict):
        if isinstance(payload.get("result"), list):
            yield payload["result"]
        payload = list(payload.values())
    if isinstance(payload, list):
        for each in payload:
            yield from results_in(each)


# What was drawn, in percent, and what that is of 640 × 480 pixels.
PREDICTED_CAT = (0.156 * 640, 0.166 * 480, 0.468 * 640, 0.582 * 480)
PREDICTED_DOG = (0.547 * 640, 0.416 * 480, 0.875 * 640, 0.832 * 480)
DRAWN_DOG = (
    0.06810686015831134 * 640,
    0.6919525065963063 * 480,
    (0.06810686015831134 + 0.14445910290237471) * 640,
    (0.6919525065963063 + 0.19129287598944586) * 480,
)
DRAWN_POLYGON = (
    *(0.59548153034300796 * 640, 0.06794195250659632 * 480),
    *(0.7399406332453826 * 640, 0.06794195250659632 * 480),
    *(0.7399406332453826 * 640, 0.21174142480211085 * 480),
    *(0.59548153034300796 * 640, 0.21174142480211085 * 480),
)
DRAWN_POINT = (0.8834102902374671 * 640, 0.11675461741424806 * 480)


def check_what_was_drawn(labels):
    """The person kept two pre_annotations and drew a box, a polygon, a point and a stroke."""
    cat, dog, other_dog, polygon, point, mask, *choices = labels
    assert [label.class_name for label in (cat, dog, other_dog)] == ["Cat", "Dog", "Dog"]
    assert sides(cat) == pytest.approx(PREDICTED_CAT)
    assert sides(dog) == pytest.approx(PREDICTED_DOG)
    assert sides(other_dog) == pytest.approx(DRAWN_DOG)
    assert (polygon.shape, polygon.class_name) == ("polygon", "CatP")
    assert polygon.values[0] == pytest.approx(DRAWN_POLYGON, abs=1e-6)
    assert (point.shape, point.class_name) == ("keypoint", "Nose")
    assert point.values == pytest.approx(DRAWN_POINT, abs=1e-6)
    assert (mask.shape, mask.class_name) == ("mask", "Mask")
    return mask, choices


@pytest.mark.parametrize("name", ["ui_submit_request.json", "ui_submit_response.json"])
def test_what_a_person_submitted_in_the_browser_is_read_shape_by_shape(public, name):
    converter = pytest.importorskip("label_studio_sdk.converter.brush", reason="not installed")
    sample = json.loads((public("label_studio_samples") / name).read_text())
    parsed = read(sample["result"])
    assert (parsed.problems, parsed.refused) == ([], 0)
    mask, choices = check_what_was_drawn(parsed.labels)
    assert choices == []
    code = sample["result"][-1]["value"]["rle"]
    alpha = converter.decode_rle(code).reshape(HEIGHT, WIDTH, 4)[:, :, 3]
    assert np.array_equal(mask.pixels, alpha >= 128)


def test_a_result_of_each_type_is_a_label_of_its_shape(public):
    recorded = json.loads((public("label_studio_samples") / "result_types.json").read_text())
    shapes = {
        kind: [label.shape for label in read([sample]).labels] for kind, sample in recorded.items()
    }
    assert shapes == {
        "rectanglelabels": ["box"],
        "polygonlabels": ["polygon"],
        "keypointlabels": ["keypoint"],
        "brushlabels": ["mask"],
        "choices": ["choice"],
    }
    assert read([recorded["choices"]]).labels == [Label.choice("ok")]


def test_the_export_of_the_project_holds_the_same_and_what_was_only_chosen(public):
    path = public("label_studio_samples") / "export_ui_project.json"
    sample = [read(regions) for regions in results_in(json.loads(path.read_text()))]
    assert {problem.split(": ")[1] for parsed in sample for problem in parsed.problems} == {
        "turned by 30 degrees; the box around it is taken"
    }
    by_number = {len(parsed.labels): parsed.labels for parsed in sample}
    check_what_was_drawn(by_number[6])
    assert [Label.choice("ok")] in [
        [label for label in parsed.labels if label.shape == "choice"] for parsed in sample
    ]


ONE_BOX = [
    "annotation_create_response.json",
    "draft_response.json",
    "export_JSON.json",
    "snapshot.json",
    "webhooks.json",
]


TURNED_BY_15 = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 15}


def turned_boxes(public):
    """The regions of every payload that say this box."""
    for name in ONE_BOX:
        payload = json.loads((public("label_studio_samples") / name).read_text())
        for regions in results_in(payload):
            if regions and regions[0]["value"].items() >= TURNED_BY_15.items():
                yield regions


# 128 × 96 pixels, turned clockwise about their corner at (64, 48), in pixels as it is seen. (Label
# Studio's own COCO export turns percents, and so distorts boxes on images that are not square.)
COS_15, SIN_15 = math.cos(math.radians(15)), math.sin(math.radians(15))


def test_a_turned_box_of_an_upright_class_is_enclosed(public):
    found = [read(regions) for regions in turned_boxes(public)]
    assert len(found) > 20
    for parsed in found:
        (label,) = parsed.labels
        right, bottom = 64 + 128 * COS_15, 48 + 128 * SIN_15 + 96 * COS_15
        assert sides(label) == pytest.approx((64 - 96 * SIN_15, 48, right, bottom))
        assert "turned by 15 degrees" in parsed.problems[0]


def test_a_turned_box_of_a_class_of_rotated_boxes_keeps_its_angle(public):
    centre = (64 + (128 * COS_15 - 96 * SIN_15) / 2, 48 + (128 * SIN_15 + 96 * COS_15) / 2)
    for regions in turned_boxes(public):
        parsed = read(regions, of=ROTATED)
        (label,) = parsed.labels
        assert label.values == pytest.approx([*centre, 128, 96, 15], abs=1e-6)
        assert rotated_corners(*label.values)[0] == pytest.approx((64, 48), abs=1e-5)
        assert parsed.problems == []


def test_every_recorded_payload_is_read_without_a_refusal(public):
    regions = 0
    for path in sorted(public("label_studio_samples").glob("*.json")):
        if path.name == "video_export.json":
            continue
        for result in results_in(json.loads(path.read_text())):
            parsed = read(result)
            assert (path.name, parsed.refused) == (path.name, 0)
            assert len(parsed.labels) == len(result)
            regions += len(result)
    assert regions > 90


def test_every_recorded_payload_says_the_same_when_written_and_read_again(public):
    for path in sorted(public("label_studio_samples").glob("*.json")):
        for result in results_in(json.loads(path.read_text())):
            labels = read(result, of=ROTATED).labels
            again = read(write_result(labels, WIDTH, HEIGHT), of=ROTATED)
            assert again.problems == []
            assert same_labels(again.labels, labels, pixels=2e-6)


def test_a_video_is_named_and_not_used(public):
    path = public("label_studio_samples") / "video_export.json"
    (result,) = results_in(json.loads(path.read_text()))
    parsed = read(result)
    assert (parsed.labels, parsed.refused) == ([], 1)
    assert parsed.problems == ["region v1: type 'videorectangle' is not used here"]


def test_the_converters_boxes_are_read_in_pixels(public):
    path = public("formats_ls_converter") / "data" / "test_export_yolo" / "data.json"
    shapes = ontology({"parasites": "box", "white": "box"})
    results = list(results_in(json.loads(path.read_text())))
    parsed = [read(result, of=shapes, width=2800, height=2800) for result in results]
    assert sum(len(each.labels) for each in parsed) == 6
    assert not [each for each in parsed if each.problems]
    first = parsed[0].labels[0]
    left, top = 0.3715846994535519 * 2800, 0.7067395264116576 * 2800
    width, height = 0.04189435336976321 * 2800, 0.04735883424408015 * 2800
    assert first.class_name == "parasites"
    assert sides(first) == pytest.approx((left, top, left + width, top + height))


def test_the_converters_polygon_is_read_in_pixels(public):
    path = public("formats_ls_converter") / "data" / "test_export_json_min" / "data.json"
    (result,) = results_in(json.loads(path.read_text()))
    shapes = ontology({"Airplane": "polygon", "Car": "polygon"})
    (label,) = read(result, of=shapes, width=128, height=128).labels
    assert label.class_name == "Airplane"
    # The percents are of 63 and 315 steps: 28/63, 152/315 and so on, of 128 pixels.
    expected = [28 / 63, 152 / 315, 134 / 315, 190 / 315, 59 / 105, 32 / 63]
    found = np.array(label.values[0][:6]) / 128
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_converters_taxonomy_is_named_beside_the_box_it_is_about(public):
    path = public("formats_ls_converter") / "data" / "test_export_json_min" / "data_repeater.json"
    (result,) = results_in(json.loads(path.read_text()))
    parsed = read(result, of=ontology({"Document Title": "box"}), width=1280, height=720)
    left, top = 0.19466292134831463 * 1280, 0.5370786516853933 * 720
    width, height = 0.20351123595505622 * 1280, 0.20224719101123597 * 720
    (label,) = parsed.labels
    assert sides(label) == pytest.approx((left, top, left + width, top + height))
    assert parsed.problems == ["region FmoGRgYXtw: type 'taxonomy' is not used here"]


# evil_EXPECT.csv: what must come of each task of ls_export_bad.json, drawn on 64 × 48 pixels. The
# sound box is at 10 percent, 20 percent wide and high.
SOUND = (6.4, 4.8, 19.2, 14.4)
COS, SIN = math.cos(math.radians(30)), math.sin(math.radians(30))
TURNED = (6.4 - 9.6 * SIN, 4.8, 6.4 + 12.8 * COS, 4.8 + 12.8 * SIN + 9.6 * COS)
OUTCOMES = {
    1: (SOUND, ""),
    2: ((0, 4.8, 9.6, 14.4), "clipped at its edge"),
    3: (None, "reaches 10.0 percent outside"),
    4: (None, "no area"),
    5: (None, "x is nan"),
    6: (None, "x is inf"),
    7: (None, "no area"),
    8: (TURNED, "turned by 30 degrees"),
    9: (None, "class 'NOT_IN_CONFIG' is not in the ontology"),
    10: (None, "expected exactly one class, not []"),
    11: (None, "expected exactly one class, not ['cat', 'dog']"),
    12: (None, ""),
    # A skip: what was drawn can be read, but it is no vote (see the ledger's and the formats'
    # tests, which do not count it).
    13: (SOUND, ""),
    # A size outside the regions of an annotation is ignored.
    14: (SOUND, ""),
    15: (None, "drawn on an image of 640 × 480 pixels, the stored one has 64 × 48"),
    16: (None, "x is '10', not a usable number"),
    17: (None, "drawn on an image of None × None pixels"),
    18: (SOUND, "given twice, counted once"),
    # An e-mail address is none of what is read; the ledger's tests show that it stays there.
    19: (SOUND, ""),
    20: (None, "is not in the ontology"),
    21: (None, "type 'brushlabels' is not used here"),
    22: (None, "turned by 90 degrees"),
}


@pytest.mark.parametrize("task_id", OUTCOMES)
def test_each_task_of_a_damaged_export_meets_its_outcome(public, task_id):
    tasks = json.loads((public("evil") / "ls_export_bad.json").read_text())
    assert {task["id"] for task in tasks} == set(OUTCOMES)
    (sample,) = next(task["annotations"] for task in tasks if task["id"] == task_id)
    expected, problem = OUTCOMES[task_id]
    parsed = read(sample["result"], of=ontology({"cat": "box", "dog": "box"}), width=64, height=48)
    assert len(parsed.problems) == (1 if problem else 0)
    assert all(problem in each for each in parsed.problems)
    assert parsed.refused == (1 if expected is None and problem else 0)
    assert [label.class_name for label in parsed.labels] == ([] if expected is None else ["cat"])
    for label in parsed.labels:
        assert sides(label) == pytest.approx(expected)
    assert sample["was_cancelled"] == (task_id == 13)
