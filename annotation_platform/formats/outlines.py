"""One outline, or one rotated box, for an area, for formats that hold only that per object."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import SHAPES, Label, area_of, outlines_of


def one_outline(label: Label, *, width: int, height: int) -> FloatArray:
    """Return the ``(N, 2)`` corners of an area inside its image, as a single outline.

    A single outline inside the image is returned unchanged. Otherwise the area is clipped to the
    image, and its pieces and holes are joined: see ``joined``. An area that is outside the image,
    or encloses nothing, gives no corners.

    Args:
        label: A box, rotated box, polygon or mask, absolute pixels.
        width: Width of the image in pixels.
        height: Height of the image in pixels.
    """
    outlines = [np.reshape(each, (-1, 2)).astype(np.float64) for each in outlines_of(label)]
    inside = all(((each >= 0) & (each <= (width, height))).all() for each in outlines)
    shape = SHAPES[label.shape]
    if inside and (len(outlines) == 1 or shape.is_raster):
        return joined(outlines)
    if shape.is_upright_box:
        return np.clip(outlines[0], 0, (width, height))
    return joined(_rings(label, width, height))


def smallest_rotated_box(label: Label) -> Label:
    """Return the smallest rotated box around an area, rotated by 0 to 90 degrees.

    Raises:
        ValueError: the area encloses nothing.
    """
    import shapely

    points = np.concatenate([np.reshape(each, (-1, 2)) for each in outlines_of(label)])
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
    return Label.rotated_box(label.class_name or "", x, y, length, breadth, degrees)


def _rings(label: Label, width: int, height: int) -> list[FloatArray]:
    """Return the outlines, and the holes, of the part of an area inside the image."""
    import shapely

    outlined = Label.polygon("", outlines_of(label))
    inside = shapely.box(0, 0, width, height)
    area = shapely.intersection(area_of(outlined), inside)
    # An area that only touches the image gives lines and points. Normalised pieces are sorted.
    pieces = [
        piece
        for piece in shapely.get_parts(area.normalize())
        if piece.geom_type == "Polygon" and piece.area > 0
    ]
    return [
        np.asarray(shapely.get_coordinates(ring)[:-1], dtype=np.float64)
        for piece in pieces
        for ring in shapely.get_rings(piece)
    ]


def joined(outlines: Sequence[FloatArray]) -> FloatArray:
    """Return one outline that encloses the same area as several, by the even-odd rule.

    Each outline is connected to the previous ones at their nearest corners, by a line that runs
    there and back and so encloses nothing. Ultralytics' ``merge_multi_segment`` does the same, but
    connects each outline to its neighbour in the list. An empty list gives no corners.
    """
    if not outlines:
        return np.empty((0, 2))
    whole = outlines[0]
    for outline in outlines[1:]:
        here, there = _nearest(whole, outline)
        around = np.roll(outline, -there, axis=0)
        whole = np.concatenate([whole[: here + 1], around, around[:1], whole[here:]])
    return whole


def _nearest(a: FloatArray, b: FloatArray) -> tuple[int, int]:
    """Return the indices of the nearest corners of ``a`` and ``b``; the first pair of several."""
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(a).query(b)
    there = int(np.argmin(distances))
    away: npt.NDArray[Any] = ((a - b[there]) ** 2).sum(axis=1)
    return int(np.argmin(away)), there
