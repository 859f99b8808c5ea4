import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.models.detection.tiling import (
    join_windows,
    mirrored,
    select_windows,
    tile_windows,
)
from annotation_platform.models.protocols import Detections
from annotation_platform.schema.geometry import as_boxes, box_areas, clip_boxes


def found(boxes, scores=None, names=None):
    corners = as_boxes(boxes)
    scores = np.ones(len(corners)) if scores is None else np.array(scores)
    return Detections(corners, scores, list(names or ["red"] * len(corners)))


def oracle(window, boxes, names, *, least_visible):
    """Detections of a perfect detector in a window: sufficiently visible boxes, clipped to it."""
    x1, y1, x2, y2 = window
    inside = clip_boxes(boxes - np.tile([x1, y1], 2), width=x2 - x1, height=y2 - y1)
    visible = box_areas(inside) >= least_visible * box_areas(boxes)
    return found(inside[visible], names=[n for n, yes in zip(names, visible, strict=True) if yes])


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(64, 1200), st.floats(0, 0.8))
def test_windows_cover_the_image_and_overlap_as_configured(width, height, side, overlap):
    windows = tile_windows(width, height, side=side, overlap=overlap)
    for low, high, length in ((0, 2, width), (1, 3, height)):
        starts, ends = np.unique(windows[:, low]), np.unique(windows[:, high])
        assert (starts[0], ends[-1]) == (0, length)
        assert (ends - starts == min(side, length)).all()
        # Rounding to whole pixels may cost one of the pixels shared.
        assert (ends[:-1] - starts[1:] >= np.floor(overlap * side) - 1).all()
    assert len(windows) == len(np.unique(windows, axis=0))


@pytest.mark.parametrize(("width", "height", "side"), [(500, 400, 0), (500, 400, 500), (1, 1, 64)])
def test_a_small_image_is_one_window(width, height, side):
    assert tile_windows(width, height, side=side, overlap=0.2).tolist() == [[0, 0, width, height]]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_perfect_detector_finds_every_object_once_and_exactly(seed, whole_too):
    rng = np.random.default_rng(seed)
    width, height, side, overlap = 900, 700, 256, 0.3
    # Without the whole image, only objects that fit into an overlap are certain to be whole.
    longest = 600 if whole_too else int(overlap * side) - 4
    boxes, names = [], []
    for _ in range(40):
        w, h = rng.integers(3, longest, 2)
        x, y = rng.integers(0, max(1, width - w)), rng.integers(0, max(1, height - h))
        box = [x, y, min(x + w, width), min(y + h, height)]
        if all(box[0] >= o[2] or box[2] <= o[0] or box[1] >= o[3] or box[3] <= o[1] for o in boxes):
            boxes.append(box)
            names.append(str(rng.choice(["red", "blue"])))
    truth = as_boxes(boxes)
    windows = tile_windows(width, height, side=side, overlap=overlap)
    if whole_too:
        windows = np.vstack([[[0, 0, width, height]], windows])
    windows = windows[rng.permutation(len(windows))]
    detected = [oracle(one, truth, names, least_visible=0.3) for one in windows]
    joined = join_windows(windows, detected, width=width, height=height)
    got = sorted([n, *b] for n, b in zip(joined.class_names, joined.boxes.tolist(), strict=True))
    assert got == sorted([n, *b] for n, b in zip(names, truth.tolist(), strict=True))


def test_an_object_longer_than_any_window_is_joined_from_its_parts():
    windows = tile_windows(600, 100, side=100, overlap=0.2)
    long = np.array([[30.0, 40, 570, 60]])
    detected = [oracle(one, long, ["red"], least_visible=0.0) for one in windows]
    joined = join_windows(windows, detected, width=600, height=100)
    assert joined.boxes.tolist() == long.tolist()
    assert joined.passes == len(windows)


def test_a_cut_box_without_a_detection_in_the_window_that_contains_it_is_left_out():
    windows = np.array([[0, 0, 100, 100], [60, 0, 160, 100]])
    # A dark edge looks like an object to the first window alone.
    detected = [found([[80, 10, 100, 30]]), found([])]
    assert len(join_windows(windows, detected, width=160, height=100).boxes) == 0
    # Not cut: a whole box of one window stays without a detection in the other.
    detected = [found([[70, 10, 90, 30]]), found([])]
    assert join_windows(windows, detected, width=160, height=100).boxes.tolist() == [
        [70, 10, 90, 30]
    ]


def test_the_smallest_window_determines_the_box_and_the_highest_score_is_used():
    windows = np.array([[0, 0, 400, 400], [0, 0, 200, 200]])
    detected = [found([[48, 52, 72, 68]], [0.9]), found([[50, 50, 70, 70]], [0.6])]
    joined = join_windows(windows, detected, width=400, height=400)
    assert joined.boxes.tolist() == [[50, 50, 70, 70]]
    assert joined.scores.tolist() == [0.9]


def test_objects_of_two_classes_at_one_position_stay_two():
    windows = np.array([[0, 0, 100, 100], [50, 0, 150, 100]])
    detected = [found([[60, 10, 90, 40]], names=["red"]), found([[10, 10, 40, 40]], names=["blue"])]
    joined = join_windows(windows, detected, width=150, height=100)
    assert joined.class_names == ["blue", "red"]
    assert joined.boxes.tolist() == [[60, 10, 90, 40]] * 2


def test_the_most_useful_windows_come_first_up_to_the_limit():
    pixels = np.full((100, 300, 3), 90, dtype=np.uint8)
    pixels[:, 200:] = np.random.default_rng(0).integers(0, 255, (100, 100, 3))
    windows = tile_windows(300, 100, side=100, overlap=0.0)
    nothing = found([])
    assert select_windows(windows, pixels, nothing, most=1).tolist() == [[200, 0, 300, 100]]
    # Two confident boxes in the middle outweigh the noise's share of the detail, which is near 1.
    detected = found([[110, 10, 120, 20], [150, 10, 160, 20]])
    pixels[:, :100] = np.random.default_rng(1).integers(0, 255, (100, 100, 3))
    first = select_windows(windows, pixels, detected, most=2)
    assert first[0].tolist() == [100, 0, 200, 100]
    assert len(select_windows(windows, pixels, detected, most=9)) == 3


def test_mirroring_twice_changes_nothing():
    boxes = as_boxes([[0, 1, 10, 20], [5, 5, 30, 6]])
    once = mirrored(found(boxes), width=30)
    assert once.boxes.tolist() == [[20, 1, 30, 20], [0, 5, 25, 6]]
    assert mirrored(once, width=30).boxes.tolist() == boxes.tolist()
