import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.schema.geometry import iou_matrix
from annotation_platform.schema.shapes import KEYPOINT_HALF, NOTHING, UNSURE, Label, area_of
from annotation_platform.schema.shapes.overlap import labels_of, overlap_matrix

SIZE = (300.0, 400.0)  # its diagonal is 500


def overlap(a, b):
    return float(overlap_matrix([a], [b], image_size=SIZE)[0, 0])


def filled(rows, columns, *, size=(20, 20)):
    pixels = np.zeros(size, dtype=bool)
    pixels[slice(*rows), slice(*columns)] = True
    return Label.mask("cat", pixels)


SQUARE = [0, 0, 10, 0, 10, 10, 0, 10]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param(
            Label.box("cat", 0, 0, 10, 10), Label.box("dog", 5, 0, 15, 10), 1 / 3, id="box"
        ),
        pytest.param(
            Label.rotated_box("cat", 5, 5, 10, 10, 0),
            Label.rotated_box("cat", 5, 5, 10, 10, 45),
            # A regular octagon, 8 (√2 - 1) of the half side squared, in two squares of 100.
            200 * (math.sqrt(2) - 1) / (200 - 200 * (math.sqrt(2) - 1)),
            id="square turned by 45 degrees",
        ),
        pytest.param(
            Label.rotated_box("cat", 20, 20, 30, 10, 0),
            Label.rotated_box("cat", 20, 20, 10, 30, 90),
            1.0,
            id="the same rotated box written in two ways",
        ),
        pytest.param(
            Label.polygon("cat", [SQUARE]),
            Label.polygon("cat", [[0, 0, 10, 0, 0, 10]]),
            0.5,
            id="half of a square",
        ),
        pytest.param(
            Label.polygon("cat", [SQUARE]),
            Label.polygon("cat", [[0, 0, 4, 0, 4, 10, 0, 10], [4, 0, 10, 0, 10, 10, 4, 10]]),
            1.0,
            id="a square in two parts",
        ),
        pytest.param(
            Label.polygon("cat", [SQUARE]),
            Label.polygon("cat", [[0, 0, 10, 10, 10, 0, 0, 10]]),
            0.5,
            id="an outline that crosses itself",
        ),
        pytest.param(
            filled((0, 10), (0, 10)), filled((0, 10), (5, 15)), 1 / 3, id="masks in pixels"
        ),
        pytest.param(
            filled((0, 5), (0, 5)),
            filled((0, 5), (0, 5), size=(30, 20)),
            0.0,
            id="masks of two sizes",
        ),
        pytest.param(
            Label.keypoint("eye", 100, 100),
            Label.keypoint("eye", 100 + KEYPOINT_HALF * 500, 100),
            0.5,
            id="points two percent of the diagonal apart",
        ),
        pytest.param(
            Label.keypoint("eye", 100, 100),
            Label.keypoint("eye", 100, 100 + 2 * KEYPOINT_HALF * 500),
            1 / 16,
            id="points twice as far apart",
        ),
        pytest.param(
            Label.box("cat", 0, 0, 10, 10),
            Label.polygon("cat", [SQUARE]),
            0.0,
            id="two shapes of one place",
        ),
        pytest.param(Label.box("cat", 3, 3, 3, 9), Label.box("cat", 3, 3, 3, 9), 0.0, id="no area"),
        pytest.param(
            Label.polygon("cat", [[0, 0, 5, 5, 10, 10]]),
            Label.polygon("cat", [[0, 0, 5, 5, 10, 10]]),
            0.0,
            id="a polygon on a line",
        ),
        pytest.param(Label.choice("cat"), Label.choice("cat"), 0.0, id="no regions"),
    ],
)
def test_overlap_worked_out_by_hand(a, b, expected):
    assert overlap(a, b) == pytest.approx(expected, abs=1e-6)
    assert overlap(b, a) == pytest.approx(expected, abs=1e-6)


coordinates = st.floats(0, 300, allow_nan=False).map(lambda value: round(value, 2))
sides = st.floats(2, 90, allow_nan=False).map(lambda value: round(value, 2))


@st.composite
def regions(draw):
    x, y, width, height = draw(coordinates), draw(coordinates), draw(sides), draw(sides)
    shape = draw(st.sampled_from(["box", "rotated_box", "polygon", "mask", "keypoint"]))
    if shape == "box":
        return Label.box("cat", x, y, x + width, y + height)
    if shape == "rotated_box":
        return Label.rotated_box("cat", x, y, width, height, draw(st.floats(-200, 200)))
    if shape == "keypoint":
        return Label.keypoint("cat", x, y)
    if shape == "mask":
        pixels = np.zeros((60, 80), dtype=bool)
        row, column = int(y) % 50, int(x) % 70
        pixels[row : row + draw(st.integers(1, 9)), column : column + draw(st.integers(1, 9))] = 1
        return Label.mask("cat", pixels)
    points = draw(st.lists(st.tuples(sides, sides), min_size=3, max_size=9, unique=True))
    return Label.polygon("cat", [[x + c for point in points for c in point]])


@settings(max_examples=80, deadline=None)
@given(st.lists(regions(), max_size=6), st.lists(regions(), max_size=6))
def test_overlap_is_symmetric_bounded_and_one_with_itself(a, b):
    one_way = overlap_matrix(a, b, image_size=SIZE)
    assert one_way.shape == (len(a), len(b))
    assert one_way == pytest.approx(overlap_matrix(b, a, image_size=SIZE).T)
    assert ((one_way >= 0) & (one_way <= 1)).all()
    own = np.diag(overlap_matrix(a, a, image_size=SIZE))
    for label, value in zip(a, own, strict=True):
        has_area = label.shape in {"mask", "keypoint"} or area_of(label).area > 1e-9
        assert value == pytest.approx(float(has_area), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(coordinates, coordinates, sides, sides), min_size=1, max_size=5))
def test_rotated_boxes_that_stand_upright_overlap_as_boxes_do(centres):
    turned = [Label.rotated_box("cat", *centre, 180) for centre in centres]
    upright = np.array([(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for x, y, w, h in centres])
    exact = iou_matrix(upright, upright)
    assert overlap_matrix(turned, turned, image_size=SIZE) == pytest.approx(exact, abs=1e-4)


def test_rows_of_a_table_are_read_as_labels_with_what_is_missing_left_out():
    labels = [Label.polygon("cat", [SQUARE]), Label.choice("day"), NOTHING, UNSURE]
    columns = ["shape", "class_name", "geometry", "x1", "y1", "x2", "y2"]
    table = pd.DataFrame([{name: getattr(each, name) for name in columns} for each in labels])
    assert labels_of(table) == labels
    boxes = pd.DataFrame(
        {"class_name": ["cat"], "x1": [1.0], "y1": [2.0], "x2": [3.0], "y2": [4.0]}
    )
    assert labels_of(boxes) == [Label.box("cat", 1, 2, 3, 4)]
