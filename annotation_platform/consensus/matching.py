"""Which boxes of different people are the same object."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from annotation_platform.schema.geometry import Boxes, iou_matrix


def match_boxes(a: Boxes, b: Boxes, *, iou_threshold: float) -> list[tuple[int, int]]:
    """Return the pairs of positions in ``a`` and ``b`` that are the same object.

    The assignment with the largest total overlap (Kuhn, "The Hungarian Method for the Assignment
    Problem", 1955), each box in at most one pair, only pairs of at least ``iou_threshold``.
    """
    overlap = iou_matrix(a, b)
    # Pairs below the threshold must not be chosen for the sake of the total.
    worth = np.where(overlap >= iou_threshold, overlap, 0.0)
    rows, columns = linear_sum_assignment(worth, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if worth[row, column] > 0]


def cluster_boxes(
    boxes: Boxes, owners: Sequence[str], *, iou_threshold: float
) -> list[npt.NDArray[np.intp]]:
    """Return groups of positions, each the boxes that different people drew round one object.

    Pairs of boxes of different owners are joined from the largest overlap down, as long as the
    overlap is at least ``iou_threshold`` and no owner would stand in a group twice. A box that
    nobody else drew is a group of its own. The order of the people does not matter: groups come
    by their leftmost, then topmost box.

    Args:
        boxes: ``(N, 4)`` boxes of all people on one image.
        owners: ``N`` names, who drew each.
        iou_threshold: in ``(0, 1]``.
    """
    overlap = iou_matrix(boxes, boxes)
    first, second = np.triu_indices(len(boxes), k=1)
    keep = overlap[first, second] >= iou_threshold
    # Equal overlaps are taken by position of the boxes, not by who drew them.
    place = [tuple(boxes[i]) + tuple(boxes[j]) for i, j in zip(first, second, strict=True)]
    order = sorted(
        np.flatnonzero(keep), key=lambda pair: (-overlap[first[pair], second[pair]], place[pair])
    )
    group_of = list(range(len(boxes)))
    members = {position: [position] for position in group_of}
    for pair in order:
        one, other = group_of[first[pair]], group_of[second[pair]]
        if one == other:
            continue
        if {owners[i] for i in members[one]} & {owners[i] for i in members[other]}:
            continue
        members[one] += members.pop(other)
        for position in members[one]:
            group_of[position] = one
    groups = [np.array(sorted(positions), dtype=np.intp) for positions in members.values()]
    return sorted(groups, key=lambda positions: sorted(tuple(boxes[i]) for i in positions))
