import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotation_platform.formats.label_studio.brush import encode_mask
from annotation_platform.formats.label_studio.results import read_result, write_result
from annotation_platform.labeling.backends.registry import decode_review
from annotation_platform.schema.annotations import Canvas, Payload, Review, same_labels
from annotation_platform.schema.ontology import LabelClass, Ontology, RetiredClass
from annotation_platform.schema.shapes import NOTHING, UNSURE, Label

SHAPES = {
    "Cat": "box",
    "Dog": "box",
    "Ship": "rotated_box",
    "Roof": "polygon",
    "Field": "polygon",
    "Water": "mask",
    "Nose": "keypoint",
    "Day": "choice",
    "Night": "choice",
}


def ontology(choose="one", **changes):
    classes = tuple(
        LabelClass(id=n, name=name, shape=shape) for n, (name, shape) in enumerate(SHAPES.items())
    )
    return Ontology(classes=classes, choose=choose, **changes)


ALL = ontology()
WIDTH, HEIGHT = 640, 480


def region(kind="rectanglelabels", class_name="Cat", **changes):
    """A region as Label Studio 1.23.2 recorded it: by default 64 × 48 pixels at (64, 48)."""
    values = {
        "rectanglelabels": {"x": 10, "y": 10, "width": 10, "height": 10, "rotation": 0},
        "polygonlabels": {"points": [[10, 10], [20, 10], [20, 20]], "closed": True},
        "keypointlabels": {"x": 10, "y": 10, "width": 0.2},
        "brushlabels": {"format": "rle", "rle": []},
    }
    value = {**values[kind], kind: [class_name]}
    value |= {key: changes.pop(key) for key in list(changes) if key in value}
    return {
        "id": "r1",
        "type": kind,
        "from_name": "label",
        "to_name": "image",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "image_rotation": 0,
        "value": value,
        **changes,
    }


def polygon(*points, class_name="Roof", **changes):
    """A polygon whose points are given in pixels."""
    shares = [[x * 100 / WIDTH, y * 100 / HEIGHT] for x, y in points]
    return region("polygonlabels", class_name, points=shares, **changes)


def choices(*names, from_name="choice", **changes):
    value = {"choices": list(names)}
    return {"id": "c1", "type": "choices", "from_name": from_name, "value": value, **changes}


UNSURE_REGION = choices("unsure", from_name="unsure", id="u1")


def parse(*regions, of=ALL):
    return read_result(list(regions), width=WIDTH, height=HEIGHT, ontology=of)


def sides(label):
    return (label.x1, label.y1, label.x2, label.y2)


def test_percent_become_pixels():
    parsed = parse(region())
    assert parsed.labels == [Label.box("Cat", 64.0, 48.0, 128.0, 96.0)]
    assert (parsed.problems, parsed.refused) == ([], 0)


