"""One set of boxes from several detections of the same image.

Solovyev, Wang and Gabruseva, "Weighted Boxes Fusion: Ensembling Boxes from Different Object
Detection Models", 2021.
"""

from collections.abc import Sequence

import numpy as np

from annotation_platform.models.protocols import Detections
from annotation_platform.schema.geometry import FloatArray, iou_matrix


def fuse_boxes(
    views: Sequence[Detections], *, iou: float = 0.55, minimum_score: float = 0.0
) -> Detections:
    """Return the fused boxes of several views of an image, best first.

    Boxes are processed by descending score. Each joins the object of its class whose fused box it
    overlaps most, by more than ``iou``, or begins a new one. A fused box is the mean of its boxes
    weighted by their scores; its score is their mean times the share of the views that found it,
    at most 1: a box of only one of two views counts half. A single view is returned unchanged.

    Args:
        views: the detections of each view, in the same pixels, views without detections included.
        iou: lowest IoU of two boxes of one object.
        minimum_score: fused boxes with a lower score are left out.
    """
    if len(views) == 1:
        return views[0].of(np.flatnonzero(views[0].scores >= minimum_score).tolist())
    fused: list[tuple[float, str, list[float]]] = []
    for name in sorted({name for view in views for name in view.class_names}):
        boxes, scores = _of_class(views, name)
        for members in _objects(boxes, scores, iou):
            score = float(scores[members].mean()) * min(len(members) / len(views), 1.0)
            box = _mean_box(boxes[members], scores[members])
            fused.append((score, name, box.tolist()))
    ranked = sorted(
        (one for one in fused if one[0] >= minimum_score), key=lambda one: (-one[0], one)
    )
    return Detections(
        boxes=np.array([box for _, _, box in ranked], dtype=np.float64).reshape(-1, 4),
        scores=np.array([score for score, _, _ in ranked]),
        class_names=[name for _, name, _ in ranked],
        dropped=sum(view.dropped for view in views),
        passes=sum(view.passes for view in views),
    )


def _of_class(views: Sequence[Detections], name: str) -> tuple[FloatArray, FloatArray]:
    """Return the boxes of one class and their scores, best first; ties in the given order."""
    masks = [np.array([one == name for one in view.class_names], dtype=bool) for view in views]
    boxes = np.concatenate([view.boxes[mask] for view, mask in zip(views, masks, strict=True)])
    scores = np.concatenate([view.scores[mask] for view, mask in zip(views, masks, strict=True)])
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def _objects(boxes: FloatArray, scores: FloatArray, iou: float) -> list[list[int]]:
    members: list[list[int]] = []
    means = np.zeros((0, 4))
    for index, box in enumerate(boxes):
        overlap = iou_matrix(box[None], means)[0]
        best = int(overlap.argmax()) if len(overlap) else -1
        if best >= 0 and overlap[best] > iou:
            members[best].append(index)
            group = members[best]
            means[best] = _mean_box(boxes[group], scores[group])
        else:
            members.append([index])
            means = np.vstack([means, box])
    return members


def _mean_box(boxes: FloatArray, scores: FloatArray) -> FloatArray:
    mean = np.average(boxes, axis=0, weights=scores + 1e-12)
    # Rounding must not move an edge out of the image.
    return np.asarray(np.clip(mean, boxes.min(axis=0), boxes.max(axis=0)))
