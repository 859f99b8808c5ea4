"""A polygon: outlines ``[[x, y, x, y, …], …]``, as in COCO; holes cannot be stored."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes.area import HALF, Area, polygon_of
from annotation_platform.schema.shapes.numbers import are_numbers
from annotation_platform.schema.shapes.shape import Label, boxes_of


class Polygon(Area):
    """One or more outlines, whose union is the area.

    Fused into the area inside the polygons of annotators with half of the weight or more; if that
    is empty, into the polygon that overlaps the others most. Holes are filled.
    """

    name: ClassVar = "polygon"
    noun: ClassVar = ("polygon", "polygons")
    keeps_whole: ClassVar = False

    def label(self, class_name: str, *drawn: Any) -> Label:
        """Return the polygon of a list of outlines ``x, y, x, y, …`` of at least three points.

        Raises:
            ValueError: there is no outline, or one has fewer points or an odd number of values.
        """
        (outlines,) = drawn
        if not outlines or any(len(each) < 6 or len(each) % 2 for each in outlines):
            raise ValueError("an outline is at least three points x, y")
        points = np.concatenate([np.reshape(each, (-1, 2)) for each in outlines])
        return Label.around(self.name, class_name, outlines, points)

    def geometry_fits(self, value: Any) -> bool:
        """Return whether parsed JSON is a list of outlines."""
        return (
            isinstance(value, list)
            and bool(value)
            and all(are_numbers(each) and len(each) >= 6 and len(each) % 2 == 0 for each in value)
        )

    def outlines(self, label: Label) -> list[list[float]]:
        """Return the outlines as they are stored."""
        return list(label.values)

    def fuse(
        self,
        labels: Sequence[Label],
        weights: Sequence[float],
        *,
        middle: Label,
        deviation: FloatArray | None,
    ) -> Label:
        """Return the faces between all outlines that are inside for enough of the weight."""
        import shapely

        del deviation
        areas = np.array([self.region(label) for label in labels], dtype=object)
        lines = shapely.union_all(shapely.boundary(areas))
        faces = np.array(shapely.polygonize([lines]).geoms, dtype=object)
        if not len(faces):
            return middle
        points = shapely.point_on_surface(faces)
        inside = shapely.contains(areas[:, None], points[None, :])
        share = np.asarray(weights) @ inside / np.sum(weights)
        return polygon_of("", shapely.union_all(faces[share >= HALF])) or middle

    def cut(self, label: Label, edges: FloatArray) -> Label | None:
        """Return the polygon cut at the edges of its image."""
        from shapely import box

        # GEOS rejects infinite edges; for an unknown size, an edge beyond the polygon is used.
        beyond = np.maximum(boxes_of([label])[0, 2:], 0.0) + 1.0
        image = box(0.0, 0.0, *np.where(np.isinf(edges), beyond, edges))
        inside = self.region(label).intersection(image)
        return polygon_of(label.class_name or "", inside)
