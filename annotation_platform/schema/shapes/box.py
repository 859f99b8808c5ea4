"""An upright box: its enclosing box defines it, and its geometry is empty."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from annotation_platform.schema.geometry import FloatArray, iou_matrix
from annotation_platform.schema.shapes.area import Area
from annotation_platform.schema.shapes.numbers import Numbered, median_of
from annotation_platform.schema.shapes.shape import (
    LINE_WIDTH,
    Label,
    Size,
    box_problem,
    boxes_of,
    edges_of,
)

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from shapely.geometry.base import BaseGeometry


class Box(Numbered, Area):
    """An upright box. Fused edge by edge."""

    name: ClassVar = "box"
    noun: ClassVar = ("box", "boxes")
    keeps_whole: ClassVar = False
    is_upright_box: ClassVar = True

    def label(self, class_name: str, *drawn: Any) -> Label:
        """Return the box of ``x1, y1, x2, y2``."""
        x1, y1, x2, y2 = drawn
        return Label(self.name, class_name, "", float(x1), float(y1), float(x2), float(y2))

    def problem(self, geometry: str, box: Sequence[float]) -> str:
        """Return what is wrong with a stored box, or an empty text."""
        return box_problem(box) or ("has a geometry in addition to its box" if geometry else "")

    def outlines(self, label: Label) -> list[list[float]]:
        """Return the corners, clockwise from the top left."""
        x1, y1, x2, y2 = edges_of(label)
        return [[x1, y1, x2, y1, x2, y2, x1, y2]]

    def region(self, label: Label) -> "BaseGeometry":
        """Return the box as a shapely geometry."""
        from shapely import box

        return cast("BaseGeometry", box(*boxes_of([label])[0]))

    def overlap(self, a: Sequence[Label], b: Sequence[Label], *, image_size: Size) -> FloatArray:
        """Return the intersections over union."""
        del image_size
        return iou_matrix(boxes_of(a), boxes_of(b))

    def numbers(self, labels: Sequence[Label], *, first: int) -> FloatArray:
        """Return the four edges of each box."""
        del first
        return boxes_of(labels)

    def from_numbers(self, numbers: FloatArray, values: FloatArray) -> Label:
        """Return the box of four edges."""
        if (numbers[:2] >= numbers[2:]).any():
            # The edges come from different annotators and have crossed; medians cannot cross.
            numbers = median_of(values)
        return self.label("", *numbers.tolist())

    def cut(self, label: Label, edges: FloatArray) -> Label | None:
        """Return the box cut at the edges of its image."""
        inside = np.clip(boxes_of([label])[0].reshape(2, 2), 0.0, edges)
        x1, y1, x2, y2 = inside.ravel().tolist()
        is_left = x1 < x2 and y1 < y2
        return self.label(label.class_name or "", x1, y1, x2, y2) if is_left else None

    def places(self, label: Label) -> list[list[float]]:
        """Return the four edges."""
        return [list(edges_of(label))]

    def draw(self, pen: "ImageDraw", label: Label, *, scale: float, color: str) -> None:
        """Draw the four edges."""
        edges = [edge * scale for edge in edges_of(label)]
        pen.rectangle(edges, outline=color, width=LINE_WIDTH)