def test_an_empty_result_says_there_is_nothing_to_see():
    parsed = parse()
    assert (parsed.labels, parsed.problems, parsed.refused) == ([], [], 0)


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
        pytest.param({"x": -20}, "entirely outside", id="left of the image"),
        pytest.param({"x": 1000}, "entirely outside", id="right of the image"),
        pytest.param({"x": 96}, "6.0 percent outside", id="beyond the tolerance"),
        pytest.param({"rectanglelabels": []}, "exactly one class", id="no class"),
        pytest.param({"rectanglelabels": ["Cat", "Dog"]}, "exactly one class", id="two classes"),
        pytest.param({"rectanglelabels": "Cat"}, "exactly one class", id="class is no list"),
        pytest.param({"rectanglelabels": ["Yak"]}, "'Yak' is not in", id="unknown class"),
        pytest.param({"original_width": 641}, "641 × 480", id="another width"),
        pytest.param({"original_height": None}, "640 × None", id="height missing"),
        pytest.param({"image_rotation": 90}, "turned by 90", id="image was turned"),
        pytest.param({"width": 1e-320}, "too small", id="no width that counts"),
        pytest.param({"type": "brushlabels"}, "exactly one class, not None", id="mask without one"),
        pytest.param(
            {"type": "ellipselabels"}, "type 'ellipselabels' is not used here", id="ellipse"
        ),
        pytest.param({"type": "videorectangle"}, "type 'videorectangle' is not used", id="video"),
        pytest.param({"type": "textarea"}, "type 'textarea' is not used here", id="text written"),
        pytest.param({"type": ["choices"]}, "not used here", id="type is a list"),
        pytest.param({"type": None}, "type None is not used", id="no type"),
        pytest.param({"value": None}, "no value", id="no value"),
        pytest.param({"rectanglelabels": ["cat"]}, "is 'Cat' meant?", id="class in other case"),
        pytest.param({"rectanglelabels": [" Cat"]}, "is 'Cat' meant?", id="class with a space"),
        pytest.param({"rectanglelabels": ["Ｃat"]}, "is 'Cat' meant?", id="class in wide letters"),
        pytest.param({"rectanglelabels": ["Roof"]}, "a box, but class 'Roof' is a polygon", id="p"),
        pytest.param({"rectanglelabels": ["Day"]}, "is chosen of the image", id="a choice"),
    ],
)
def test_a_region_without_a_usable_box_is_a_problem_that_names_it(changes, problem):
    parsed = parse(region(**changes))
    assert (parsed.labels, parsed.refused) == ([], 1)
    assert len(parsed.problems) == 1
    assert parsed.problems[0].startswith("region r1: ")
    assert problem in parsed.problems[0]


def test_shapes_of_which_there_is_no_class_are_not_used():
    boxes = Ontology.from_names(["Cat"])
    parsed = parse(region("brushlabels"), region("polygonlabels"), of=boxes)
    assert parsed.problems == [
        "region r1: type 'brushlabels' is not used here",
        "region r1: type 'polygonlabels' is not used here",
    ]


@pytest.mark.parametrize("result", [None, {}, "[]", 3])
def test_a_result_that_is_no_list_is_a_problem(result):
    parsed = read_result(result, width=WIDTH, height=HEIGHT, ontology=ALL)
    assert (parsed.labels, len(parsed.problems), parsed.refused) == ([], 1, 1)


@pytest.mark.parametrize("wrong", [None, "box", 3, []])
def test_a_region_that_is_no_object_is_named_by_its_position(wrong):
    parsed = parse(region(), wrong)
    assert len(parsed.labels) == 1
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
    assert sides(parsed.labels[0]) == pytest.approx(expected)
    assert parsed.problems == ["region r1: partly outside the image; clipped at its edge"]


def test_a_browsers_rounding_at_the_edge_is_no_problem():
    boxed = parse(region(x=90, width=10.000000000000014))
    pointed = parse(region("keypointlabels", "Nose", x=100.00000000000001, y=-1e-13))
    drawn = parse(polygon((0, 0), (640.000001, 0), (320, 480.000001)))
    assert (boxed.labels[0].x2, boxed.problems) == (WIDTH, [])
    assert (pointed.labels, pointed.problems) == ([Label.keypoint("Nose", WIDTH, 0)], [])
    assert (drawn.labels, drawn.problems) == (
        [Label.polygon("Roof", [[0, 0, 640, 0, 320, 480]])],
        [],
    )


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
def test_a_turned_box_of_an_upright_class_gives_the_box_around_it_and_a_note(rotation, expected):
    parsed = parse(region(width=7.5, height=10, rotation=rotation))
    assert sides(parsed.labels[0]) == pytest.approx(expected)
    assert parsed.problems == [
        f"region r1: turned by {rotation} degrees; the box around it is taken"
    ]


