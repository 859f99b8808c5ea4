"""The protocol of a shape, and the registry of all shapes."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator

from annotation_platform.schema.geometry import FloatArray

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from shapely.geometry.base import BaseGeometry

    from annotation_platform.schema.shapes.label import Label

OUTSIDE = 0.5
"""Pixels by which a region may extend beyond its image, because tools round and store percent."""

LINE_WIDTH = 2
"""Width of a drawn outline, in pixels."""

Size = tuple[float, float]
"""Width and height of an image, pixels."""


class Kind(StrEnum):
    """The kind of a shape."""

    AREA = "area"
    POINT = "point"
    CLASSIFICATION = "classification"
    STATEMENT = "statement"


class Shape(ABC):
    """One shape of labels: how it is stored, measured, compared, fused, cut and drawn.

    The defaults are for a shape without a region. ``area.py`` has the defaults of areas,
    ``numbers.py`` those of shapes defined by a few numbers. All coordinates are absolute pixels.

    Attributes:
        name: the value of ``Label.shape``, and of the column ``shape``.
        kind: whether it is an area, a point, a class of the whole image, or a bare statement.
        noun: its name in messages, singular and plural.
        keeps_whole: whether a region that extends beyond its image is kept whole as long as its
            centre is inside; other regions are cut.
        is_upright_box: whether the enclosing box is the region itself.
        is_raster: whether it is stored as pixels.
    """

    name: ClassVar[str]
    kind: ClassVar[Kind]
    noun: ClassVar[tuple[str, str]]
    keeps_whole: ClassVar[bool] = False
    is_upright_box: ClassVar[bool] = False
    is_raster: ClassVar[bool] = False

    @abstractmethod
    def label(self, class_name: str, *drawn: Any) -> "Label":
        """Return the label of this shape from ``drawn``, which each shape documents."""

    def problem(self, geometry: str, box: Sequence[float]) -> str:
        """Return what is wrong with the parts of a stored label, or an empty text.

        Args:
            geometry: ``Label.geometry``, JSON or empty.
            box: the enclosing box ``x1 y1 x2 y2``; four NaN where there is none.

        Raises:
            ValueError: the geometry is not JSON.
        """
        return "has a location" if geometry or not all(map(math.isnan, box)) else ""

    def outlines(self, label: "Label") -> list[list[float]]:
        """Return the outlines ``x, y, x, y, …`` of an area.

        Raises:
            ValueError: the shape is not an area.
        """
        raise ValueError(f"a {label.shape} has no outline")

    def region(self, label: "Label") -> "BaseGeometry":
        """Return an area as a valid shapely geometry.

        Raises:
            ValueError: the shape is not an area.
        """
        raise ValueError(f"a {label.shape} has no outline")

    def overlap(
        self, a: "Sequence[Label]", b: "Sequence[Label]", *, image_size: Size
    ) -> FloatArray | None:
        """Return the ``(N, M)`` overlaps, 0 to 1, of labels of this shape; None if it has none."""
        del a, b, image_size
        return None

    def fuse(
        self,
        labels: "Sequence[Label]",
        weights: Sequence[float],
        *,
        middle: "Label",
        deviation: FloatArray | None,
    ) -> "Label":
        """Return one label for several of this shape; the class of the result does not count.

        Args:
            labels: two or more.
            weights: one for each, above zero.
            middle: the one of them that overlaps the others most.
            deviation: annotators' deviation in each number of a shape that numbers define; None
                if it is unknown.
        """
        del labels, weights, deviation
        return middle

    def clip(self, label: "Label", size: Size | None) -> "Label | None":
        """Return the part of a region that is in its image; None if there is none.

        Args:
            label: a label of this shape.
            size: width and height of the image; None if unknown: then nothing is cut.
        """
        del size
        return label

    def outside(self, label: "Label", size: Size | None) -> str:
        """Return how a region does not fit into its image, or an empty text; see ``clip``."""
        del label, size
        return ""

    def places(self, label: "Label") -> list[list[float]]:
        """Return the coordinates that define the location of a label, one list per outline."""
        del label
        return []

    def marks(self, label: "Label", *, most: int) -> list[list[float]]:
        """Return closed outlines for a vector drawing; for a raster about ``most`` stripes."""
        del label, most
        return []

    def draw(self, pen: "ImageDraw", label: "Label", *, scale: float, color: str) -> None:
        """Draw a region on a Pillow image whose sides are ``scale`` times those of its image."""
        del pen, label, scale, color


SHAPES: dict[str, Shape] = {}
"""Every shape, by name."""


def register(shape: Shape) -> None:
    """Add a shape.

    Raises:
        ValueError: a shape of that name is registered already.
    """
    if shape.name in SHAPES:
        raise ValueError(f"there are two shapes of the name {shape.name!r}")
    SHAPES[shape.name] = shape


class ShapeNames(Sequence[str]):
    """The names of the registered shapes of some kinds, in the order of registration."""

    def __init__(self, *kinds: Kind, keeps_whole: bool = False, upright_box: bool = False) -> None:
        """Take the kinds; the flags keep only shapes that have that property."""
        self._kinds, self._keeps_whole, self._upright_box = (
            frozenset(kinds),
            keeps_whole,
            upright_box,
        )

    def __contains__(self, name: object) -> bool:
        """Return whether a shape of that name is among them."""
        shape = SHAPES.get(name) if isinstance(name, str) else None
        return shape is not None and self._has(shape)

    def __iter__(self) -> Iterator[str]:
        """Yield the names."""
        return (name for name, shape in SHAPES.items() if self._has(shape))

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(1 for _ in self)

    def __getitem__(self, at: Any) -> Any:
        """Return a name by its position, or several."""
        return list(self)[at]

    def __repr__(self) -> str:
        """Return the names as a list shows them."""
        return repr(list(self))

    def _has(self, shape: Shape) -> bool:
        return (
            shape.kind in self._kinds
            and (shape.keeps_whole or not self._keeps_whole)
            and (shape.is_upright_box or not self._upright_box)
        )


AREAS = ShapeNames(Kind.AREA)
POINTS = ShapeNames(Kind.POINT)
REGIONS = ShapeNames(Kind.AREA, Kind.POINT)
CLASSIFICATIONS = ShapeNames(Kind.CLASSIFICATION)
STATEMENTS = ShapeNames(Kind.STATEMENT)
WITH_CLASS = ShapeNames(Kind.AREA, Kind.POINT, Kind.CLASSIFICATION)
"""Shapes that a class of the ontology can have."""

UPRIGHT_BOXES = ShapeNames(Kind.AREA, upright_box=True)
"""Areas defined by their enclosing box, as detectors predict them."""

KEPT_WHOLE = ShapeNames(Kind.AREA, keeps_whole=True)
"""Areas that are not cut at the edge of an image."""


def _with_class(name: str) -> str:
    if name not in WITH_CLASS:
        raise ValueError(f"{name!r} is no shape of a class; expected {', '.join(WITH_CLASS)}")
    return name


ShapeName = Annotated[str, AfterValidator(_with_class)]
"""The shape of the labels of a class of the ontology: one of ``WITH_CLASS``."""


def box_problem(box: Sequence[float]) -> str:
    """Return what is wrong with the enclosing box of a region, or an empty text."""
    x1, y1, x2, y2 = box
    is_fine = all(map(math.isfinite, box)) and x1 <= x2 and y1 <= y2
    return "" if is_fine else f"has the box {box}, expected four numbers x1 <= x2, y1 <= y2"


def geometry_problem(geometry: str, *, fits: Callable[[Any], bool]) -> str:
    """Return that a geometry, JSON or empty, does not fit its shape, or an empty text."""
    value = json.loads(geometry) if geometry else None
    return "" if fits(value) else f"has the geometry {geometry[:80]!r}"


def edges_of(label: "Label") -> tuple[float, float, float, float]:
    """Return the enclosing box of a region.

    Raises:
        ValueError: it has none.
    """
    if label.x1 is None or label.y1 is None or label.x2 is None or label.y2 is None:
        raise ValueError(f"{label} has no location")
    return label.x1, label.y1, label.x2, label.y2
