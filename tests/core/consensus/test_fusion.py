import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.consensus.fusion import Spread, clip_region, fuse
from annotation_platform.schema.shapes import Label, area_of, near_mean
from annotation_platform.schema.shapes.overlap import overlap_matrix

SIZE = (300.0, 400.0)


def fused(labels, weights=None, *, spread=None):
    overlap = overlap_matrix(labels, labels, image_size=SIZE)
    weights = weights or [1.0] * len(labels)
    return fuse(labels, weights, overlap, class_name="cat", spread=spread)


def square(x, y, side=10, *, shift=0):
    x += shift
    return Label.polygon("dog", [[x, y, x + side, y, x + side, y + side, x, y + side]])


def iou(a, b):
    return float(overlap_matrix([a], [b], image_size=SIZE)[0, 0])


def test_numbers_far_from_the_median_are_left_out_and_the_rest_weighed():
    values = np.array([[10.0], [11.0], [40.0]])
    # Median 11, deviation 1: 40 is further than three deviations away.
    assert near_mean(values, [3, 1, 4], np.array([1.0])) == pytest.approx([41 / 4])
    assert near_mean(values, [3, 1, 4], None) == pytest.approx([11])
    # With a deviation of nothing only what equals the median is near.
    assert near_mean(values, [3, 1, 4], np.array([0.0])) == pytest.approx([11])
    assert near_mean(values[:2], [3, 1], np.array([0.1])) == pytest.approx([10.5])


def test_the_spread_of_people_is_recovered_from_their_boxes():
    rng = np.random.default_rng(5)
    corners = np.array([50.0, 60.0, 120.0, 150.0])
    drawn = corners + rng.normal(size=(400, 3, 4)) * [1.0, 2.0, 3.0, 4.0]
    objects = [[Label.box("cat", *box) for box in boxes] for boxes in drawn]
    assert Spread.among(objects).of_shape["box"] == pytest.approx([1, 2, 3, 4], rel=0.15)
    # A handful of objects says nothing of how people draw.
    assert Spread.among(objects[:6]).of_shape == {}


def test_three_boxes_without_a_known_spread_give_the_median_of_each_edge():
    boxes = [(10, 10, 50, 50), (12, 10, 50, 52), (11, 13, 56, 50)]
    result = fused([Label.box("dog", *box) for box in boxes])
    assert result == Label.box("cat", 11, 10, 50, 50)


@settings(max_examples=60, deadline=None)
@given(
    st.floats(20, 60),
    st.floats(5, 19),
    st.floats(-180, 180),
    st.lists(st.sampled_from(["as it is", "half a turn", "sides swapped"]), min_size=2, max_size=5),
)
def test_a_rotated_box_written_in_several_ways_is_one_box(width, height, angle, ways):
    same_box = {
        "as it is": Label.rotated_box("dog", 100, 100, width, height, angle),
        "half a turn": Label.rotated_box("dog", 100, 100, width, height, angle + 180),
        "sides swapped": Label.rotated_box("dog", 100, 100, height, width, angle - 90),
    }
    result = fused([same_box[way] for way in ways])
    assert iou(result, same_box["as it is"]) == pytest.approx(1.0, abs=1e-3)


def test_angles_on_both_sides_of_zero_do_not_average_to_a_right_angle():
    labels = [Label.rotated_box("dog", 50, 50, 40, 10, angle) for angle in (179, 1, 0)]
    angle = fused(labels).values[4]
    assert min(angle, 180 - angle) == pytest.approx(0, abs=1e-6)


def test_of_three_polygons_stays_what_two_of_them_hold():
    # [0, 10], [1, 11] and [2, 12]: two of three hold [1, 11].
    result = fused([square(0, 0, shift=shift) for shift in (0, 1, 2)])
    assert result.class_name == "cat"
    assert area_of(result).symmetric_difference(shapely.box(1, 0, 11, 10)).area == pytest.approx(0)


def test_two_polygons_that_weigh_nearly_the_same_give_all_that_either_holds():
    pair = [square(0, 0), square(2, 0)]
    both = shapely.box(0, 0, 12, 10)
    assert area_of(fused(pair, [1.0, 1.1])).symmetric_difference(both).area == pytest.approx(0)
    assert iou(fused(pair, [1.0, 3.0]), square(2, 0)) == pytest.approx(1.0)


def test_a_fused_polygon_has_no_holes_and_no_crumbs():
    # Two rings that go round a hole, and a corner in which both have a sliver.
    left = Label.polygon("dog", [[0, 0, 30, 0, 30, 10, 10, 10, 10, 20, 30, 20, 30, 30, 0, 30]])
    right = Label.polygon("dog", [[0, 0, 30, 0, 30, 30, 0, 30, 0, 20, 20, 20, 20, 10, 0, 10]])
    sliver = [40, 40, 40.2, 40, 40.2, 40.2]
    both = [Label.polygon("dog", [*label.values, sliver]) for label in (left, right)]
    result = fused(both)
    assert len(result.values) == 1
    assert area_of(result).equals(shapely.box(0, 0, 30, 30))


def test_spikes_and_collapsed_outlines_are_no_area():
    spike = Label.polygon("dog", [[0, 0, 10, 0, 10, 10, 10, 30, 10, 10, 0, 10]])
    line = Label.polygon("dog", [[0, 0, 10, 0, 10, 10, 0, 10], [20, 20, 25, 25, 30, 30]])
    result = fused([spike, line, square(0, 0)])
    assert area_of(result).equals(shapely.box(0, 0, 10, 10))
    assert fused([Label.polygon("dog", [[0, 0, 5, 5, 9, 9]])] * 2).geometry