@pytest.mark.parametrize(
    ("rotation", "centre", "expected"),
    [
        # 64 × 48 pixels at (64, 48), turned clockwise about that corner.
        pytest.param(0, (96, 72), (64, 48, 128, 96), id="not turned"),
        pytest.param(90, (40, 80), (16, 48, 64, 112), id="quarter turn"),
        pytest.param(-90, (88, 16), (64, -16, 112, 48), id="quarter turn back"),
    ],
)
def test_a_rotated_box_keeps_its_centre_sides_and_angle(rotation, centre, expected):
    (label,) = parse(region(class_name="Ship", rotation=rotation)).labels
    assert label.values == pytest.approx([*centre, 64, 48, rotation % 360])
    x1, y1, x2, y2 = expected
    assert sides(label) == pytest.approx((x1, max(y1, 0), x2, y2))


def test_a_rotated_box_is_kept_whole_if_half_of_it_is_inside():
    # 64 × 48 pixels, half of them left of the image; and then a little more.
    half, more = parse(region(class_name="Ship", x=-5)), parse(region(class_name="Ship", x=-5.1))
    assert half.labels[0].values == pytest.approx([0, 72, 64, 48, 0])
    assert sides(half.labels[0]) == pytest.approx((0, 48, 32, 96))
    assert half.problems == ["region r1: partly outside the image; kept whole"]
    assert (more.labels, more.refused) == ([], 1)
    assert "51.0 percent of it lie outside" in more.problems[0]
    assert "entirely outside" in parse(region(class_name="Ship", x=200)).problems[0]
    assert parse(region(class_name="Ship", width=1e-200, height=1e-200)).refused == 1


def test_a_full_turn_is_none():
    assert parse(region(rotation=360)).problems == []


def test_a_polygon_keeps_its_points_in_their_order():
    parsed = parse(polygon((10, 20), (110.5, 20), (60, 90)))
    assert parsed.labels[0].values == [[10, 20, 110.5, 20, 60, 90]]
    assert sides(parsed.labels[0]) == pytest.approx((10, 20, 110.5, 90))
    assert parsed.problems == []


def test_points_said_twice_do_not_count():
    parsed = parse(polygon((10, 20), (110, 20), (110, 20), (60, 90), (10, 20)))
    assert parsed.labels[0].values == [[10, 20, 110, 20, 60, 90]]


def area(label):
    """The area of outlines that do not overlap, by the shoelace formula."""
    total = 0.0
    for outline in label.values:
        xs, ys = np.array(outline[::2]), np.array(outline[1::2])
        total += abs(np.dot(xs, np.roll(ys, -1)) - np.dot(ys, np.roll(xs, -1))) / 2
    return total


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        # Two triangles of 100 × 50 / 2 that meet at (150, 150).
        pytest.param([(100, 100), (200, 200), (200, 100), (100, 200)], 5000, id="bow tie"),
        # A square of 100 whose end runs over its beginning: what both cover is covered.
        pytest.param(
            [(0, 0), (100, 0), (100, 100), (0, 100), (0, 0), (50, 0), (50, 20), (10, 20)],
            10_000,
            id="overshot",
        ),
        # A square of 100 with a hole of 40, in and out by the same way.
        pytest.param(
            [
                *[(100, 100), (200, 100), (200, 200), (100, 200), (100, 150), (130, 150)],
                *[(130, 170), (170, 170), (170, 130), (130, 130), (130, 150), (100, 150)],
            ],
            10_000 - 1600,
            id="hole",
        ),
        # A square of 100 with a line that leads away and back.
        pytest.param(
            [(100, 100), (200, 100), (300, 100), (200, 100), (200, 200), (100, 200)],
            10_000,
            id="spike",
        ),
    ],
)
def test_a_polygon_that_crosses_itself_is_what_its_outline_encloses(points, expected):
    parsed = parse(polygon(*points))
    (label,) = parsed.labels
    assert area(label) == pytest.approx(expected)
    assert parsed.problems == [
        "region r1: crosses or touches itself; what its outline encloses is taken"
    ]


