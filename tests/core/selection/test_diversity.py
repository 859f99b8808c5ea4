import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.selection.diversity import farthest_first


def all_distances(vectors, wanted, known=()):
    """Choose by looking at all distances, in double precision."""
    rows = vectors.astype(np.float64)
    near = np.full(len(rows), np.inf)
    chosen = []
    if not len(known):
        mean = rows.mean(axis=0)
        chosen = [int(np.argmin(np.round(((rows - mean) ** 2).sum(axis=1), 9)))]
    for centre in [*known, *(rows[one] for one in chosen)]:
        near = np.minimum(near, ((rows - centre) ** 2).sum(axis=1))
    while len(chosen) < min(wanted, len(rows)):
        open_ = np.array([one for one in range(len(rows)) if one not in chosen])
        best = int(open_[np.argmax(np.round(near[open_], 9))])
        chosen.append(best)
        near = np.minimum(near, ((rows - rows[best]) ** 2).sum(axis=1))
    return chosen


def test_points_on_a_line_are_taken_from_the_middle_outwards():
    line = np.array([[0.0], [1.0], [2.0], [4.0], [9.0]], dtype=np.float32)
    # The mean is 3.2: nearest is 4. Then 9 (5 away), 0 (4 away), 2 (2 from both 0 and 4), 1.
    assert farthest_first(line, 5) == [3, 4, 0, 2, 1]
    # Where 9 is known, 0 is farthest, then 4 (4 and 5 away), 2 and 1.
    assert farthest_first(line[:4], 4, known=line[4:]) == [0, 3, 2, 1]
    assert farthest_first(line, 9) == farthest_first(line, 5)
    assert farthest_first(line, 0) == farthest_first(line[:0], 3) == []


def test_rows_equally_far_are_taken_in_order_and_repeats_last():
    corners = np.eye(6, dtype=np.float32)
    assert farthest_first(corners, 6) == [0, 1, 2, 3, 4, 5]
    repeated = corners[[0, 0, 1, 1, 2]]
    assert farthest_first(repeated, 5)[3:] == [1, 3]
    same = np.full((7, 3), 0.3, dtype=np.float32)
    assert farthest_first(same, 4, known=same[:1]) == [0, 1, 2, 3]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 6), st.integers(0, 5))
def test_the_choice_is_that_of_all_distances(seed, count, width, known):
    rng = np.random.default_rng(seed)
    # Few distinct values: many rows are equally far, and many repeat.
    vectors = rng.integers(-2, 3, (count, width)).astype(np.float32)
    before = rng.integers(-2, 3, (known, width)).astype(np.float32)
    assert farthest_first(vectors, count, known=before) == all_distances(vectors, count, before)


@pytest.mark.parametrize("clusters", [0, 30])
def test_the_choice_is_that_of_all_distances_far_beyond_what_is_looked_at_at_once(clusters):
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(9000, 24))
    if clusters:
        vectors = vectors / 4 + rng.normal(size=(clusters, 24))[rng.integers(0, clusters, 9000)]
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    assert farthest_first(vectors, 120) == all_distances(vectors, 120)


def test_more_rows_equally_far_than_are_looked_at_at_once_are_taken_in_order():
    corners = np.eye(64, dtype=np.float32)[np.arange(64).repeat(100)]
    assert sorted(farthest_first(corners, 64)) == [100 * n for n in range(64)]


def test_no_row_is_farther_than_twice_the_best_cover():
    rng = np.random.default_rng(8)
    centres = rng.uniform(-10, 10, (12, 8))
    vectors = (centres.repeat(50, axis=0) + rng.uniform(-0.1, 0.1, (600, 8))).astype(np.float32)
    chosen = vectors[farthest_first(vectors, 12)]
    radius = np.linalg.norm(vectors[:, None] - chosen[None], axis=2).min(axis=1).max()
    # Every row is within 0.1 * sqrt(8) of its centre: the best cover is no wider.
    assert radius <= 2 * 0.1 * np.sqrt(8) + 1e-6
