"""What a label can be: a region of one of five shapes, a choice, or one of two bare statements.

All places are absolute pixels of the stored picture, origin at its top left corner. Every region
has its enclosing box; what the box does not say is the ``geometry``, a short JSON text:

============  =================================================================================
shape         geometry
============  =================================================================================
box           empty: the box says it all
rotated_box   ``[centre x, centre y, width, height, degrees clockwise]``
polygon       ``[[x, y, x, y, …], …]``: outlines, as in COCO; what lies in any of them belongs to it
mask          ``{"size": [height, width], "counts": "…"}``: COCO's compressed run lengths
keypoint      ``[x, y]``; its enclosing box is that point
choice        empty, and no box: the class is said of the whole picture
unsure        empty, no class, no box: the person could not tell
none          empty, no class, no box: there is nothing to label
============  =================================================================================
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

Shape = Literal["box", "rotated_box", "polygon", "mask", "keypoint", "choice"]
"""What a class is drawn as, or chosen by."""

AREAS = ("box", "rotated_box", "polygon", "mask")
REGIONS = (*AREAS, "keypoint")
SHAPES = (*REGIONS, "choice", "unsure", "none")

_DECIMALS = 6
"""A millionth of a pixel: less than browsers lose in arithmetic, more than machines differ by."""


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
    def box(cls, class_name: str, x1: float, y1: float, x2: float, y2: float) -> Self:
        """Return an upright box."""
        return cls("box", class_name, "", float(x1), float(y1), float(x2), float(y2))

    @classmethod
    def rotated_box(
        cls, class_name: str, x: float, y: float, width: float, height: float, degrees: float
    ) -> Self:
        """Return a box of two sides about its centre, turned clockwise."""
        values = [x, y, width, height, degrees]
        corners = rotated_corners(x, y, width, height, degrees)
        return cls("rotated_box", class_name, _json(values), *_around(corners))

    @classmethod
    def polygon(cls, class_name: str, outlines: Sequence[Sequence[float]]) -> Self:
        """Return a polygon of one or more outlines ``x, y, x, y, …`` of at least three points."""
        if not outlines or any(len(each) < 6 or len(each) % 2 for each in outlines):
            raise ValueError("an outline is at least three points x, y")
        points = np.concatenate([np.reshape(each, (-1, 2)) for each in outlines])
        return cls("polygon", class_name, _json(outlines), *_around(points))

    @classmethod
    def mask(cls, class_name: str, pixels: npt.NDArray[np.bool_]) -> Self:
        """Return a mask from ``(height, width)`` booleans of the whole picture, some of them set.

        The enclosing box reaches from the first set pixel's left and top edge to the last one's
        right and bottom edge.
        """
        if not pixels.any():
            raise ValueError("a mask without a pixel is no region")
        # Half a second to import, for those who have masks only.
        from pycocotools import mask as coco

        runs = coco.encode(np.asfortranarray(pixels, dtype=np.uint8))
        text = json.dumps({"size": list(pixels.shape), "counts": runs["counts"].decode("ascii")})
        rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
        corners = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        return cls("mask", class_name, text, *(float(corner) for corner in corners))

    @classmethod
    def keypoint(cls, class_name: str, x: float, y: float) -> Self:
        """Return a point."""
        return cls("keypoint", class_name, _json([x, y]), *_around(np.array([[x, y]])))

    @classmethod
    def choice(cls, class_name: str) -> Self:
        """Return a class that is said of the whole picture."""
        return cls("choice", class_name)

    @property
    def values(self) -> Any:
        """The geometry as numbers: the parsed JSON, or None where there is none."""
        return json.loads(self.geometry) if self.geometry else None

    @property
    def pixels(self) -> npt.NDArray[np.bool_]:
        """The ``(height, width)`` booleans of a mask."""
        from pycocotools import mask as coco

        runs = self.values
        return np.asarray(coco.decode({**runs, "counts": runs["counts"].encode("ascii")}), bool)


UNSURE = Label("unsure")
NOTHING = Label("none")


def rotated_corners(
    x: float, y: float, width: float, height: float, degrees: float
) -> npt.NDArray[np.float64]:
    """Return the ``(4, 2)`` corners of a rotated box, clockwise from what was its top left."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    turned = half @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turned + np.array([x, y]), dtype=np.float64)


def _around(points: npt.NDArray[Any]) -> tuple[float, float, float, float]:
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return float(x1), float(y1), float(x2), float(y2)


def _json(values: Any) -> str:
    rounded: list[Any] = [
        [round(float(each), _DECIMALS) for each in value]
        if isinstance(value, Sequence)
        else round(float(value), _DECIMALS)
        for value in values
    ]
    return json.dumps(rounded)
