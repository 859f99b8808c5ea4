import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import ModelError
from annotation_platform.models.detection.yolo_outputs import Letterbox, decode_yolo, letterbox
from annotation_platform.schema.geometry import as_boxes

CLASSES = ("blue", "red")
SQUARE = Letterbox(np.array([1.0, 1.0]), np.array([0.0, 0.0]), 100, 100)


def rows(boxes, scores, *, objectness=None):
    """Output of a network for these corners: a row of centre, sides and class scores."""
    corners = as_boxes(boxes)
    middle, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    extra = [] if objectness is None else [np.array(objectness, dtype=float)[:, None]]
    return np.hstack([middle, sides, *extra, np.array(scores, dtype=float).reshape(-1, 2)])


def decoded(output, position=SQUARE, minimum=0.25):
    return decode_yolo(
        output, position, class_names=CLASSES, minimum_score=minimum, where="yolo.onnx"
    )


@st.composite
def images(draw):
    """Width, height and a box inside, often at the border, of any proportions."""
    width, height = draw(st.integers(1, 3000)), draw(st.integers(1, 3000))
    x = sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width))))
    y = sorted(draw(st.tuples(st.integers(0, height), st.integers(0, height))))
    return width, height, [x[0], y[0], max(x[1], x[0] + 1), max(y[1], y[0] + 1)]


@settings(deadline=None)
@given(images(), st.sampled_from([32, 320, 640]), st.booleans())
def test_a_box_returns_to_its_position_in_any_image_and_layout(image, side, transposed):
    width, height, box = image
    box = [min(box[0], width - 1), min(box[1], height - 1), min(box[2], width), min(box[3], height)]
    position = placed(width, height, side)
    inside = position.to_square(as_boxes([box]))
    assert (inside >= 0).all()
    assert (inside <= side * (1 + 1e-12)).all()
    if transposed:
        found = decoded(rows(inside, [[0.1, 0.9]]).T, position)
    else:
        found = decoded(rows(inside, [[0.1, 0.9]], objectness=[1.0]), position)
    assert found.class_names == ["red"]
    assert found.boxes[0] == pytest.approx(box, abs=1e-6 * max(width, height))
    assert (found.boxes >= 0).all()
    assert (found.boxes[:, 2:] <= [width, height]).all()


def placed(width, height, side):
    """Position of an image of this size in a square, without drawing it."""
    ratio = side / max(height, width)
    w, h = max(1, round(width * ratio)), max(1, round(height * ratio))
    shift = np.array([(side - w) // 2, (side - h) // 2])
    return Letterbox(np.array([w / width, h / height]), shift, width, height)


@pytest.mark.parametrize("size", [(40, 100), (100, 40), (64, 64), (7, 13), (1, 200), (333, 200)])
def test_the_image_is_drawn_at_the_position_that_boxes_are_mapped_to(size):
    width, height = size
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[height // 4 : height // 2 + 1, width // 4 : width // 2 + 1] = 255
    box = as_boxes([[width // 4, height // 4, width // 2 + 1, height // 2 + 1]])
    square, position = letterbox(pixels, side=128)
    assert square.shape == (128, 128, 3)
    expected = placed(width, height, 128)
    assert (position.scale.tolist(), position.shift.tolist()) == (
        expected.scale.tolist(), expected.shift.tolist(),
    )  # fmt: skip
    y, x = np.nonzero(square[..., 0] > 160)
    drawn = [x.min(), y.min(), x.max() + 1, y.max() + 1]
    # Enlarged edges are soft over as many pixels as one became.
    soft = max(1.5, *(0.5 * position.scale + 1))
    assert position.to_square(box)[0] == pytest.approx(drawn, abs=soft)


def test_boxes_beyond_the_image_are_clipped_and_those_outside_left_out():
    found = decoded(rows([[-20, 30, 40, 130], [110, 10, 150, 40]], [[0.9, 0], [0.9, 0]]).T)
    assert found.boxes.tolist() == [[0, 30, 40, 100]]


def test_objectness_multiplies_the_class_and_one_of_two_that_overlap_is_left():
    boxes = [[10, 10, 50, 50], [12, 10, 52, 50], [12, 10, 52, 50], [70, 70, 90, 90]]
    scores = [[0, 0.8], [0, 0.9], [0.7, 0], [0, 0.6]]
    found = decoded(rows(boxes, scores, objectness=[1.0, 0.5, 1.0, 0.4]))
    # Of the two red ones .8 beats .45; blue is another class; .24 is too little.
    assert found.class_names == ["red", "blue"]
    assert found.scores == pytest.approx([0.8, 0.7])


def test_rows_that_are_not_finite_are_counted_and_left_out():
    output = rows([[10, 10, 50, 50], [60, 60, 90, 90]], [[0, 0.8], [0, 0.9]], objectness=[1, 1])
    output[1, 2] = np.nan
    found = decoded(output)
    assert (found.boxes.tolist(), found.dropped) == ([[10, 10, 50, 50]], 1)
    assert decoded(np.zeros((0, 7))).boxes.shape == (0, 4)


def test_another_number_of_classes_is_an_error():
    with pytest.raises(ModelError, match=r"yolo\.onnx: .*shape \(3, 9\).*\(N, 7\) or \(6, N\)"):
        decoded(np.zeros((3, 9)))
