"""Polygons as people draw them: repaired where they cross themselves, cut at the image's edge."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import shapely
    from shapely.geometry.base import BaseGeometry

Outline = list[float]
"""Corners ``x, y, x, y, …`` in pixels, at least three of them."""

Corners = Sequence[tuple[float, float]]

MOST_CROSSED_CORNERS = 1000
"""So many corners may an outline have that crosses itself: one made to be slow takes seconds."""


_NO_AREA = 1e-6
"""Square pixels that arithmetic leaves of a line; the least that is an area."""


class OutlineError(ValueError):
    """An outline encloses nothing that can be used, for the reason given."""


def without_repetition(corners: Corners) -> list[tuple[float, float]]:
    """Return the corners without those that repeat the one before; the last is before the first.

    Raises:
        OutlineError: fewer than three different corners are left.
    """
    kept = [corner for n, corner in enumerate(corners) if n == 0 or corner != corners[n - 1]]
    if len(kept) > 1 and kept[0] == kept[-1]:
        kept.pop()
    if len(set(kept)) < 3:
        raise OutlineError(f"{len(set(kept))} different points enclose nothing")
    return kept


def crosses_itself(corners: Corners) -> bool:
    """Return whether an outline touches or crosses itself.

    Raises:
        OutlineError: it does not, and encloses nothing.
    """
    import shapely

    drawn = shapely.Polygon(corners)
    if not drawn.is_valid:
        return True
    if drawn.area < _NO_AREA:
        raise OutlineError("its points enclose nothing")
    return False


def share_inside(corners: Corners, width: int, height: int) -> float:
    """Return which share of the area that corners enclose lies in the image.

    Raises:
        OutlineError: they enclose nothing.
    """
    import shapely

    drawn = shapely.Polygon(corners)
    if drawn.area < _NO_AREA:
        raise OutlineError("its corners enclose nothing")
    return float(drawn.intersection(shapely.box(0, 0, width, height)).area / drawn.area)


def enclosed(corners: Corners, width: int, height: int) -> list[Outline]:
    """Return outlines, none of which crosses itself, of what one encloses within the image.

    What it encloses is what the browser fills: wherever the outline winds around. A hole, which
    people make by going in, around and back out, is left out: what is around it is cut into
    pieces at the hole, for outlines can have no holes.

    Raises:
        OutlineError: nothing is enclosed, nothing of it is in the image, or the outline crosses
            itself and has more than ``MOST_CROSSED_CORNERS`` corners.
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
