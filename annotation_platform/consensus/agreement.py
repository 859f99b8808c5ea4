"""F1 agreement between annotators, and between annotations and ground truth."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from annotation_platform.consensus.matching import match_pairs
from annotation_platform.consensus.objects import AnnotatedTask, read_tasks
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS, Label
from annotation_platform.schema.shapes.overlap import labels_of, overlap_matrix


def pooled_f1(found: pd.DataFrame, truth: pd.DataFrame, *, iou_threshold: float = 0.5) -> float:
    """Return the F1 of all labels of all images together, by ``image_id``; 1 if both are empty.

    A pair counts when its shape and class are the same and its overlap is at least
    ``iou_threshold``, in ``(0, 1]``; of choices, when the class is the same. Both tables have one
    row per label, with ``class_name`` and the four box columns; ``shape`` and ``geometry`` where
    these are not all boxes.
    """
    hits = hits_by_image(found, truth, iou_threshold=iou_threshold)
    return _f1(sum(hits.values()), len(found) + len(truth))


def hits_by_image(
    found: pd.DataFrame, truth: pd.DataFrame, *, iou_threshold: float = 0.5
) -> dict[str, int]:
    """Return how many labels of ``found`` have a partner, by ``image_id``; see ``pooled_f1``.

    Images that only one of the two tables has are left out.
    """
    ours, theirs = _by_image(found), _by_image(truth)
    return {
        key: _hits(labels, theirs[key], iou_threshold, _extent([*labels, *theirs[key]]))
        for key, labels in ours.items()
        if key in theirs
    }


def pairwise_agreement(human_labels: pd.DataFrame) -> float:
    """Return the mean F1 between the pairs of annotators of each task, over all such pairs.

    Class and location both count. ``unsure`` annotations are not compared. NaN if no task has two
    annotations.
    """
    return mean_f1(read_tasks(human_labels, None))


def mean_f1(tasks: Sequence[AnnotatedTask], *, iou_threshold: float = 0.5) -> float:
    """Return the ``pairwise_agreement`` of tasks from ``read_tasks``."""
    scores = []
    for task in tasks:
        labels_by: dict[str, list[Label]] = {person: [] for person in task.voters}
        for label, owner in zip(task.labels, task.owners, strict=True):
            labels_by[owner].append(label)
        for a, b in combinations(labels_by.values(), 2):
            scores.append(_f1(_hits(a, b, iou_threshold, task.extent), len(a) + len(b)))
    return float(np.mean(scores)) if scores else float("nan")


def _f1(hits: int, total: int) -> float:
    return 1.0 if total == 0 else 2.0 * hits / total


def _by_image(frame: pd.DataFrame) -> Mapping[str, list[Label]]:
    labels = np.array([*labels_of(frame), None], dtype=object)[:-1]
    groups = frame.groupby("image_id").indices
    return {str(key): labels[rows].tolist() for key, rows in groups.items()}


def _hits(
    a: Sequence[Label], b: Sequence[Label], threshold: float, image_size: tuple[float, float]
) -> int:
    if not a or not b:
        return 0
    overlap = overlap_matrix(a, b, image_size=image_size)
    choice = np.outer([_is_choice(label) for label in a], [_is_choice(label) for label in b])
    names = [np.array([label.class_name for label in side], dtype=object) for side in (a, b)]
    worth = np.where(choice, 1.0, overlap) * (names[0][:, None] == names[1])
    return len(match_pairs(worth, threshold=threshold))


def _is_choice(label: Label) -> bool:
    return label.shape in CLASSIFICATIONS


def _extent(labels: Sequence[Label]) -> tuple[float, float]:
    """Return the extent of the regions: only distances of keypoints depend on it."""
    regions = [label for label in labels if label.shape in REGIONS]
    width = max((float(label.x2 or 0.0) for label in regions), default=1.0)
    height = max((float(label.y2 or 0.0) for label in regions), default=1.0)
    return width, height
