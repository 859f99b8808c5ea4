import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.labeling.client import Proposal
from annotation_platform.labeling.results import LabelledBox, boxes_to_result, result_to_boxes
from annotation_platform.schema.ontology import Ontology

CATS = Ontology.from_names(["Cat", "Dog"])
WIDTH, HEIGHT = 640, 480


def region(**changes):
    """A region as Label Studio 1.23.2 recorded it: 64 × 48 pixels at (64, 48)."""
    value = {"x": 10, "y": 10, "width": 10, "height": 10, "rotation": 0, "rectanglelabels": ["Cat"]}
    value |= {key: changes.pop(key) for key in list(changes) if key in value}
    return {
        "id": "r1",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": value,
        **changes,
    }


def parse(*regions):
    return result_to_boxes(list(regions), WIDTH, HEIGHT, CATS)


def corners(box):
    return (box.x1, box.y1, box.x2, box.y2)


def test_percent_become_pixels():
    parsed = parse(region())
    assert parsed.boxes == [LabelledBox("Cat", 64.0, 48.0, 128.0, 96.0)]
    assert parsed.problems == []


def test_an_empty_result_says_there_is_nothing_to_see():
    parsed = parse()
    assert (parsed.boxes, parsed.problems) == ([], [])


# Recorded from Label Studio 1.23.2's own front end: another order of fields, long floats.
RECORDED = """[
  {"original_width": 640, "original_height": 480, "image_rotation": 0, "value": {"x": 15.6,
   "y": 16.6, "width": 31.2, "height": 41.6, "rotation": 0, "rectanglelabels": ["Cat"]},
   "id": "x2", "from_name": "box", "to_name": "image", "type": "rectanglelabels",
   "origin": "prediction"},
  {"original_width": 640, "original_height": 480, "image_rotation": 0, "value": {
   "x": 6.810686015831134, "y": 69.19525065963063, "width": 14.445910290237471,
   "height": 19.129287598944586, "rotation": 0, "rectanglelabels": ["Dog"]},
   "id": "E87-8_gDIL", "from_name": "box", "to_name": "image", "type": "rectanglelabels",
   "origin": "manual"},
  {"original_width": 640, "original_height": 480, "image_rotation": 0, "value": {
   "points": [[59.5, 6.7], [73.9, 6.7], [73.9, 21.1]], "closed": true,
   "polygonlabels": ["CatP"]}, "id": "7Rv5mwmRD5", "from_name": "poly", "to_name": "image",
   "type": "polygonlabels", "origin": "manual"},
  {"id": "c1", "type": "choices", "from_name": "quality", "to_name": "image",
   "value": {"choices": ["ok"]}}
]"""


def test_what_the_front_end_sent_is_read_and_other_shapes_are_named():
    parsed = result_to_boxes(json.loads(RECORDED), WIDTH, HEIGHT, CATS)
    assert [box.class_name for box in parsed.boxes] == ["Cat", "Dog"]
    # 15.6 % of 640, 16.6 % of 480, and 31.2 % and 41.6 % further.
    assert corners(parsed.boxes[0]) == pytest.approx((99.84, 79.68, 299.52, 279.36))
    assert parsed.problems == [
        "region 7Rv5mwmRD5: a polygonlabels is not a box",
        "region c1: a choices is not a box",
    ]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"x": math.nan}, "x is nan", id="NaN"),
        pytest.param({"y": math.inf}, "y is inf", id="infinite"),
        pytest.param({"x": "10"}, "x is '10'", id="text"),
        pytest.param({"x": None}, "x is None", id="nothing"),
        pytest.param({"x": True}, "x is True", id="truth value"),
        pytest.param({"x": 10**400}, "not a usable number", id="larger than any float"),
        pytest.param({"rotation": "left"}, "rotation is 'left'", id="rotation as text"),
        pytest.param({"width": 0}, "no area", id="no width"),
        pytest.param({"height": -3}, "no area", id="negative height"),
        pytest.param({"x": -20}, "entirely outside", id="left of the picture"),
        pytest.param({"x": 1000}, "entirely outside", id="right of the picture"),
        pytest.param({"x": 96}, "6.0 percent outside", id="beyond the tolerance"),
        pytest.param({"rectanglelabels": []}, "exactly one class", id="no class"),
        pytest.param({"rectanglelabels": ["Cat", "Dog"]}, "exactly one class", id="two classes"),
        pytest.param({"rectanglelabels": "Cat"}, "exactly one class", id="class is no list"),
        pytest.param({"rectanglelabels": ["Yak"]}, "'Yak' is not in", id="unknown class"),
        pytest.param({"original_width": 641}, "641 × 480", id="another width"),
        pytest.param({"original_height": None}, "640 × None", id="height not said"),
        pytest.param({"image_rotation": 90}, "turned by 90", id="picture was turned"),
        pytest.param({"type": "brushlabels"}, "a brushlabels is not a box", id="mask"),
        pytest.param({"type": None}, "without a type", id="no type"),
        pytest.param({"value": None}, "no value", id="no value"),
    ],
)
def test_a_region_without_a_usable_box_is_a_problem_that_names_it(changes, problem):
    parsed = parse(region(**changes))
    assert parsed.boxes == []
    assert len(parsed.problems) == 1
    assert parsed.problems[0].startswith("region r1: ")
    assert problem in parsed.problems[0]


