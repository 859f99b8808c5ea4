import numpy as np
import pytest

from annotation_platform.models.detection.box_fusion import fuse_boxes
from annotation_platform.models.protocols import Detections
from annotation_platform.schema.geometry import as_boxes


def view(*rows, dropped=0):
    boxes = as_boxes([[x, 0, x + 10, 10] for x, _, _ in rows])
    return Detections(boxes, np.array([s for _, s, _ in rows]), [n for _, _, n in rows], dropped)


def test_boxes_are_averaged_by_score_and_boxes_of_one_of_two_views_count_half():
    fused = fuse_boxes([view((0, 0.9, "red"), (100, 0.8, "red")), view((1, 0.3, "red"), dropped=2)])
    # x1: (0 · .9 + 1 · .3) / 1.2; score: (.9 + .3) / 2. Alone: .8 / 2.
    assert fused.boxes[:, 0] == pytest.approx([0.25, 100.0])
    assert fused.scores == pytest.approx([0.6, 0.4])
    assert (fused.dropped, fused.passes) == (2, 2)


def test_classes_do_not_mix_and_far_boxes_stay_apart():
    # IoU of neighbours 5 apart: 5 / 15 = .33.
    fused = fuse_boxes([view((0, 0.6, "red"), (5, 0.5, "red")), view((0, 0.6, "blue"))])
    assert fused.class_names == ["blue", "red", "red"]
    assert fused.scores == pytest.approx([0.3, 0.3, 0.25])


def test_nothing_found_is_fused_to_nothing_and_weak_boxes_are_left_out():
    assert len(fuse_boxes([view(), view()]).boxes) == 0
    assert len(fuse_boxes([view((0, 0.6, "red")), view()], minimum_score=0.4).boxes) == 0
    one = view((0, 0.6, "red"), (50, 0.1, "red"))
    assert fuse_boxes([one], minimum_score=0.2).scores.tolist() == [0.6]


def test_the_same_view_twice_changes_nothing():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 1000, (20, 2))
    scores = -np.sort(-rng.uniform(0.1, 1, 20))
    one = Detections(np.hstack([corners, corners + 20]), scores, ["red"] * 20)
    fused = fuse_boxes([one, one])
    assert fused.boxes == pytest.approx(one.boxes)
    assert fused.scores == pytest.approx(one.scores)