def test_a_polygon_a_little_outside_is_clipped_and_flagged():
    # 32 of 640 pixels are exactly the tolerance; a strip of 32 × 50 is cut off.
    parsed = parse(polygon((-32, 100), (68, 100), (68, 150), (-32, 150)))
    assert sides(parsed.labels[0]) == pytest.approx((0, 100, 68, 150))
    assert area(parsed.labels[0]) == pytest.approx(68 * 50)
    assert parsed.problems == ["region r1: partly outside the image; clipped at its edge"]


def test_a_polygon_cut_in_two_by_the_edge_stays_one_label():
    # Two teeth that the edge of the image leaves of a comb.
    comb = [(10, -5), (90, -5), (90, 40), (70, 40), (70, -2), (30, -2), (30, 40), (10, 40)]
    (label,) = parse(polygon(*comb)).labels
    assert len(label.values) == 2
    assert area(label) == pytest.approx(2 * 20 * 40)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        pytest.param({"points": None}, "a list of points", id="no points"),
        pytest.param({"points": [[1, 1], [2, 2]]}, "2 different points", id="two points"),
        pytest.param({"points": [[1, 1], [2, 2], [1, 1]]}, "2 different points", id="to and fro"),
        pytest.param({"points": [[1, 1], [2, 2], [3, 3]]}, "enclose nothing", id="on a line"),
        pytest.param({"points": [[1, 1], [2, 2], 3]}, "not x and y", id="a number for a point"),
        pytest.param({"points": [[1, 1], [2, 2], [3, "4"]]}, "y is '4'", id="text in a point"),
        pytest.param({"points": [[1, 1], [2, 2], [math.nan, 4]]}, "x is nan", id="NaN"),
        pytest.param({"closed": False}, "not closed", id="open"),
        pytest.param({"points": [[-9, 1], [9, 1], [9, 9]]}, "9.0 percent outside", id="far out"),
        pytest.param({"points": [[101, 1], [109, 1], [109, 9]]}, "entirely outside", id="outside"),
    ],
)
def test_a_polygon_that_encloses_nothing_usable_is_a_problem(changed, problem):
    parsed = parse(region("polygonlabels", "Roof", **changed))
    assert (parsed.labels, parsed.refused) == ([], 1)
    assert problem in parsed.problems[0]


def test_an_outline_that_would_take_minutes_to_repair_is_refused():
    points = np.random.default_rng(3).random((1001, 2)) * 100
    parsed = parse(region("polygonlabels", "Roof", points=points.tolist()))
    assert "crosses itself and has 1001 points" in parsed.problems[0]


def test_an_old_export_that_does_not_say_closed_is():
    drawn = polygon((10, 20), (110, 20), (60, 90))
    del drawn["value"]["closed"]
    assert len(parse(drawn).labels) == 1


def test_polygons_under_one_of_their_class_are_parts_of_it():
    first = polygon((10, 10), (50, 10), (50, 50), id="p1")
    part = polygon((100, 10), (150, 10), (150, 50), id="p2", parentID="p1")
    part_of_part = polygon((200, 10), (250, 10), (250, 50), id="p3", parentID="p2")
    other = polygon((300, 10), (350, 10), (350, 50), id="p4", parentID="p1", class_name="Field")
    orphan = polygon((400, 10), (450, 10), (450, 50), id="p5", parentID="gone")
    parsed = parse(part_of_part, first, part, other, orphan)
    assert [(label.class_name, len(label.values)) for label in parsed.labels] == [
        ("Roof", 3),
        ("Field", 1),
        ("Roof", 1),
    ]
    assert sides(parsed.labels[0]) == pytest.approx((10, 10, 250, 50))
    assert (parsed.problems, parsed.refused) == ([], 0)


def test_polygons_put_under_each_other_in_a_ring_stand_for_themselves():
    one = polygon((10, 10), (50, 10), (50, 50), id="p1", parentID="p2")
    two = polygon((100, 10), (150, 10), (150, 50), id="p2", parentID="p1")
    itself = polygon((200, 10), (250, 10), (250, 50), id="p3", parentID="p3")
    assert [len(label.values) for label in parse(one, two, itself).labels] == [1, 1, 1]


