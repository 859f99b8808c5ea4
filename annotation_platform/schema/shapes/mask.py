"""A mask: ``{"size": [height, width], "counts": "…"}``, COCO's compressed run lengths."""

import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes.area import HALF, Area
from annotation_platform.schema.shapes.numbers import are_numbers
from annotation_platform.schema.shapes.raster import checked, counts_from_text, trace
from annotation_platform.schema.shapes.shape import LINE_WIDTH, Label, Size, edges_of

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

_LONGEST_SIDE = 10**9


class Mask(Area):
    """The pixels of a whole image, some of them set.

    Fused into the pixels that annotators with half of the weight or more set; if there are none,
    into the mask that overlaps the others most.
    """

    name: ClassVar = "mask"
    noun: ClassVar = ("mask", "masks")
    keeps_whole: ClassVar = False
    is_raster: ClassVar = True

    def label(self, class_name: str, *drawn: Any) -> Label:
        """Return the mask of ``(height, width)`` booleans of the whole image.

        The enclosing box reaches from the first set pixel's left and top edge to the last one's
        right and bottom edge.

        Raises:
            ValueError: no pixel is set.
        """
        (pixels,) = drawn
        if not pixels.any():
            raise ValueError("a mask without a pixel is not a region")
        # The import takes half a second and is needed for masks only.
        from pycocotools import mask as coco

        runs = coco.encode(np.asfortranarray(pixels, dtype=np.uint8))
        text = json.dumps({"size": list(pixels.shape), "counts": runs["counts"].decode("ascii")})
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        return Label(self.name, class_name, text, *(float(corner) for corner in corners))

    def geometry_fits(self, value: Any) -> bool:
        """Return whether parsed JSON is a size and run lengths that fit it."""
        if not isinstance(value, dict) or set(value) != {"size", "counts"}:
            return False
        size, counts = value["size"], value["counts"]
        if not isinstance(counts, str) or not are_numbers(size, count=2):
            return False
        if not all(type(side) is int and 0 < side <= _LONGEST_SIDE for side in size):
            return False
        try:
            checked(counts_from_text(counts), width=size[1], height=size[0])
        except ValueError:
            return False
        return True

    def outlines(self, label: Label) -> list[list[float]]:
        """Return outlines along the edges of the pixels."""
        return trace(label.pixels)

    def exact_overlap(
        self, a: Sequence[Label], b: Sequence[Label], near: npt.NDArray[np.bool_]
    ) -> FloatArray:
        """Return the intersections over union in pixels; masks of two sizes overlap nothing."""
        from pycocotools import mask as coco

        ours, theirs = [label.run_lengths for label in a], [label.run_lengths for label in b]
        overlap = np.asarray(coco.iou(theirs, ours, [0] * len(ours)), dtype=np.float64).T
        # For masks of two sizes, which belong to two images, pycocotools returns -1.
        return np.where(near, np.clip(overlap, 0.0, 1.0), 0.0)

    def fuse(
        self,
        labels: Sequence[Label],
        weights: Sequence[float],
        *,
        middle: Label,
        deviation: FloatArray | None,
    ) -> Label:
        """Return the pixels set by annotators with enough of the weight."""
        del deviation
        votes: FloatArray = np.zeros(labels[0].pixels.shape)
        for label, weight in zip(labels, weights, strict=True):
            votes += weight * label.pixels
        # Rounding of sums does not matter: ``HALF`` is below one half.
        pixels = votes >= HALF * np.sum(weights)
        return self.label("", pixels) if pixels.any() else middle

    def cut(self, label: Label, edges: FloatArray) -> Label | None:
        """Return the mask as it is: its pixels are those of the image."""
        del edges
        return label

    def outside(self, label: Label, size: Size | None) -> str:
        """Return how the mask does not fit its image, whose size it must have."""
        problem = super().outside(label, None)
        if problem:
            return problem
        if size is not None and label.values["size"] != [size[1], size[0]]:
            height, width = label.values["size"]
            wanted = f"an image of {size[0]:g} × {size[1]:g}"
            return f"is a mask of {width} × {height} pixels on {wanted}"
        return super().outside(label, size)

    def marks(self, label: Label, *, most: int) -> list[list[float]]:
        """Return upright stripes: a mask is stored by columns, of which a subset is drawn."""
        runs = label.values
        height, width = runs["size"]
        ends = np.cumsum(counts_from_text(runs["counts"]))
        starts, ends = ends[:-1:2], ends[1::2]
        first, last = (
            (int(starts.min()) // height, int(ends.max() - 1) // height) if len(ends) else (0, -1)
        )
        step = max(1, math.ceil((last - first + 1) / most))
        stripes: list[list[float]] = []
        for column in range(first, last + 1, step):
            top, bottom = column * height, (column + 1) * height
            right = min(column + step, width)
            for at in np.flatnonzero((starts < bottom) & (ends > top)).tolist():
                low, high = max(int(starts[at]), top) - top, min(int(ends[at]), bottom) - top
                stripes.append([column, low, right, low, right, high, column, high])
        return stripes

    def draw(self, pen: "ImageDraw", label: Label, *, scale: float, color: str) -> None:
        """Draw the enclosing box: pixels would hide the object."""
        edges = [edge * scale for edge in edges_of(label)]
        pen.rectangle(edges, outline=color, width=LINE_WIDTH)
