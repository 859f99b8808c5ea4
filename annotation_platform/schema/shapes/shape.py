"""A label, the protocol of its shape, and the registry of all shapes: each knows the others."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator

from annotation_platform.schema.geometry import FloatArray, as_boxes

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from shapely.geometry.base import BaseGeometry

OUTSIDE = 0.5
"""Pixels by which a region may extend beyond its image, because tools round and store percent."""

LINE_WIDTH = 2
"""Width of a drawn outline, in pixels."""

_DECIMALS = 6
"""A millionth of a pixel: finer than the rounding of browsers, coarser than differences between
machines."""

Size = tuple[float, float]
"""Width and height of an image, pixels."""


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
    def around(
        cls, shape: str, class_name: str, geometry: Iterable[Any], points: npt.NDArray[Any]
    ) -> Self:
        """Return a region whose enclosing box is that of some points.

        Args:
            shape: its name.
            class_name: its class.
            geometry: numbers, or lists of numbers; they are stored to a millionth of a pixel.
            points: ``(N, 2)`` coordinates, at least one.
        """
        (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return cls(shape, class_name, _json(geometry), float(x1), float(y1), float(x2), float(y2))

    @classmethod
    def box(cls, class_name: str, x1: float, y1: float, x2: float, y2: float) -> "Label":
        """Return an upright box."""
        return SHAPES["box"].label(class_name, x1, y1, x2, y2)

    @classmethod
    def rotated_box(
        cls, class_name: str, x: float, y: float, width: float, height: float, degrees: float
    ) -> "Label":
        """Return a box of two sides about its centre, turned clockwise."""
        return SHAPES["rotated_box"].label(class_name, x, y, width, height, degrees)

    @classmethod
    def polygon(cls, class_name: str, outlines: Sequence[Sequence[float]]) -> "Label":
        """Return a polygon of one or more outlines ``x, y, x, y, …`` of at least three points."""
        return SHAPES["polygon"].label(class_name, outlines)

    @classmethod
    def mask(cls, class_name: str, pixels: npt.NDArray[np.bool_]) -> "Label":
        """Return a mask from ``(height, width)`` booleans of the whole image, some of them set."""
        return SHAPES["mask"].label(class_name, pixels)

    @classmethod
    def keypoint(cls, class_name: str, x: float, y: float) -> "Label":
        """Return a point."""
        return SHAPES["keypoint"].label(class_name, x, y)

    @classmethod
    def choice(cls, class_name: str) -> "Label":
        """Return a class of the whole image."""
        return SHAPES["choice"].label(class_name)

    @property
    def values(self) -> Any:
        """The geometry as numbers: the parsed JSON, or None without a geometry."""
        return json.loads(self.geometry) if self.geometry else None

    @property
    def pixels(self) -> npt.NDArray[np.bool_]:
        """The ``(height, width)`` booleans of a mask."""
        from pycocotools import mask as coco

        return np.asarray(coco.decode(self.run_lengths), bool)

    @property
    def run_lengths(self) -> dict[str, Any]:
        """The geometry of a mask in the form of pycocotools."""
        runs = self.values
        return {**runs, "counts": runs["counts"].encode("ascii")}


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
    def label(self, class_name: str, *drawn: Any) -> Label:
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

    def outlines(self, label: Label) -> list[list[float]]:
        """Return the outlines ``x, y, x, y, …`` of an area.

        Raises:
            ValueError: the shape is not an area.
        """
        raise ValueError(f"a {label.shape} has no outline")

    def region(self, label: Label) -> "BaseGeometry":
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
        middle: Label,
        deviation: FloatArray | None,
    ) -> Label:
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

    def clip(self, label: Label, size: Size | None) -> "Label | None":
        """Return the part of a region that is in its image; None if there is none.

        Args:
            label: a label of this shape.
            size: width and height of the image; None if unknown: then nothing is cut.
        """
        del size
        return label

    def outside(self, label: Label, size: Size | None) -> str:
        """Return how a region does not fit into its image, or an empty text; see ``clip``."""
        del label, size
        return ""

    def places(self, label: Label) -> list[list[float]]:
        """Return the coordinates that define the location of a label, one list per outline."""
        del label
        return []

    def marks(self, label: Label, *, most: int) -> list[list[float]]:
        """Return closed outlines for a vector drawing; for a raster about ``most`` stripes."""
        del label, most
        return []

    def draw(self, pen: "ImageDraw", label: Label, *, scale: float, color: str) -> None:
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


def edges_of(label: Label) -> tuple[float, float, float, float]:
    """Return the enclosing box of a region.

    Raises:
        ValueError: it has none.
    """
    if label.x1 is None or label.y1 is None or label.x2 is None or label.y2 is None:
        raise ValueError(f"{label} has no location")
    return label.x1, label.y1, label.x2, label.y2


UNSURE = Label("unsure")
NOTHING = Label("none")


def area_of(label: Label) -> "BaseGeometry":
    """Return an area as a valid shapely geometry; see ``Shape.region``.

    Raises:
        ValueError: the label is not an area.
    """
    return SHAPES[label.shape].region(label)


def outlines_of(label: Label) -> list[list[float]]:
    """Return the outlines ``x, y, x, y, …`` of an area, in pixels; those of a mask along its edge.

    Raises:
        ValueError: the label is not an area.
    """
    return SHAPES[label.shape].outlines(label)


def boxes_of(labels: Sequence[Label]) -> FloatArray:
    """Return the ``(N, 4)`` enclosing boxes, absolute pixels; missing ones as NaN."""
    return as_boxes([(each.x1, each.y1, each.x2, each.y2) for each in labels])


def _json(values: Iterable[Any]) -> str:
    rounded: list[Any] = [
        [round(float(each), _DECIMALS) for each in value]
        if isinstance(value, Sequence)
        else round(float(value), _DECIMALS)
        for value in values
    ]
    return json.dumps(rounded)