def test_masks_are_fused_pixel_by_pixel_and_never_to_nothing():
    def mask(*columns):
        pixels = np.zeros((4, 8), dtype=bool)
        pixels[1, columns] = True
        return Label.mask("dog", pixels)

    result = fused([mask(1, 2, 3), mask(2, 3, 4), mask(3, 4, 5)])
    assert np.flatnonzero(result.pixels[1]).tolist() == [2, 3, 4]
    assert (result.x1, result.x2, result.shape, result.class_name) == (2, 5, "mask", "cat")
    # One pixel each, nowhere two: one of them is chosen.
    assert fused([mask(1), mask(3), mask(5)]).pixels.sum() == 1


def test_points_are_fused_number_by_number():
    points = [Label.keypoint("dog", x, y) for x, y in ((10, 5), (12, 6), (90, 7))]
    assert fused(points) == Label.keypoint("cat", 12, 6)


def drawn_by_hand(outline, rng, *, jitter):
    """Return an outline as an annotator draws it: points of their own choice, each a little off."""
    count = int(np.clip(outline.length / 8, 8, 40))
    places = np.sort((np.arange(count) + rng.uniform(-0.3, 0.3, count)) / count) % 1
    points = np.array([outline.interpolate(at, normalized=True).coords[0] for at in places])
    return Label.polygon(
        "cat", [(points + rng.normal(size=points.shape) * jitter).ravel().tolist()]
    )


def test_fused_polygons_are_nearer_to_the_truth_than_the_best_of_the_drawn_ones():
    rng = np.random.default_rng(3)
    gains = []
    for _ in range(40):
        angles = np.sort(rng.uniform(0, 2 * math.pi, 12))
        radius = rng.uniform(20, 60, 12)
        corners = 100 + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
        truth = Label.polygon("cat", [corners.ravel().tolist()])
        labels = [drawn_by_hand(shapely.Polygon(corners).exterior, rng, jitter=2) for _ in range(3)]
        gains.append(iou(fused(labels), truth) - np.mean([iou(each, truth) for each in labels]))
    assert np.mean(gains) > 0.01


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["box", "rotated_box", "polygon", "keypoint"]),
    st.lists(
        st.tuples(st.integers(0, 8), st.integers(0, 8), st.sampled_from([0.5, 1.0, 3.0])),
        min_size=1,
        max_size=5,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_labels_does_not_matter(shape, moves, random):
    make = {
        "box": lambda x, y: Label.box("dog", x, y, x + 30, y + 20),
        "rotated_box": lambda x, y: Label.rotated_box("dog", 40 + x, 40 + y, 30, 20, 5 * x),
        "polygon": lambda x, y: square(x, y, side=30),
        "keypoint": lambda x, y: Label.keypoint("dog", x, y),
    }[shape]
    weighted = [(make(x, y), weight) for x, y, weight in sorted(moves)]
    mixed = random.sample(weighted, len(weighted))
    one, other = (fused(list(labels), list(weights)) for labels, weights in
                  (zip(*weighted, strict=True), zip(*mixed, strict=True)))  # fmt: skip
    if shape == "rotated_box":
        # Which of several equal ones is the reference says from where its angle is counted.
        assert iou(one, other) > 0.85
    else:
        assert iou(one, other) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param(Label.box("a", 5, 5, 9, 9), Label.box("a", 5, 5, 9, 9), id="inside"),
        pytest.param(Label.box("a", -5, 5, 9, 900), Label.box("a", 0, 5, 9, 400), id="cut"),
        pytest.param(Label.box("a", 310, 5, 320, 9), None, id="outside the image"),
        pytest.param(Label.box("a", 5, 5, 5, 9), None, id="no area"),
        pytest.param(Label.keypoint("a", -0.4, 7), Label.keypoint("a", 0, 7), id="rounded away"),
        pytest.param(Label.keypoint("a", -9, 7), None, id="point outside"),
        pytest.param(
            Label.rotated_box("a", 2, 50, 30, 10, 30),
            Label.rotated_box("a", 2, 50, 30, 10, 30),
            id="rotated box at the edge",
        ),
        pytest.param(Label.rotated_box("a", -2, 50, 30, 10, 30), None, id="its centre outside"),
        pytest.param(
            Label.polygon("a", [[-10, 0, 10, 0, 10, 10, -10, 10]]),
            Label.polygon("a", [[10, 0, 0, 0, 0, 10, 10, 10]]),
            id="polygon cut",
        ),
        pytest.param(Label.polygon("a", [[-10, 0, -1, 0, -1, 9]]), None, id="polygon outside"),
        pytest.param(Label.choice("a"), Label.choice("a"), id="no region"),
    ],
)
def test_what_leaves_the_image_is_cut_off(label, expected):
    result = clip_region(label, SIZE)
    if expected is not None and expected.shape == "polygon":
        assert area_of(result).equals(area_of(expected))
    else:
        assert result == expected


def test_without_a_known_image_nothing_is_outside():
    assert clip_region(Label.box("a", 1, 5, 9000, 9), None) == Label.box("a", 1, 5, 9000, 9)


def test_of_an_image_of_unknown_size_only_the_left_and_upper_edge_cut_a_polygon():
    label = Label.polygon("a", [[-3, 2, 9, 1, 5, 8]])
    cut = clip_region(label, None)
    assert cut is not None
    assert area_of(cut).equals(area_of(clip_region(label, (1000.0, 1000.0))))
    assert clip_region(Label.polygon("a", [[-9, 2, -3, 1, -5, 8]]), None) is None
