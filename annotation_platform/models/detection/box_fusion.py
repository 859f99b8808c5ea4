"""One set of boxes from several looks at the same image.

Solovyev, Wang and Gabruseva, "Weighted Boxes Fusion: Ensembling Boxes from Different Object
Detection Models", 2021.
"""

from collections.abc import Sequence

import numpy as np

from annotation_platform.models.protocols import Detections
from annotation_platform.schema.geometry import FloatArray, iou_matrix


def fuse_boxes(
    looks: Sequence[Detections], *, iou: float = 0.55, minimum_score: float = 0.0
) -> Detections:
    """Return the boxes that several looks found together, best first.

    Box after box, the most confident first, joins the object of its class whose fused box it
    overlaps most, by more than ``iou``, or begins a new one. A fused box is the mean of its boxes
    weighed by their scores; its score is their mean times the share of the looks that found it, at
    most 1: what only one of two saw counts half. One look is returned as it is.

    Args:
        looks: what each found, in the same pixels; as many as looked, those that found nothing too.
        iou: from which on two boxes are one object.
        minimum_score: what scores below it in the end is left out.
    """
    if len(looks) == 1:
        return looks[0].of(np.flatnonzero(looks[0].scores >= minimum_score).tolist())
    fused: list[tuple[float, str, list[float]]] = []
    for name in sorted({name for look in looks for name in look.class_names}):
        boxes, scores = _of_class(looks, name)
        for members in _objects(boxes, scores, iou):
            score = float(scores[members].mean()) * min(len(members) / len(looks), 1.0)
            box = _mean_box(boxes[members], scores[members])
            fused.append((score, name, box.tolist()))
    kept = sorted((one for one in fused if one[0] >= minimum_score), key=lambda one: (-one[0], one))
    return Detections(
        boxes=np.array([box for _, _, box in kept], dtype=np.float64).reshape(-1, 4),
        scores=np.array([score for score, _, _ in kept]),
        class_names=[name for _, name, _ in kept],
        dropped=sum(look.dropped for look in looks),
        passes=sum(look.passes for look in looks),
    )


def _of_class(looks: Sequence[Detections], name: str) -> tuple[FloatArray, FloatArray]:
    """Return the boxes of one class and their scores, best first; ties in the order given."""
    chosen = [np.array([one == name for one in look.class_names], dtype=bool) for look in looks]
    boxes = np.concatenate([look.boxes[its] for look, its in zip(looks, chosen, strict=True)])
    scores = np.concatenate([look.scores[its] for look, its in zip(looks, chosen, strict=True)])
    order = np.argsort(-scores, kind="stable")
    return boxes[order], scores[order]


def _objects(boxes: FloatArray, scores: FloatArray, iou: float) -> list[list[int]]:
    members: list[list[int]] = []
    middles = np.zeros((0, 4))
    for place, box in enumerate(boxes):
        overlap = iou_matrix(box[None], middles)[0]
        best = int(overlap.argmax()) if len(overlap) else -1
        if best >= 0 and overlap[best] > iou:
            members[best].append(place)
            its = members[best]
            middles[best] = _mean_box(boxes[its], scores[its])
        else:
            members.append([place])
            middles = np.vstack([middles, box])
    return members


def _mean_box(boxes: FloatArray, scores: FloatArray) -> FloatArray:
    mean = np.average(boxes, axis=0, weights=scores + 1e-12)
    # Rounding must not carry an edge out of the image.
    return np.asarray(np.clip(mean, boxes.min(axis=0), boxes.max(axis=0)))
