"""Conversion of areas: exact where possible, and measured elsewhere."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.formats.outlines import smallest_rotated_box
from annotation_platform.schema.shapes import Label, outlines_of
from annotation_platform.schema.shapes.raster import (
    checked,
    counts_from_text,
    extent,
    rasterise,
    text_from_counts,
    trace,
)
from tests.core.formats.overlap import area_overlap


@st.composite
def pixels(draw, most=12):
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    bits = draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
    found = np.array(bits).reshape(height, width)
    found[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return found


@st.composite
def stars(draw):
    """An outline of 5 to 12 corners around a point, 20 pixels across or more."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    corners = draw(st.integers(5, 12))
    size = draw(st.sampled_from([20, 50, 200]))
    turns = (np.arange(corners) + rng.random(corners) * 0.8) * 2 * np.pi / corners
    radii = size / 2 + rng.random(corners) * size / 2
    points = np.stack([np.cos(turns), np.sin(turns)], axis=1) * radii[:, None] + 1.1 * size
    return size, points.ravel().tolist()


@given(pixels())
def test_outlines_of_a_mask_hold_just_its_pixels_and_no_more(mask):
    outlines = trace(mask)
    height, width = mask.shape
    assert (rasterise(outlines, width=width, height=height) == mask).all()
    areas = [shapely.Polygon(np.reshape(each, (-1, 2))) for each in outlines]
    assert all(each.is_valid for each in areas)
    # Together as large as the pixels, so no two overlap, and no hole is filled.
    assert sum(each.area for each in areas) == mask.sum()
    assert all(side == int(side) for each in outlines for side in each)


def test_a_mask_with_holes_is_cut_into_pieces():
    ring = np.ones((5, 7), dtype=bool)
    ring[2, 2] = ring[2, 4] = False
    outlines = trace(ring)
    assert len(outlines) == 2
    assert (rasterise(outlines, width=7, height=5) == ring).all()
    assert trace(np.zeros((3, 3), dtype=bool)) == []


@pytest.mark.parametrize(
    ("outline", "expected"),
    [
        pytest.param([1, 1, 3, 1, 3, 2, 1, 2], [[0, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]], id="on"),
        pytest.param(
            [0.6, 0, 2.4, 0, 2.4, 3, 0.6, 3], [[0, 1, 0, 0]] * 3, id="centres 1.5 but not 2.5"
        ),
        pytest.param(
            [0.5, 0, 2.5, 0, 2.5, 3, 0.5, 3], [[1, 1, 0, 0]] * 3, id="centres on both edges"
        ),
        pytest.param([-9, -9, 90, -9, 90, 1, -9, 1], [[1] * 4, [0] * 4, [0] * 4], id="outside"),
        pytest.param([5, 5, 6, 5, 6, 6], [[0] * 4] * 3, id="outside the image"),
        pytest.param(
            [0, 0, 4, 3, 4, 0, 0, 3],
            [[1, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 1]],
            id="crosses itself",
        ),
    ],
)
def test_pixels_belong_to_an_outline_by_their_centre(outline, expected):
    assert rasterise([outline], width=4, height=3).astype(int).tolist() == expected


def test_the_smallest_box_around_a_rotated_box_is_that_box():
    turned = Label.rotated_box("a", 20, 20, 10, 4, 30)
    polygon = Label.polygon("a", outlines_of(turned))
    assert smallest_rotated_box(polygon).values == pytest.approx(turned.values, abs=1e-4)
    # 40 of (10 cos 30 + 4 sin 30) (10 sin 30 + 4 cos 30) = 10.660 × 8.464 square pixels.
    upright = Label.box("a", turned.x1, turned.y1, turned.x2, turned.y2)
    overlap = area_overlap(turned, upright)
    assert overlap == pytest.approx(40 / (10.6603 * 8.4641), abs=1e-4)


@settings(max_examples=60, deadline=None)
@given(stars())
def test_a_mask_of_a_polygon_loses_half_a_pixel_along_its_outline_at_most(star):
    size, outline = star
    polygon, side = Label.polygon("a", [outline]), int(2.4 * size)
    mask = Label.mask("a", rasterise([outline], width=side, height=side))
    # The outline moves by half a pixel's diagonal at most: that bounds the area that is lost.
    around = shapely.Polygon(np.reshape(outline, (-1, 2)))
    worst = 1 - around.length * np.sqrt(0.5) / around.area
    assert area_overlap(polygon, mask) >= worst


def test_an_impossible_conversion_is_an_error():
    with pytest.raises(ValueError, match="without a pixel"):
        Label.mask("a", rasterise([[1.6, 1.6, 2.4, 1.6, 2.4, 2.4, 1.6, 2.4]], width=9, height=9))
    with pytest.raises(ValueError, match="enclose nothing"):
        smallest_rotated_box(Label.polygon("a", [[0, 0, 1, 1, 2, 2]]))


@given(pixels())
def test_run_lengths_come_back_with_the_same_box(mask):
    height, width = mask.shape
    label = Label.mask("a", mask)
    counts = counts_from_text(label.values["counts"])
    assert counts.sum() == mask.size
    assert counts[1::2].sum() == mask.sum()
    same = checked(counts, width=width, height=height)
    assert text_from_counts(same, width=width, height=height) == label.values["counts"]
    assert extent(same, height=height) == (label.x1, label.y1, label.x2, label.y2)


def test_empty_runs_within_are_joined():
    counts = checked(np.array([0, 2, 0, 3, 4, 0]), width=3, height=3)
    assert counts.tolist() == [0, 5, 4]


@pytest.mark.parametrize("text", ["", "\x00", "P" * 40, "ooooooooo0", "é", "0o"])
def test_text_without_run_lengths_is_refused(text):
    with pytest.raises(ValueError, match="run lengths"):
        checked(counts_from_text(text), width=5, height=5)
