"""Areas: the common base of all shapes with an extent."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray, iou_matrix
from annotation_platform.schema.shapes.shape import (
    LINE_WIDTH,
    OUTSIDE,
    SHAPES,
    Kind,
    Label,
    Shape,
    Size,
    box_problem,
    boxes_of,
    edges_of,
    geometry_problem,
)

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry

CRUMB = 0.01
"""Parts smaller than this share of the largest part are artefacts of crossing outlines."""

_STRAIGHT = 0.5
"""Pixels by which a fused outline may be simplified."""

HALF = 0.45
"""Least share of the weight at which a pixel or face belongs to the object. Weights are estimates:
two annotators of nearly equal weight are a tie, and in a tie the object is the union of both."""


class Area(Shape):
    """A shape with outlines. A new one needs ``label`` and ``outlines`` and inherits the rest."""

    kind: ClassVar = Kind.AREA
    keeps_whole: ClassVar[bool] = True

    @abstractmethod
    def outlines(self, label: Label) -> list[list[float]]:
        """Return the outlines ``x, y, x, y, …``, absolute pixels, not closed."""

    def problem(self, geometry: str, box: Sequence[float]) -> str:
        """Return what is wrong with a stored region, or an empty text; see ``geometry_fits``."""
        return box_problem(box) or geometry_problem(geometry, fits=self.geometry_fits)

    def geometry_fits(self, value: Any) -> bool:
        """Return whether parsed JSON is a geometry of this shape; the default takes any."""
        return value is not None

    def region(self, label: Label) -> "BaseGeometry":
        """Return the area as a valid shapely geometry.

        An outline that crosses itself is filled by the even-odd rule, as in COCO. The area is the
        union of the outlines.
        """
        return _region(label.shape, label.geometry)

    def overlap(self, a: Sequence[Label], b: Sequence[Label], *, image_size: Size) -> FloatArray:
        """Return the intersections over union, exact; an area of zero overlaps nothing."""
        del image_size
        # Areas whose enclosing boxes do not meet need no exact comparison.
        near = iou_matrix(boxes_of(a), boxes_of(b)) > 0
        return self.exact_overlap(a, b, near)

    def exact_overlap(
        self, a: Sequence[Label], b: Sequence[Label], near: npt.NDArray[np.bool_]
    ) -> FloatArray:
        """Return the overlaps of the ``(N, M)`` pairs that are ``near``; zero for the others."""
        import shapely

        ours = np.array([self.region(label) for label in a], dtype=object)
        theirs = np.array([self.region(label) for label in b], dtype=object)
        overlap = np.zeros(near.shape)
        rows, columns = np.nonzero(near)
        shared = shapely.area(shapely.intersection(ours[rows], theirs[columns]))
        union = shapely.area(ours)[rows] + shapely.area(theirs)[columns] - shared
        overlap[rows, columns] = np.divide(
            shared, union, out=np.zeros_like(shared), where=union > 0
        )
        # The order of a sum can change its last digit.
        return np.clip(overlap, 0.0, 1.0)

    def clip(self, label: Label, size: Size | None) -> Label | None:
        """Return the part of the area in its image; None if there is none or it has no extent."""
        corners = boxes_of([label])[0]
        if (corners[:2] >= corners[2:]).any():
            return None
        edges = np.array([np.inf, np.inf] if size is None else size)
        inside = np.clip(corners.reshape(2, 2), 0.0, edges)
        if (inside.ravel() == corners).all():
            return label
        return self.cut(label, edges)

    def cut(self, label: Label, edges: FloatArray) -> Label | None:
        """Return the remaining part of an area that extends beyond its image; see ``keeps_whole``.

        The default keeps the area whole if its centre is inside: such a shape cannot describe an
        object at the edge of an image otherwise.
        """
        centre = np.array(self.centre(label))
        return label if (np.clip(centre, 0.0, edges) == centre).all() else None

    def centre(self, label: Label) -> tuple[float, float]:
        """Return the point that must be inside the image for a region to be kept whole."""
        x1, y1, x2, y2 = edges_of(label)
        return (x1 + x2) / 2, (y1 + y2) / 2

    def outside(self, label: Label, size: Size | None) -> str:
        """Return how the area does not fit into its image, or an empty text."""
        x1, y1, x2, y2 = edges_of(label)
        if x1 >= x2 or y1 >= y2:
            return "has no area"
        if size is None:
            return ""
        if self.keeps_whole:
            x1, y1 = x2, y2 = self.centre(label)
        return beyond_image((x1, y1, x2, y2), size)

    def places(self, label: Label) -> list[list[float]]:
        """Return the outlines."""
        return self.outlines(label)

    def marks(self, label: Label, *, most: int) -> list[list[float]]:
        """Return the outlines."""
        del most
        return self.outlines(label)

    def draw(self, pen: "ImageDraw", label: Label, *, scale: float, color: str) -> None:
        """Draw the outlines."""
        for outline in self.outlines(label):
            points = [value * scale for value in outline]
            pen.line([*points, *points[:2]], fill=color, width=LINE_WIDTH)


def beyond_image(edges: tuple[float, float, float, float], size: Size) -> str:
    """Return by how much edges are outside the image; an empty text within ``OUTSIDE``."""
    x1, y1, x2, y2 = edges
    beyond = max(-x1, -y1, x2 - size[0], y2 - size[1])
    return f"is {beyond:.1f} pixels outside the image" if beyond > OUTSIDE else ""


@lru_cache(maxsize=4096)
def _region(shape: str, geometry: str) -> "BaseGeometry":
    """Return a parsed area; cached, because an area is compared with many others."""
    import shapely

    outlines = SHAPES[shape].outlines(Label(shape, geometry=geometry))
    areas = [shapely.make_valid(shapely.Polygon(np.reshape(each, (-1, 2)))) for each in outlines]
    # Spikes and collapsed outlines leave lines behind.
    parts = [part for part in shapely.get_parts(areas) if part.geom_type.endswith("Polygon")]
    area: BaseGeometry = parts[0] if len(parts) == 1 else shapely.union_all(parts)
    return shapely.Polygon() if area.is_empty else area


def polygon_of(class_name: str, area: "BaseGeometry") -> Label | None:
    """Return an area as a polygon without tiny parts and holes, or None if nothing remains."""
    import shapely

    # Simplification depends on the first point of an outline, so the outline is normalised.
    ordered = shapely.normalize(area)
    parts: list[Polygon] = [
        part for part in shapely.get_parts(ordered) if part.geom_type == "Polygon" and part.area > 0
    ]
    least = CRUMB * max((part.area for part in parts), default=0.0)
    outlines = []
    for part in parts:
        if part.area >= least:
            filled = shapely.simplify(shapely.Polygon(part.exterior), _STRAIGHT)
            ring = filled.exterior if len(filled.exterior.coords) > 3 else part.exterior
            outlines.append(np.asarray(ring.coords)[:-1].ravel().tolist())
    return Label.polygon(class_name, outlines) if outlines else None
