"""A keypoint: ``[x, y]``; its enclosing box is that point."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes.area import beyond_image
from annotation_platform.schema.shapes.numbers import Numbered, are_numbers
from annotation_platform.schema.shapes.shape import (
    OUTSIDE,
    Kind,
    Label,
    Size,
    box_problem,
    boxes_of,
    edges_of,
    geometry_problem,
)

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

KEYPOINT_HALF = 0.02
"""Distance, as a share of the image's diagonal, at which two points overlap by one half."""

_DRAWN_RADIUS = 3
"""Radius of a drawn point, in pixels."""


class Keypoint(Numbered):
    """A point. Fused coordinate by coordinate."""

    name: ClassVar = "keypoint"
    kind: ClassVar = Kind.POINT
    noun: ClassVar = ("keypoint", "keypoints")

    def label(self, class_name: str, *drawn: Any) -> Label:
        """Return the point ``x, y``."""
        x, y = drawn
        return Label.around(self.name, class_name, [x, y], np.array([[x, y]]))

    def problem(self, geometry: str, box: Sequence[float]) -> str:
        """Return what is wrong with a stored point, or an empty text."""
        return box_problem(box) or geometry_problem(
            geometry, fits=lambda value: are_numbers(value, count=2)
        )

    def overlap(self, a: Sequence[Label], b: Sequence[Label], *, image_size: Size) -> FloatArray:
        """Return ``exp(-d² / 2s²)`` of the distances d, the form of COCO's keypoint similarity.

        A single point has no object whose size could set the scale, so s is a share of the image's
        diagonal, such that points ``KEYPOINT_HALF`` of it apart give one half.
        """
        reach = KEYPOINT_HALF * math.hypot(*image_size)
        gap = boxes_of(a)[:, None, :2] - boxes_of(b)[None, :, :2]
        return np.asarray(0.5 ** ((gap**2).sum(axis=2) / reach**2), dtype=np.float64)

    def numbers(self, labels: Sequence[Label], *, first: int) -> FloatArray:
        """Return the coordinates of each point."""
        del first
        return boxes_of(labels)[:, :2]

    def from_numbers(self, numbers: FloatArray, values: FloatArray) -> Label:
        """Return the point of two coordinates."""
        del values
        return self.label("", *numbers.tolist())

    def clip(self, label: Label, size: Size | None) -> Label | None:
        """Return the point, moved to its image if within ``OUTSIDE`` of it; else None."""
        corners = boxes_of([label])[0]
        edges = np.array([np.inf, np.inf] if size is None else size)
        inside = np.clip(corners.reshape(2, 2), 0.0, edges)
        if (inside.ravel() == corners).all():
            return label
        beyond = float(np.abs(inside[0] - corners[:2]).max())
        return (
            self.label(label.class_name or "", *inside[0].tolist()) if beyond <= OUTSIDE else None
        )

    def outside(self, label: Label, size: Size | None) -> str:
        """Return by how much the point is outside its image, or an empty text."""
        return "" if size is None else beyond_image(edges_of(label), size)

    def places(self, label: Label) -> list[list[float]]:
        """Return the point."""
        return [list(edges_of(label))]

    def draw(self, pen: "ImageDraw", label: Label, *, scale: float, color: str) -> None:
        """Draw a dot."""
        x, y = edges_of(label)[:2]
        pen.circle((x * scale, y * scale), _DRAWN_RADIUS, fill=color)