def test_a_brush_mask_has_the_pixels_of_the_image():
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[100:120, 200:260] = True
    (label,) = parse(region("brushlabels", "Water", rle=encode_mask(pixels))).labels
    assert np.array_equal(label.pixels, pixels)
    assert sides(label) == (200, 100, 260, 120)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        pytest.param({"rle": []}, "does not begin", id="empty code"),
        pytest.param({"rle": None}, "no list of bytes", id="no code"),
        pytest.param({"rle": encode_mask(np.ones((9, 9), bool))}, "324 values", id="other size"),
        pytest.param(
            {"rle": encode_mask(np.zeros((HEIGHT, WIDTH), bool))}, "no pixel", id="all erased"
        ),
        pytest.param({"format": "png"}, "'png' is not used here", id="other format"),
    ],
)
def test_a_mask_that_cannot_be_used_is_a_problem(changed, problem):
    parsed = parse(region("brushlabels", "Water", **changed))
    assert (parsed.labels, parsed.refused) == ([], 1)
    assert problem in parsed.problems[0]


def test_a_point_is_inside_or_refused():
    inside = parse(region("keypointlabels", "Nose", x=50, y=100))
    outside = parse(region("keypointlabels", "Nose", x=100.1))
    assert inside.labels == [Label.keypoint("Nose", 320, 480)]
    assert outside.problems == ["region r1: outside the image"]


def test_one_choice_is_the_class_of_the_image():
    assert parse(choices("Day")).labels == [Label.choice("Day")]


def test_two_choices_where_one_is_asked_are_both_refused():
    parsed = parse(region(), choices("Day", "Night"))
    assert parsed.labels == [Label.box("Cat", 64, 48, 128, 96)]
    assert parsed.problems == ["region c1: 'Day' and 'Night' are chosen, where one is asked"]
    assert parsed.refused == 1
    apart = parse(choices("Day"), choices("Night", id="c2"))
    assert (apart.labels, apart.refused) == ([], 2)


def test_many_choices_are_labels_each_where_many_are_asked():
    parsed = parse(choices("Day", "Night", "Day", "Dusk"), of=ontology("many"))
    assert parsed.labels == [Label.choice("Day"), Label.choice("Night")]
    assert parsed.problems == ["region c1: class 'Dusk' is not in the ontology"]


@pytest.mark.parametrize(
    ("regions", "problem"),
    [
        pytest.param(choices(), "what is chosen, not []", id="nothing chosen"),
        pytest.param(choices("Cat"), "is a box", id="a class that is drawn"),
        pytest.param(choices("day"), "is 'Day' meant?", id="other case"),
        pytest.param(choices(["Day"]), "exactly one class", id="a path of choices"),
        pytest.param(choices("unsure"), "not in the ontology", id="unsure elsewhere"),
        pytest.param(choices("yes", from_name="unsure"), "not in the", id="unsure otherwise"),
        pytest.param(choices("Day", original_width=1), "of 1 × None", id="another image"),
        pytest.param(
            {**choices(), "value": {"choices": ["Day"], "x": 1}}, "about another", id="of a region"
        ),
    ],
)
def test_a_choice_that_cannot_be_used_is_a_problem(regions, problem):
    parsed = parse(regions)
    assert (parsed.labels, parsed.refused) == ([], 1)
    assert problem in parsed.problems[0]


def test_who_is_unsure_says_nothing_else_and_no_problem_is_lost():
    parsed = parse(region(), region(width=0, id="r2"), UNSURE_REGION, choices("Day"))
    assert parsed.labels == [UNSURE]
    assert (parsed.problems, parsed.refused) == (["region r2: 0 × 10 percent is no area"], 1)


