"""Repairs drawn polygons: self-intersections, and parts outside the image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import shapely
    from shapely.geometry.base import BaseGeometry

Outline = list[float]
"""Corners ``x, y, x, y, …`` in pixels, at least three of them."""

Corners = Sequence[tuple[float, float]]

Extent = tuple[float, float, float, float]
"""``x1 y1 x2 y2`` in pixels."""

ROUNDING_PIXELS = 0.01
"""Rounding error of browsers; a region that is off by less is exactly at the edge."""

LEAST_SHARE_INSIDE = 0.5
"""The least share of a rotated box inside the image, as it cannot be clipped."""

MOST_CROSSED_CORNERS = 1000
"""The most corners of a self-intersecting outline; a malicious one would take seconds."""


_NO_AREA = 1e-6
"""The least area in square pixels; rounding leaves less of a line."""


class OutlineError(ValueError):
    """An outline encloses no usable area, for the given reason."""


def without_repetition(corners: Corners) -> list[tuple[float, float]]:
    """Return the corners without repetitions of the previous one; the last precedes the first.

    Raises:
        OutlineError: fewer than three different corners are left.
    """
    distinct = [corner for n, corner in enumerate(corners) if n == 0 or corner != corners[n - 1]]
    if len(distinct) > 1 and distinct[0] == distinct[-1]:
        distinct.pop()
    if len(set(distinct)) < 3:
        raise OutlineError(f"{len(set(distinct))} different points enclose nothing")
    return distinct


def crosses_itself(corners: Corners) -> bool:
    """Return whether an outline touches or crosses itself.

    Raises:
        OutlineError: it does not, and encloses no area.
    """
    import shapely

    drawn = shapely.Polygon(corners)
    if not drawn.is_valid:
        return True
    if drawn.area < _NO_AREA:
        raise OutlineError("its points enclose nothing")
    return False


def share_inside(corners: Corners, width: int, height: int) -> float:
    """Return the share inside the image of the area that corners enclose, in ``[0, 1]``.

    Raises:
        OutlineError: they enclose no area.
    """
    import shapely

    drawn = shapely.Polygon(corners)
    if drawn.area < _NO_AREA:
        raise OutlineError("its corners enclose nothing")
    return float(drawn.intersection(shapely.box(0, 0, width, height)).area / drawn.area)


def enclosed(corners: Corners, width: int, height: int) -> list[Outline]:
    """Return outlines without self-intersections of the area of an outline within the image.

    The area is the one that browsers fill: wherever the outline winds around. Holes, which
    people draw by going in, around and back out, are left out: the area around a hole is cut
    into pieces there, as outlines cannot have holes.

    Raises:
        OutlineError: the outline encloses no area, none of it is in the image, or it crosses itself
            and has more than ``MOST_CROSSED_CORNERS`` corners.
    """
    import shapely

    drawn: BaseGeometry = shapely.Polygon(corners)
    if not drawn.is_valid:
        if len(corners) > MOST_CROSSED_CORNERS:
            raise OutlineError(f"it crosses itself and has {len(corners)} points: too many")
        drawn = shapely.make_valid(drawn, method="structure", keep_collapsed=False)
    if drawn.area < _NO_AREA:
        raise OutlineError("its points enclose nothing")
    inside = _areas(shapely.intersection(drawn, shapely.box(0, 0, width, height)))
    if not inside:
        raise OutlineError("entirely outside the image")
    whole = [piece for area in inside for piece in _without_holes(area)]
    return [[float(each) for xy in piece.exterior.coords[:-1] for each in xy] for piece in whole]


def _areas(shape: "shapely.Geometry") -> "list[shapely.Polygon]":
    import shapely

    parts = shapely.get_parts(shape).tolist()
    return [part for part in parts if part.area >= _NO_AREA]


def _without_holes(polygon: "shapely.Polygon") -> "list[shapely.Polygon]":
    import shapely

    if not polygon.interiors:
        return [polygon]
    left, _, right, _ = polygon.interiors[0].bounds
    middle = (left + right) / 2
    x1, y1, x2, y2 = polygon.bounds
    halves = [shapely.box(x1, y1, middle, y2), shapely.box(middle, y1, x2, y2)]
    return [
        whole
        for half in halves
        for area in _areas(shapely.intersection(polygon, half))
        for whole in _without_holes(area)
    ]


def check_outside(corners: Extent, width: int, height: int, most_percent: float) -> None:
    """Raise an OutlineError if a region is outside the image, or reaches too far outside.

    Args:
        corners: the box around the region, in pixels.
        width: width of the image in pixels.
        height: height of the image in pixels.
        most_percent: how far the region may reach outside, in percent of a side of the image.
    """
    x1, y1, x2, y2 = corners
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise OutlineError("entirely outside the image")
    outside = max(-x1 / width, -y1 / height, (x2 - width) / width, (y2 - height) / height)
    # The margin allows for rounding: exactly the tolerance is accepted.
    if outside * 100 > most_percent + 1e-9:
        raise OutlineError(f"reaches {outside * 100:.1f} percent outside the image")


def clip(corners: Extent, width: int, height: int) -> Extent:
    """Return the part of a box inside the image."""
    x1, y1, x2, y2 = corners
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def differ(one: Extent, other: Extent) -> bool:
    """Return whether two boxes differ by more than the rounding of browsers."""
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) > ROUNDING_PIXELS
