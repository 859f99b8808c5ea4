"""One label: its shape, its class and its geometry."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray, as_boxes
from annotation_platform.schema.shapes.shape import SHAPES

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

_DECIMALS = 6
"""A millionth of a pixel: finer than the rounding of browsers, coarser than differences between
machines."""


@dataclass(frozen=True)
class Label:
    """One label; ``x1`` … ``y2`` are the enclosing box of a region and missing otherwise."""

    shape: str
    class_name: str | None = None
    geometry: str = ""
    x1: float | None = None
    y1: float | None = None
    x2: float | None = None
    y2: float | None = None

    @classmethod
    def around(
        cls, shape: str, class_name: str, geometry: Iterable[Any], points: npt.NDArray[Any]
    ) -> Self:
        """Return a region whose enclosing box is that of some points.

        Args:
            shape: its name.
            class_name: its class.
            geometry: numbers, or lists of numbers; they are stored to a millionth of a pixel.
            points: ``(N, 2)`` coordinates, at least one.
        """
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return cls(shape, class_name, _json(geometry), float(x1), float(y1), float(x2), float(y2))

    @classmethod
    def box(cls, class_name: str, x1: float, y1: float, x2: float, y2: float) -> "Label":
        """Return an upright box."""
        return SHAPES["box"].label(class_name, x1, y1, x2, y2)

    @classmethod
    def rotated_box(
        cls, class_name: str, x: float, y: float, width: float, height: float, degrees: float
    ) -> "Label":
        """Return a box of two sides about its centre, turned clockwise."""
        return SHAPES["rotated_box"].label(class_name, x, y, width, height, degrees)

    @classmethod
    def polygon(cls, class_name: str, outlines: Sequence[Sequence[float]]) -> "Label":
        """Return a polygon of one or more outlines ``x, y, x, y, …`` of at least three points."""
        return SHAPES["polygon"].label(class_name, outlines)

    @classmethod
    def mask(cls, class_name: str, pixels: npt.NDArray[np.bool_]) -> "Label":
        """Return a mask from ``(height, width)`` booleans of the whole image, some of them set."""
        return SHAPES["mask"].label(class_name, pixels)

    @classmethod
    def keypoint(cls, class_name: str, x: float, y: float) -> "Label":
        """Return a point."""
        return SHAPES["keypoint"].label(class_name, x, y)

    @classmethod
    def choice(cls, class_name: str) -> "Label":
        """Return a class of the whole image."""
        return SHAPES["choice"].label(class_name)

    @property
    def values(self) -> Any:
        """The geometry as numbers: the parsed JSON, or None without a geometry."""
        return json.loads(self.geometry) if self.geometry else None

    @property
    def pixels(self) -> npt.NDArray[np.bool_]:
        """The ``(height, width)`` booleans of a mask."""
        from pycocotools import mask as coco

        return np.asarray(coco.decode(self.run_lengths), bool)

    @property
    def run_lengths(self) -> dict[str, Any]:
        """The geometry of a mask in the form of pycocotools."""
        runs = self.values
        return {**runs, "counts": runs["counts"].encode("ascii")}


UNSURE = Label("unsure")
NOTHING = Label("none")


def area_of(label: Label) -> "BaseGeometry":
    """Return an area as a valid shapely geometry; see ``Shape.region``.

    Raises:
        ValueError: the label is not an area.
    """
    return SHAPES[label.shape].region(label)


def outlines_of(label: Label) -> list[list[float]]:
    """Return the outlines ``x, y, x, y, …`` of an area, in pixels; those of a mask along its edge.

    Raises:
        ValueError: the label is not an area.
    """
    return SHAPES[label.shape].outlines(label)


def boxes_of(labels: Sequence[Label]) -> FloatArray:
    """Return the ``(N, 4)`` enclosing boxes, absolute pixels; missing ones as NaN."""
    return as_boxes([(each.x1, each.y1, each.x2, each.y2) for each in labels])


def _json(values: Iterable[Any]) -> str:
    rounded: list[Any] = [
        [round(float(each), _DECIMALS) for each in value]
        if isinstance(value, Sequence)
        else round(float(value), _DECIMALS)
        for value in values
    ]
    return json.dumps(rounded)