def test_a_class_under_an_earlier_name_counts_under_todays():
    classes = (LabelClass(id=0, name="Cat", was=("Kitty",)), LabelClass(id=1, name="Dog"))
    retired = (
        RetiredClass(id=2, name="Puppy", into=(1,)),
        RetiredClass(id=3, name="Pet", into=(0, 1)),
        RetiredClass(id=4, name="Fluff"),
    )
    today = Ontology(classes=classes, retired=retired)
    names = ["Kitty", "Puppy", "Pet", "Fluff"]
    parsed = parse(*(region(class_name=name, id=name) for name in names), of=today)
    assert [label.class_name for label in parsed.labels] == ["Cat", "Dog"]
    assert parsed.problems == [
        "region Kitty: class 'Kitty' is called 'Cat' now",
        "region Puppy: class 'Puppy' is called 'Dog' now",
        "region Pet: class 'Pet' is retired and has become 'Cat' or 'Dog'",
        "region Fluff: class 'Fluff' is retired and has become nothing",
    ]


def test_the_same_region_said_twice_counts_once_and_is_noted():
    parsed = parse(region(), region())
    assert len(parsed.labels) == 1
    assert (parsed.problems, parsed.refused) == (["region r1: given twice, counted once"], 0)


def test_two_equal_boxes_drawn_apart_are_two():
    assert len(parse(region(), region(id="r2")).labels) == 2


def test_a_label_keeps_its_score_and_the_size_of_its_image():
    box = Label.box("Cat", 64, 48, 128, 96)
    (made,) = write_result([box], WIDTH, HEIGHT, scores=[0.7])
    assert made["value"] == region()["value"]
    assert (made["score"], made["original_width"], made["original_height"]) == (0.7, 640, 480)
    assert "score" not in write_result([box], WIDTH, HEIGHT)[0]


def test_choices_are_one_region_with_the_lowest_score():
    day, night = Label.choice("Day"), Label.choice("Night")
    (made,) = write_result([day, night], WIDTH, HEIGHT, scores=[0.9, 0.4])
    assert (made["value"], made["score"]) == ({"choices": ["Day", "Night"]}, 0.4)


def test_unsure_is_the_annotation_to_its_question_and_nothing_here_is_no_region():
    (made,) = write_result([UNSURE], WIDTH, HEIGHT)
    assert (made["from_name"], made["value"]) == ("unsure", {"choices": ["unsure"]})
    assert write_result([NOTHING], WIDTH, HEIGHT) == []


def test_outlines_of_one_polygon_are_regions_under_the_first():
    outlines = [[0, 0, 10, 0, 10, 10], [20, 0, 30, 0, 30, 10]]
    first, second = write_result([Label.polygon("Roof", outlines)], WIDTH, HEIGHT)
    assert "parentID" not in first
    assert second["parentID"] == first["id"] != second["id"]


def test_what_cannot_be_written_is_a_mistake_of_the_caller():
    box, mask = Label.box("Cat", 0, 0, 1, 1), Label.mask("Water", np.ones((3, 4), bool))
    with pytest.raises(ValueError, match="0 × 480"):
        write_result([], 0, HEIGHT)
    with pytest.raises(ValueError, match="1 scores for 2 labels"):
        write_result([box, box], WIDTH, HEIGHT, scores=[0.5])
    with pytest.raises(ValueError, match="mask of"):
        write_result([mask], 3, 4)


@st.composite
def rotated_boxes(draw, width, height):
    """A rotated box of which no corner is outside the image."""
    x, y = draw(st.floats(0.25, 0.75)) * width, draw(st.floats(0.25, 0.75)) * height
    reach = min(x, y, width - x, height - y) * draw(st.floats(0.1, 0.99))
    slope = draw(st.floats(0.1, 1.4))
    box_width, box_height = 2 * reach * math.cos(slope), 2 * reach * math.sin(slope)
    return Label.rotated_box("Ship", x, y, box_width, box_height, draw(st.floats(0, 359.9)))


