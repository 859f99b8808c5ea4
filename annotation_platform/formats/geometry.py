"""Conversion of an area from one shape to another, with the overlap between the two areas.

A mask loses the position of an outline within a pixel: at most half a pixel along the outline
(``schema/shapes/raster.py``). ``convert`` reports the overlap after that, or with an enclosing box.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from annotation_platform.schema.shapes import AREAS, Label, area_of, outlines_of
from annotation_platform.schema.shapes.raster import rasterise

_Outlines = Sequence[Sequence[float]]

FAITHFUL = 0.99
"""A conversion with an intersection over union below this value is lossy."""


@dataclass(frozen=True)
class Converted:
    """A label in its new shape, and the overlap (IoU, 0 to 1) of its area with the original."""

    label: Label
    overlap: float

    @property
    def lossy(self) -> bool:
        """Whether the area changed: an overlap below ``FAITHFUL``."""
        return self.overlap < FAITHFUL


def convert(label: Label, shape: str, *, width: int, height: int) -> Converted:
    """Return an area as another shape, and its overlap with the original area.

    A box, rotated or not, becomes a polygon, and an upright one a rotated box, without loss. Any
    other shape becomes the smallest upright or rotated box around it. A mask becomes a polygon
    without loss of area; the area around a hole is cut into pieces. Only masks are clipped to the
    image.

    Args:
        label: An area, absolute pixels.
        shape: ``box``, ``rotated_box``, ``polygon`` or ``mask``.
        width: Width of the image in pixels; used only for masks.
        height: Height of the image in pixels; used only for masks.

    Raises:
        ValueError: the label or ``shape`` is not an area; a label to be a mask covers no pixel
            centre; a label to be a rotated box encloses nothing.
    """
    if label.shape not in AREAS or shape not in _MAKERS:
        raise ValueError(f"a {label.shape} cannot become a {shape}: only areas can")
    if label.shape == shape:
        return Converted(label, 1.0)
    made = _MAKERS[shape](label.class_name or "", outlines_of(label), (width, height))
    return Converted(made, area_overlap(label, made))


def area_overlap(a: Label, b: Label) -> float:
    """Return the intersection over union, 0 to 1, of two areas of any shapes; exact for masks.

    If neither area has any extent, the overlap is 0.
    """
    import shapely

    first, second = area_of(a), area_of(b)
    shared = float(shapely.area(shapely.intersection(first, second)))
    union = float(shapely.area(first) + shapely.area(second)) - shared
    # Equal areas may differ in the last digit by the order of summation.
    return min(shared / union, 1.0) if union > 0 else 0.0


def _upright(name: str, outlines: _Outlines, _: tuple[int, int]) -> Label:
    around = Label.polygon(name, outlines)
    return Label.box(name, around.x1, around.y1, around.x2, around.y2)  # type: ignore[arg-type]


def _rotated(name: str, outlines: _Outlines, _: tuple[int, int]) -> Label:
    """Return the smallest rotated box around outlines, rotated by 0 to 90 degrees."""
    import shapely

    points = np.concatenate([np.reshape(each, (-1, 2)) for each in outlines])
    around = shapely.oriented_envelope(shapely.MultiPoint(points))
    corners = shapely.get_coordinates(around)
    if len(corners) != 5:
        raise ValueError("its points enclose nothing")
    ahead, side = corners[1] - corners[0], corners[2] - corners[1]
    degrees = math.degrees(math.atan2(ahead[1], ahead[0])) % 180
    length, breadth = math.hypot(*ahead), math.hypot(*side)
    if degrees >= 90:
        degrees, length, breadth = degrees - 90, breadth, length
    x, y = corners[:4].mean(axis=0).tolist()
    return Label.rotated_box(name, x, y, length, breadth, degrees)


def _polygon(name: str, outlines: _Outlines, _: tuple[int, int]) -> Label:
    return Label.polygon(name, outlines)


def _mask(name: str, outlines: _Outlines, size: tuple[int, int]) -> Label:
    return Label.mask(name, rasterise(outlines, width=size[0], height=size[1]))


_MAKERS: dict[str, Callable[[str, _Outlines, tuple[int, int]], Label]] = {
    "box": _upright,
    "rotated_box": _rotated,
    "polygon": _polygon,
    "mask": _mask,
}
"""Functions that make an area of each shape from class name, outlines and image size."""