@pytest.mark.parametrize("result", [None, {}, "[]", 3])
def test_a_result_that_is_no_list_is_a_problem(result):
    parsed = result_to_boxes(result, WIDTH, HEIGHT, CATS)
    assert parsed.boxes == []
    assert len(parsed.problems) == 1


@pytest.mark.parametrize("wrong", [None, "box", 3, []])
def test_a_region_that_is_no_object_is_named_by_its_position(wrong):
    parsed = parse(region(), wrong)
    assert len(parsed.boxes) == 1
    assert parsed.problems[0].startswith("region number 2: ")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # 5 % of 640 are 32 pixels: what is left of the box ends at 5 % of the width.
        pytest.param({"x": -5}, (0, 48, 32, 96), id="left edge"),
        pytest.param({"y": 94}, (64, 451.2, 128, 480), id="bottom edge"),
    ],
)
def test_a_box_a_little_outside_is_clipped_and_flagged(changes, expected):
    parsed = parse(region(**changes))
    assert corners(parsed.boxes[0]) == pytest.approx(expected)
    assert parsed.problems == ["region r1: partly outside the picture; clipped at its edge"]


def test_a_browsers_rounding_at_the_edge_is_no_problem():
    parsed = parse(region(x=90, width=10.000000000000014))
    assert parsed.boxes[0].x2 == WIDTH
    assert parsed.problems == []


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        # A square of 48 pixels at (64, 48), turned clockwise about that corner.
        pytest.param(90, (16, 48, 64, 96), id="quarter turn"),
        pytest.param(-90, (64, 0, 112, 48), id="quarter turn back"),
        pytest.param(
            45,
            (64 - 24 * math.sqrt(2), 48, 64 + 24 * math.sqrt(2), 48 + 48 * math.sqrt(2)),
            id="eighth turn",
        ),
    ],
)
def test_a_turned_box_gives_the_box_around_it_and_a_note(rotation, expected):
    parsed = parse(region(width=7.5, height=10, rotation=rotation))
    assert corners(parsed.boxes[0]) == pytest.approx(expected)
    assert parsed.problems == [
        f"region r1: turned by {rotation} degrees; the box around it is taken"
    ]


def test_a_full_turn_is_none():
    assert parse(region(rotation=360)).problems == []


def test_the_same_region_said_twice_counts_once_and_is_noted():
    parsed = parse(region(), region())
    assert len(parsed.boxes) == 1
    assert parsed.problems == ["region r1: said twice, counted once"]


def test_two_equal_boxes_drawn_apart_are_two():
    assert len(parse(region(), region(id="r2")).boxes) == 2


def test_a_proposal_keeps_its_score_and_the_size_of_its_picture():
    (made,) = boxes_to_result([Proposal("Cat", 64, 48, 128, 96, score=0.7)], WIDTH, HEIGHT)
    assert made["value"] == region()["value"]
    assert (made["score"], made["original_width"], made["original_height"]) == (0.7, 640, 480)


def test_a_picture_without_pixels_has_no_percent():
    with pytest.raises(ValueError, match="0 × 480"):
        boxes_to_result([], 0, HEIGHT)


@st.composite
def boxes_in_a_picture(draw):
    width, height = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        x2, y2 = draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))
        boxes.append(LabelledBox(draw(st.sampled_from(CATS.names)), x1, y1, x2, y2))
    return width, height, boxes


@given(boxes_in_a_picture())
def test_boxes_come_back_as_they_went(drawn):
    width, height, boxes = drawn
    sent = json.loads(json.dumps(boxes_to_result(boxes, width, height)))
    parsed = result_to_boxes(sent, width, height, CATS)
    assert parsed.problems == []
    assert [box.class_name for box in parsed.boxes] == [box.class_name for box in boxes]
    for found, expected in zip(parsed.boxes, boxes, strict=True):
        assert corners(found) == pytest.approx(corners(expected), abs=1e-6)


odd_values = st.one_of(st.floats(), st.integers(), st.sampled_from([None, True, "", "10", []]))


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(
                ("x", "y", "width", "height", "rotation", "original_width", "id", "type"),
                odd_values,
            ),
        ),
        max_size=4,
    )
)
def test_every_region_gives_a_box_inside_the_picture_or_a_problem(changes):
    parsed = parse(*(region(**change) for change in changes))
    assert len(parsed.boxes) + len(parsed.problems) >= len(changes)
    for box in parsed.boxes:
        assert 0 <= box.x1 < box.x2 <= WIDTH
        assert 0 <= box.y1 < box.y2 <= HEIGHT