@st.composite
def polygons(draw, width, height):
    """One or two outlines, their corners on ellipses that touch the image's edge or not."""
    outlines = []
    for _ in range(draw(st.integers(1, 2))):
        hours = draw(st.lists(st.integers(0, 11), min_size=3, unique=True).map(sorted))
        wide, high = draw(st.floats(0.2, 0.5)) * width, draw(st.floats(0.2, 0.5)) * height
        angles = [math.radians(30 * hour) for hour in hours]
        outlines.append(
            [
                side
                for angle in angles
                for side in (
                    width / 2 + wide * math.cos(angle),
                    height / 2 + high * math.sin(angle),
                )
            ]
        )
    return Label.polygon(draw(st.sampled_from(["Roof", "Field"])), outlines)


@st.composite
def boxes(draw, width, height):
    # Eighths of a pixel, the image's edges and boxes of one pixel and less among them.
    x1, y1 = draw(st.integers(0, 8 * width - 1)), draw(st.integers(0, 8 * height - 1))
    x2, y2 = draw(st.integers(x1 + 1, 8 * width)), draw(st.integers(y1 + 1, 8 * height))
    return Label.box(draw(st.sampled_from(["Cat", "Dog"])), x1 / 8, y1 / 8, x2 / 8, y2 / 8)


@st.composite
def labels_on_a_image(draw):
    if draw(st.booleans()):
        width, height = draw(st.integers(1, 12)), draw(st.integers(1, 12))
        pixels = arrays(bool, (height, width)).filter(lambda mask: mask.any())
        masks = [st.builds(Label.mask, st.just("Water"), pixels)]
    else:
        width, height, masks = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000)), []
    points = st.builds(Label.keypoint, st.just("Nose"), st.floats(0, width), st.floats(0, height))
    drawn = [boxes(width, height), rotated_boxes(width, height), polygons(width, height), points]
    labels = draw(st.lists(st.one_of(*drawn, *masks), max_size=5))
    chosen = draw(st.sampled_from([[], ["Day"], ["Day", "Night"]]))
    return width, height, labels + [Label.choice(name) for name in chosen]


@settings(deadline=None)  # the first example imports what cuts and packs
@given(labels_on_a_image())
def test_labels_of_every_shape_come_back_as_they_went(drawn):
    width, height, labels = drawn
    sent = json.loads(json.dumps(write_result(labels, width, height)))
    parsed = read_result(sent, width=width, height=height, ontology=ontology("many"))
    assert (parsed.problems, parsed.refused) == ([], 0)
    assert len(parsed.labels) == len(labels)
    for found, expected in zip(parsed.labels, labels, strict=True):
        # Geometry is rounded to a millionth of a pixel, once more on the way back.
        assert same_labels([found], [expected], pixels=2e-6)


odd_values = st.one_of(
    st.floats(),
    st.integers(),
    st.sampled_from([None, True, "", "10", [], {}, [[0, 0], [300, 10], [10, 300]], ["Day"]]),
)
kinds = st.sampled_from([*("rectanglelabels", "polygonlabels", "keypointlabels", "brushlabels")])


@st.composite
def odd_regions(draw):
    names = ("x", "y", "width", "rotation", "points", "closed", "rle", "original_width")
    others = ("id", "type", "value", "parentID", "from_name")
    changes = draw(st.fixed_dictionaries({}, optional=dict.fromkeys((*names, *others), odd_values)))
    return region(draw(kinds), draw(st.sampled_from([*SHAPES, "", "cat"])), **changes)


@settings(deadline=None)  # the first example imports what cuts and packs
@given(st.lists(odd_regions(), max_size=4))
def test_every_region_gives_a_label_inside_the_image_or_a_problem(regions):
    parsed = parse(*regions)
    assert parsed.refused <= len(parsed.problems)
    assert len(parsed.labels) + len(parsed.problems) >= len(regions)
    for label in parsed.labels:
        if label.shape != "choice":
            x1, y1, x2, y2 = sides(label)
            assert 0 <= x1 <= x2 <= WIDTH
            assert 0 <= y1 <= y2 <= HEIGHT


