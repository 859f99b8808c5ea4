import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.schema.geometry import iou_matrix

coordinates = st.integers(0, 40)
box_lists = st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), max_size=6)


def as_array(corners):
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners]
    return np.array(boxes, dtype=float).reshape(-1, 4)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        pytest.param([0, 0, 10, 10], 1.0, id="same box"),
        pytest.param([5, 0, 15, 10], 1 / 3, id="half shifted"),
        pytest.param([10, 0, 20, 10], 0.0, id="touching edges"),
        pytest.param([3, 3, 3, 3], 0.0, id="no area"),
    ],
)
def test_iou_with_a_ten_pixel_square(other, expected):
    square = np.array([[0.0, 0.0, 10.0, 10.0]])
    assert iou_matrix(square, np.array([other], dtype=float)) == pytest.approx(expected)


@given(box_lists, box_lists)
def test_iou_is_symmetric_and_bounded(a, b):
    overlap = iou_matrix(as_array(a), as_array(b))
    assert overlap == pytest.approx(iou_matrix(as_array(b), as_array(a)).T)
    assert ((overlap >= 0) & (overlap <= 1)).all()
