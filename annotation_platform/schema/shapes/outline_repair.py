"""Repairs drawn polygons: self-intersections, and parts outside the image."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import shapely
    from shapely.geometry.base import BaseGeometry

Outline = list[float]
"""Corners ``x, y, x, y, …`` in pixels, at least three of them."""

Corners = Sequence[tuple[float, float]]

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
