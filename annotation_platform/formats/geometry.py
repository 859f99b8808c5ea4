"""Areas of one shape into another, and how much of the area that keeps.

What a mask cannot hold is where in a pixel an outline ran: half a pixel at most, along the whole
outline (``schema/shapes/raster.py``). ``convert`` reports the cost of that, or of an enclosing box.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from annotation_platform.schema.shapes import AREAS, Label, area_of, outlines_of
from annotation_platform.schema.shapes.raster import rasterise

_Outlines = Sequence[Sequence[float]]

FAITHFUL = 0.99
"""A conversion that keeps less than this intersection over union is lossy."""


@dataclass(frozen=True)
class Converted:
    """A label in its new shape, and the overlap (IoU, 0 to 1) of its area with the one before."""

    label: Label
    overlap: float

    @property
    def lossy(self) -> bool:
        """Whether the area is another one than before: an overlap below ``FAITHFUL``."""
        return self.overlap < FAITHFUL


def convert(label: Label, shape: str, *, width: int, height: int) -> Converted:
    """Return an area as another shape, and how much of its area that keeps.

    A box, rotated or not, is a polygon or (upright) a rotated box without loss. The box of anything
    else is the smallest around it, upright or turned. A mask as polygon loses nothing but its
    holes' being holes: the area around them is cut into pieces. Nothing is cut at the image's
    edge but a mask, which ends there.

    Args:
        label: An area, absolute pixels.
        shape: The name of a box, rotated box, polygon or mask.
        width: The image's, in pixels; of use for masks only.
        height: The image's, in pixels.

    Raises:
        ValueError: the label or ``shape`` is no area, or the label covers no pixel's centre, or
            encloses nothing, where a mask or a turned box is asked for.
    """
    if label.shape not in AREAS or shape not in _MAKERS:
        raise ValueError(f"a {label.shape} cannot become a {shape}: only areas can")
    if label.shape == shape:
        return Converted(label, 1.0)
    made = _MAKERS[shape](label.class_name or "", outlines_of(label), (width, height))
    return Converted(made, area_overlap(label, made))


def area_overlap(a: Label, b: Label) -> float:
    """Return the intersection over union of two areas, whatever their shapes; a mask's is exact.

    Two areas of which neither has any extent overlap nothing.
    """
    import shapely

    ours, theirs = area_of(a), area_of(b)
    shared = float(shapely.area(shapely.intersection(ours, theirs)))
    union = float(shapely.area(ours) + shapely.area(theirs)) - shared
    # Two ways round the same sum may part in the last digit.
    return min(shared / union, 1.0) if union > 0 else 0.0


def _upright(name: str, outlines: _Outlines, _: tuple[int, int]) -> Label:
    around = Label.polygon(name, outlines)
    return Label.box(name, around.x1, around.y1, around.x2, around.y2)  # type: ignore[arg-type]


def _turned(name: str, outlines: _Outlines, _: tuple[int, int]) -> Label:
    """Return the smallest rotated box around outlines, turned by 0 to 90 degrees."""
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
    "rotated_box": _turned,
    "polygon": _polygon,
    "mask": _mask,
}
"""How an area of each shape is made from outlines and the size of its image."""