def test_annotations_that_say_the_same_are_the_same_in_whatever_order():
    cat, roof = Label.box("Cat", 1, 2, 30, 40), Label.polygon("Roof", [[0, 0, 9, 0, 9, 9]])
    mask = Label.mask("Water", np.eye(3, dtype=bool))
    assert same_labels([cat, roof, mask], [mask, roof, Label.box("Cat", 1.005, 2, 30, 40)])
    assert same_labels([], [])
    nearly_round = Label.rotated_box("Ship", 50, 50, 20, 10, 359.999)
    assert same_labels([nearly_round], [Label.rotated_box("Ship", 50, 50, 20, 10, 0.001)])


@pytest.mark.parametrize(
    "other",
    [
        pytest.param([], id="nothing"),
        pytest.param([Label.box("Cat", 1, 2, 30, 40)] * 2, id="twice"),
        pytest.param([Label.box("Dog", 1, 2, 30, 40)], id="another class"),
        pytest.param([Label.box("Cat", 1.1, 2, 30, 40)], id="a tenth of a pixel aside"),
        pytest.param([Label.keypoint("Cat", 1, 2)], id="another shape"),
    ],
)
def test_annotations_that_differ_are_not_the_same(other):
    assert not same_labels([Label.box("Cat", 1, 2, 30, 40)], other)
    assert not same_labels(other, [Label.box("Cat", 1, 2, 30, 40)])


def test_outlines_and_masks_that_differ_are_not_the_same():
    one, two = [0, 0, 9, 0, 9, 9], [20, 0, 29, 0, 29, 9]
    assert not same_labels([Label.polygon("Roof", [one])], [Label.polygon("Roof", [one, two])])
    eye = np.eye(3, dtype=bool)
    assert not same_labels([Label.mask("Water", eye)], [Label.mask("Water", eye[::-1])])


PROPOSED = write_result([Label.box("Cat", 64, 48, 128, 96), Label.choice("Day")], WIDTH, HEIGHT)


def decision(name):
    return choices(name, from_name="decision", id="d1")


def text(name, regions):
    return {"id": "t1", "type": "textarea", "from_name": name, "value": {"text": [regions]}}


def review(*regions, proposed=PROPOSED):
    return decode_review(
        Payload("label-studio/1", list(regions)),
        Payload("label-studio/1", proposed),
        Canvas(WIDTH, HEIGHT, ALL),
    )


SHOWN = [Label.box("Cat", 64, 48, 128, 96), Label.choice("Day")]


def test_what_is_left_as_it_was_is_accepted():
    found = review(decision("accept"), *reversed(PROPOSED), text("comment", " Well seen. "))
    assert found == Review("accepted", list(reversed(SHOWN)), "Well seen.", [])


def test_what_was_changed_before_it_was_accepted_is_fixed():
    moved = {**PROPOSED[0], "origin": "prediction", "value": region(x=11)["value"]}
    found = review(decision("accept"), moved, PROPOSED[1])
    assert (found.decision, found.labels[0].x1) == ("fixed", pytest.approx(70.4))
    assert review(decision("accept")) == Review("fixed", [], "", [])


def test_a_rejection_has_a_reason():
    assert review(decision("reject"), text("reason", "Too wide.")).comment == "Too wide."
    bare = review(decision("reject"), *PROPOSED)
    assert (bare.decision, bare.problems) == (
        "rejected",
        ["decision: rejected without a reason"],
    )


@pytest.mark.parametrize(
    "regions",
    [
        pytest.param([*PROPOSED], id="no decision"),
        pytest.param([decision("accept"), decision("reject")], id="both"),
        pytest.param([decision("perhaps")], id="another one"),
        pytest.param([{**decision("accept"), "value": None}], id="no value"),
        pytest.param([decision("accept"), UNSURE_REGION], id="unsure"),
        pytest.param([decision("accept"), region(width=0)], id="a region that is none"),
    ],
)
def test_what_does_not_say_what_stands_decides_nothing(regions):
    assert review(*regions) is None
    canvas = Canvas(WIDTH, HEIGHT, ALL)
    assert decode_review(Payload("label-studio/1", None), None, canvas) is None
