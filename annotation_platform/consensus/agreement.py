"""How far people agree, and how far an answer agrees with the truth."""

from itertools import combinations

import numpy as np
import pandas as pd

from annotation_platform.consensus.matching import match_boxes
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes


def f1_score(a: pd.DataFrame, b: pd.DataFrame, *, iou_threshold: float = 0.5) -> float:
    """Return the F1 of two sets of boxes of one image: 1 if both are empty, symmetric.

    A pair counts when its IoU is at least ``iou_threshold`` and its class is the same.

    Args:
        a: one row per box, with ``class_name`` and the four box columns.
        b: the same.
        iou_threshold: in ``(0, 1]``.
    """
    total = len(a) + len(b)
    return 1.0 if total == 0 else 2.0 * count_hits(a, b, iou_threshold=iou_threshold) / total


def count_hits(a: pd.DataFrame, b: pd.DataFrame, *, iou_threshold: float = 0.5) -> int:
    """Return how many boxes of ``a`` have a partner of the same class in ``b``."""
    hits = 0
    for name in set(a["class_name"]) & set(b["class_name"]):
        ours = as_boxes(a.loc[a["class_name"] == name, BOX_COLUMNS])
        theirs = as_boxes(b.loc[b["class_name"] == name, BOX_COLUMNS])
        hits += len(match_boxes(ours, theirs, iou_threshold=iou_threshold))
    return hits


def pooled_f1(found: pd.DataFrame, truth: pd.DataFrame, *, iou_threshold: float = 0.5) -> float:
    """Return the F1 of all boxes of all images together, by ``image_id``; 1 if both are empty."""
    total = len(found) + len(truth)
    by_image = dict(iter(truth.groupby("image_id")))
    hits = sum(
        count_hits(rows, by_image[key], iou_threshold=iou_threshold)
        for key, rows in found.groupby("image_id")
        if key in by_image
    )
    return 1.0 if total == 0 else 2.0 * hits / total


def pairwise_agreement(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> float:
    """Return the mean F1 between the pairs of annotators of each image, over all such pairs.

    Class and place both count. Where no image has two answers there is nothing to agree on: NaN.

    Args:
        human_labels: a ``human_labels`` table.
        iou_threshold: in ``(0, 1]``.
    """
    scores = []
    for _, answers in human_labels.groupby("image_id"):
        by_person = [rows[rows["shape"] == "box"] for _, rows in answers.groupby("annotator")]
        for a, b in combinations(by_person, 2):
            scores.append(f1_score(a, b, iou_threshold=iou_threshold))
    return float(np.mean(scores)) if scores else float("nan")
