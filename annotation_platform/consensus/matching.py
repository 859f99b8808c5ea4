"""Matching of labels of different annotators into objects.

``docs/algorithms/fusion.md`` has the measurements behind the rules and numbers here.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import Boxes, FloatArray, iou_matrix
from annotation_platform.schema.shapes import Label

Group = npt.NDArray[np.intp]

SAME_CLASS = 0.2
"""Reduction of the least overlap for two labels of the same class."""

_PASSES = 5
"""Largest number of passes over the annotations; nearly all images are stable after two."""


def match_pairs(overlap: FloatArray, *, threshold: float) -> list[tuple[int, int]]:
    """Return the pairs of row and column that are the same object.

    The assignment with the largest total overlap (Kuhn, "The Hungarian Method for the Assignment
    Problem", 1955), each row and column in at most one pair, only pairs of at least
    ``threshold``, which is above 0.
    """
    # Pairs below the threshold must not contribute to the total.
    worth = np.where(overlap >= threshold, overlap, 0.0)
    rows, columns = _assigned(worth)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in pairs if worth[row, column] > 0]


def _assigned(worth: FloatArray) -> tuple[Group, Group]:
    """Return the rows and columns of the pairs with the largest total worth; 0 is no pair."""
    rows, columns = np.nonzero(worth)
    if all(len(np.unique(each)) == len(each) for each in (rows, columns)):
        # No pairs compete, as in most images.
        return rows, columns
    # Importing scipy takes a third of a second, and most importers of this module never match.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(worth, maximize=True)
    return rows, columns


def match_boxes(a: Boxes, b: Boxes, *, iou_threshold: float) -> list[tuple[int, int]]:
    """Return the pairs of positions in ``a`` and ``b`` that are the same object.

    Args:
        a: ``(N, 4)`` boxes.
        b: ``(M, 4)`` boxes.
        iou_threshold: least overlap of a pair, in ``(0, 1]``; see ``match_pairs``.
    """
    return match_pairs(iou_matrix(a, b), threshold=iou_threshold)


def group_labels(
    labels: Sequence[Label],
    owners: Sequence[str],
    overlap: FloatArray,
    *,
    iou_threshold: float,
) -> list[Group]:
    """Return groups of positions, each the labels that different annotators drew of one object.

    Labels of one group have one shape, not always one class. A label joins an object if it
    overlaps one of the object's labels by ``iou_threshold``, or by ``SAME_CLASS`` less if their
    class is the same. A label that fits no other is a group of its own.

    Args:
        labels: regions of all annotators on one image, ``N`` of them.
        owners: ``N`` names, the annotator of each.
        overlap: ``(N, N)``, their ``overlap_matrix``.
        iou_threshold: least overlap of two labels of the same object, in ``(0, 1]``.

    Returns:
        Groups by their leftmost, then topmost label; their positions ascend. Neither the names of
        the annotators nor the order of the labels matters.
    """
    names = np.array([label.class_name or "" for label in labels], dtype=object)
    same = np.asarray(names[:, None] == names, dtype=bool)
    closeness = overlap + SAME_CLASS * (same & (overlap > 0))
    keys = [content(label) for label in labels]
    return _groups(closeness, owners, keys, iou_threshold)


def cluster_boxes(boxes: Boxes, owners: Sequence[str], *, iou_threshold: float) -> list[Group]:
    """Return groups of positions, each the boxes that different annotators drew around one object.

    As ``group_labels``, without classes: a box joins an object if it overlaps one of the object's
    boxes by ``iou_threshold``.

    Args:
        boxes: ``(N, 4)`` boxes of all annotators on one image.
        owners: ``N`` names, the annotator of each.
        iou_threshold: in ``(0, 1]``.
    """
    keys = [tuple(box) for box in boxes.tolist()]
    return _groups(iou_matrix(boxes, boxes), owners, keys, iou_threshold)


def _groups(
    closeness: FloatArray,
    owners: Sequence[str],
    keys: Sequence[tuple[Hashable, ...]],
    threshold: float,
) -> list[Group]:
    """Assign each annotator's labels to the objects formed by the others' labels, iteratively.

    An annotator's labels go to objects by the assignment with the largest total closeness, summed
    over the labels of an object; with two annotators that is the optimum, with more a local one,
    since the joint optimum is NP-hard. Annotators are processed in descending order of the
    closeness of their labels to those of the others.
    """
    # Ties are broken by the content of the labels, not by their annotators.
    order = sorted(range(len(keys)), key=lambda at: keys[at])
    close = closeness[np.ix_(order, order)]
    people: dict[str, list[int]] = {}
    for at, position in enumerate(order):
        people.setdefault(owners[position], []).append(at)
    every = np.ones(len(order), dtype=bool)

    def rank(own: list[int]) -> tuple[float, list[tuple[Hashable, ...]]]:
        others = every.copy()
        others[own] = False
        return -float(close[own][:, others].sum()), [keys[order[at]] for at in own]

    turns = [np.array(own) for own in sorted(people.values(), key=rank)]
    object_of = np.full(len(order), -1, dtype=np.intp)
    for _ in range(_PASSES):
        before = object_of.copy()
        for own in turns:
            _assign(own, object_of, close, threshold)
        if len(turns) < 2 or _same_groups(before, object_of):
            break
    positions = np.array(order, dtype=np.intp)
    groups = [np.sort(positions[object_of == number]) for number in dict.fromkeys(object_of)]
    return sorted(groups, key=lambda group: sorted(keys[at] for at in group))


def _assign(own: Group, object_of: Group, close: FloatArray, threshold: float) -> None:
    """Assign one annotator's labels to the objects of the others; the rest are new objects."""
    object_of[own] = -1
    others = np.flatnonzero(object_of >= 0)
    numbers, object_number = np.unique(object_of[others], return_inverse=True)
    new = int(object_of.max()) + 1 + np.arange(len(own))
    object_of[own] = new
    if not len(numbers):
        return
    to_each = close[np.ix_(own, others)]
    closest = np.zeros((len(numbers), len(own)))
    np.maximum.at(closest, object_number, to_each.T)
    total = to_each @ (object_number[:, None] == np.arange(len(numbers)))
    worth = np.where((closest >= threshold).T, total, 0.0)
    rows, columns = _assigned(worth)
    taken = worth[rows, columns] > 0
    object_of[own[rows[taken]]] = numbers[columns[taken]]


def _same_groups(a: Group, b: Group) -> bool:
    return bool(((a[:, None] == a) == (b[:, None] == b)).all())


def content(label: Label) -> tuple[Hashable, ...]:
    """Return a sort key that does not depend on the annotator: leftmost, then topmost first."""
    box = (label.x1, label.y1, label.x2, label.y2)
    return (*box, label.shape, label.geometry, label.class_name or "")
