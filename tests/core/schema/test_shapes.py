import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.schema.shapes import Label, rotated_corners


def enclosing(label):
    return label.x1, label.y1, label.x2, label.y2


@pytest.mark.parametrize(
    ("label", "box"),
    [
        pytest.param(Label.box("a", 1, 2, 3, 4), (1, 2, 3, 4), id="box"),
        # Four wide and two high, stood on its end.
        pytest.param(Label.rotated_box("a", 10, 10, 4, 2, 90), (9, 8, 11, 12), id="turned"),
        pytest.param(
            Label.polygon("a", [[0, 0, 5, 0, 5, 5], [7, 7, 9, 7, 9, 8]]),
            (0, 0, 9, 8),
            id="outlines",
        ),
        pytest.param(Label.keypoint("a", 3.5, 4), (3.5, 4, 3.5, 4), id="point"),
        pytest.param(Label.choice("a"), (None, None, None, None), id="no place"),
    ],
)
def test_every_region_has_its_enclosing_box(label, box):
    assert enclosing(label) == pytest.approx(box) if box[0] is not None else box


def test_a_square_turned_by_45_degrees_stands_on_a_corner():
    half = np.sqrt(2.0)
    corners = rotated_corners(0, 0, 2, 2, 45)
    np.testing.assert_allclose(corners, [[0, -half], [half, 0], [0, half], [-half, 0]], atol=1e-12)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 2**31))
def test_a_mask_comes_back_pixel_by_pixel(height, width, seed):
    pixels = np.random.default_rng(seed).random((height, width)) < 0.4
    pixels[seed % height, seed % width] = True
    label = Label.mask("a", pixels)
    assert (label.pixels == pixels).all()
    rows, columns = np.nonzero(pixels)
    assert enclosing(label) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_what_is_no_region_is_refused():
    with pytest.raises(ValueError, match="three points"):
        Label.polygon("a", [[0, 0, 5, 5]])
    with pytest.raises(ValueError, match="without a pixel"):
        Label.mask("a", np.zeros((3, 3), dtype=bool))
