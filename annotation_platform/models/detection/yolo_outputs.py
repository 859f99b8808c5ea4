"""Inputs and outputs of YOLO networks: letterboxed images, and boxes in the image.

Coordinates are continuous: the left edge of the first pixel is 0, its right edge 1. Resizing an
image of ``W`` pixels to ``w`` multiplies each coordinate by ``w / W``, without an offset of half a
pixel in either direction.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from annotation_platform.errors import ModelError
from annotation_platform.images.decoding import Pixels
from annotation_platform.models.protocols import Detections
from annotation_platform.schema.geometry import (
    Boxes,
    FloatArray,
    as_boxes,
    box_areas,
    clip_boxes,
    iou_matrix,
)

_GREY = 114
_MOST_BOXES = 100
_SAME = 0.5


@dataclass(frozen=True)
class Letterbox:
    """Position of an image in a square: each axis is scaled by its own factor, then shifted."""

    scale: FloatArray  # (2,) x and y: pixels of the square per pixel of the image
    shift: FloatArray  # (2,) x and y: first pixel of the image in the square
    width: int  # of the image
    height: int

    def to_image(self, boxes: Boxes) -> Boxes:
        """Return boxes of the square in pixels of the image, clipped to it."""
        back = (boxes - np.tile(self.shift, 2)) / np.tile(self.scale, 2)
        return clip_boxes(back, width=self.width, height=self.height)

    def to_square(self, boxes: Boxes) -> Boxes:
        """Return boxes of the image in pixels of the square."""
        return np.asarray(boxes * np.tile(self.scale, 2) + np.tile(self.shift, 2))


def letterbox(pixels: Pixels, *, side: int) -> tuple[Pixels, Letterbox]:
    """Return the image in the middle of a grey ``(side, side, 3)`` square, and its position.

    Its longer side fills the square. Rounding to whole pixels makes the two factors differ a
    little, so both are returned.
    """
    height, width = pixels.shape[:2]
    ratio = side / max(height, width)
    w, h = max(1, round(width * ratio)), max(1, round(height * ratio))
    left, top = (side - w) // 2, (side - h) // 2
    square = np.full((side, side, 3), _GREY, dtype=np.uint8)
    fitted = Image.fromarray(np.ascontiguousarray(pixels)).resize((w, h), Image.Resampling.BILINEAR)
    square[top : top + h, left : left + w] = np.asarray(fitted, dtype=np.uint8)
    position = Letterbox(np.array([w / width, h / height]), np.array([left, top]), width, height)
    return square, position


def decode_yolo(
    output: FloatArray,
    position: Letterbox,
    *,
    class_names: tuple[str, ...],
    minimum_score: float,
    where: str,
) -> Detections:
    """Return the boxes in a YOLO network's output for one image, best first, at most 100.

    The shape identifies one of two layouts: ``(N, 5 + C)``, a row per box of centre x, centre y,
    width, height, objectness and a score for each class (YOLO v3 to v7), and ``(4 + C, N)``, a
    column per box without objectness (v8 and later). Each box has the class of its highest score.
    Of boxes of one class that overlap by more than 0.5 the best remains; boxes without an area in
    the image are left out. Rows with a value that is not finite are left out and counted.

    Args:
        output: for one image, in pixels of the square.
        position: of the image in the square.
        class_names: by class number; those with an empty name are left out.
        minimum_score: boxes with a lower score are left out.
        where: the detector's file, for errors.

    Raises:
        ModelError: the shape is of neither layout.
    """
    rows = _rows(np.asarray(output, dtype=np.float64), len(class_names), where)
    sound = np.isfinite(rows).all(axis=1)
    rows = rows[sound]
    label = rows[:, 4:].argmax(axis=1)
    score = np.clip(rows[np.arange(len(rows)), 4 + label], 0.0, 1.0)
    middle, half = rows[:, :2], np.clip(rows[:, 2:4], 0.0, None) / 2
    boxes = position.to_image(np.hstack([middle - half, middle + half]))
    names = np.array(class_names, dtype=object)[label]
    selected = np.flatnonzero((score >= minimum_score) & (box_areas(boxes) > 0) & (names != ""))
    selected = selected[np.argsort(-score[selected], kind="stable")]
    chosen = _distinct(boxes[selected], names[selected])
    selected = selected[chosen][:_MOST_BOXES]
    return Detections(
        boxes=as_boxes(boxes[selected]),
        scores=score[selected],
        class_names=names[selected].tolist(),
        dropped=int((~sound).sum()),
    )


def _rows(output: FloatArray, classes: int, where: str) -> FloatArray:
    """Return ``(N, 4 + C)`` rows of box and class scores, multiplied by the objectness."""
    if output.ndim == 2 and output.shape[1] == 5 + classes:
        return np.hstack([output[:, :4], output[:, 4:5] * output[:, 5:]])
    if output.ndim == 2 and output.shape[0] == 4 + classes:
        return np.asarray(output.T)
    raise ModelError(
        f"{where}: the output for an image has the shape {output.shape}, but with the {classes} "
        f"named classes it must be (N, {5 + classes}) or ({4 + classes}, N). "
        "Correct prediction.class_names in params.yaml."
    )


def _distinct(boxes: Boxes, names: "np.ndarray[tuple[int], np.dtype[np.object_]]") -> list[int]:
    """Return the indices of the boxes, best first, that no better one of their class covers."""
    selected: list[int] = []
    covered = np.zeros(len(boxes), dtype=bool)
    for index in range(len(boxes)):
        if covered[index]:
            continue
        selected.append(index)
        if len(selected) == _MOST_BOXES:
            break
        later = slice(index + 1, None)
        overlaps = iou_matrix(boxes[index : index + 1], boxes[later])[0] > _SAME
        covered[later] |= overlaps & (names[later] == names[index])
    return selected
