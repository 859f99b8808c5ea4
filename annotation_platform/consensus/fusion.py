"""One region from those that several people drew of one object.

``docs/algorithms/fusion.md`` has the rules for each shape beside those that did worse.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from annotation_platform.consensus.overlap import area_of, boxes_of, pairs_of
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import AREAS, REGIONS, Label

if TYPE_CHECKING:
    from shapely import Polygon
    from shapely.geometry.base import BaseGeometry

OUTSIDE = 0.5
"""Pixels by which a region may leave its picture: tools round, and store percent."""

_NEAR = 3.0
"""What lies further from the middle than so many deviations is taken for a slip of the hand."""

_ENOUGH = 20
"""Pairs of people's values from which on a deviation can be told."""

_HALF = 0.45
"""A share of the weight from which on a place belongs to the object. Weights are estimates: two
people who weigh nearly the same are a tie, and with a tie the object is all that either drew."""

_CRUMB = 0.01
"""Parts smaller than this share of the largest part are left over from outlines that crossed."""

_STRAIGHT = 0.5
"""Pixels by which a fused outline may be simplified."""


@dataclass(frozen=True)
class Spread:
    """By how much people's values part from the truth: a deviation for each number of a shape."""

    of_shape: dict[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def among(cls, objects: Iterable[Sequence[Label]]) -> "Spread":
        """Return the deviations from the differences between people over all these objects.

        The median difference of a pair, over 0.954, is the deviation of a normal distribution.
        Shapes of which too few were drawn twice have none.
        """
        gaps: dict[str, list[FloatArray]] = defaultdict(list)
        for labels in objects:
            if len(labels) > 1 and labels[0].shape in _NUMBERS:
                values = _numbers(labels, first=0)
                one, other = pairs_of(len(values))
                gaps[labels[0].shape].append(np.abs(values[one] - values[other]))
        stacked = {shape: np.concatenate(each) for shape, each in gaps.items()}
        return cls(
            {
                shape: np.median(each, axis=0) / 0.954
                for shape, each in stacked.items()
                if len(each) >= _ENOUGH
            }
        )


def fuse(
    labels: Sequence[Label],
    weights: Sequence[float],
    overlap: FloatArray,
    *,
    class_name: str | None,
    spread: Spread | None = None,
) -> Label:
    """Return the label that stands for all of ``labels``, under this class.

    - box, keypoint: number by number the weighted mean of those near their median.
    - rotated box: so too, its angle modulo 180°, sides swapped where that turns it less.
    - polygon, mask: what people drew who hold half of the weight or more; where that is nothing,
      the label that overlaps the others most. Holes of a polygon are filled: none can be stored.

    Args:
        labels: one or more, all of one shape.
        weights: as many, above zero: the precision of who drew each.
        overlap: ``(n, n)`` of the labels.
        class_name: what it is.
        spread: people's deviations; without it the plain median stands for near.
    """
    middle = labels[_medoid(weights, overlap)]
    shape = labels[0].shape
    if len(labels) == 1 or shape not in REGIONS:
        fused = middle
    elif shape == "polygon":
        fused = _vote_on_outlines(labels, weights) or middle
    elif shape == "mask":
        fused = _vote_on_pixels(labels, weights) or middle
    else:
        values = _numbers(labels, first=labels.index(middle))
        deviation = (spread or Spread()).of_shape.get(shape)
        fused = _from_numbers(shape, near_mean(values, weights, deviation), values)
    return replace(fused, class_name=class_name)


def near_mean(
    values: FloatArray, weights: Sequence[float], deviation: FloatArray | None
) -> FloatArray:
    """Return the ``(d,)`` weighted means of those ``(n, d)`` values that are near their median.

    Near is within three deviations. Without deviations, or with nothing near, it is the median.
    """
    middle = median_of(values)
    if deviation is None:
        return middle
    near = np.abs(values - middle) <= _NEAR * deviation
    share = np.asarray(weights)[:, None] * near
    total = share.sum(axis=0)
    mean = (share * values).sum(axis=0) / np.where(total > 0, total, 1.0)
    return np.asarray(np.where(total > 0, mean, middle), dtype=np.float64)


def median_of(values: FloatArray) -> FloatArray:
    """Return the ``(d,)`` medians of ``(n, d)`` values; numpy's own takes ten times as long."""
    ordered = np.sort(values, axis=0)
    middle = ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]
    return np.asarray(middle / 2, dtype=np.float64)


def clip_region(label: Label, size: tuple[float, float] | None) -> Label | None:
    """Return what of a region lies in its picture; None if nothing does or it has no area.

    A rotated box keeps its corners as long as its centre is inside: an object at the edge of a
    picture cannot be boxed otherwise. Masks are left as they are, and so is what is no region.

    Args:
        label: any label.
        size: width and height of the picture, pixels; None if unknown: then nothing is outside.
    """
    if label.shape not in REGIONS:
        return label
    corners = boxes_of([label])[0]
    if label.shape in AREAS and (corners[:2] >= corners[2:]).any():
        return None
    edges = np.array([np.inf, np.inf] if size is None else size)
    inside = np.clip(corners.reshape(2, 2), 0.0, edges)
    if label.shape == "mask" or (inside.ravel() == corners).all():
        return label
    name, (x1, y1, x2, y2) = label.class_name or "", inside.ravel().tolist()
    if label.shape == "keypoint":
        beyond = float(np.abs(inside[0] - corners[:2]).max())
        return Label.keypoint(name, x1, y1) if beyond <= OUTSIDE else None
    if label.shape == "rotated_box":
        centre = np.array(label.values[:2])
        return label if (np.clip(centre, 0.0, edges) == centre).all() else None
    if label.shape == "box":
        return Label.box(name, x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
    from shapely import box

    return _polygon(name, area_of(label).intersection(box(0.0, 0.0, *edges)))


_NUMBERS = ("box", "rotated_box", "keypoint")
"""Shapes that are a few numbers."""


def _numbers(labels: Sequence[Label], *, first: int) -> FloatArray:
    """Return the ``(n, d)`` numbers of labels of one shape, angles near the first's."""
    shape = labels[0].shape
    if shape == "box":
        return boxes_of(labels)
    if shape == "keypoint":
        return boxes_of(labels)[:, :2]
    values = np.array([label.values for label in labels], dtype=np.float64)
    angle = values[first, 4]
    turn = (values[:, 4] - angle + 90.0) % 180.0 - 90.0
    # A box is itself again after a quarter turn that swaps its sides.
    swap = np.abs(turn) > 45.0
    values[swap, 2:4] = values[swap, 3:1:-1]
    values[:, 4] = angle + np.where(swap, turn - 90.0 * np.sign(turn), turn)
    return values


def _from_numbers(shape: str, numbers: FloatArray, values: FloatArray) -> Label:
    if shape == "keypoint":
        return Label.keypoint("", *numbers.tolist())
    if shape == "rotated_box":
        x, y, width, height, angle = numbers.tolist()
        return Label.rotated_box("", x, y, width, height, angle % 180.0)
    if (numbers[:2] >= numbers[2:]).any():
        # Different people were near on either side; medians cannot cross.
        numbers = median_of(values)
    return Label.box("", *numbers.tolist())


def _medoid(weights: Sequence[float], overlap: FloatArray) -> int:
    """Return the position of the label that overlaps the others most, by their weight."""
    others = overlap - np.diag(np.diag(overlap))
    return int(np.argmax(others @ np.asarray(weights)))


def _vote_on_outlines(labels: Sequence[Label], weights: Sequence[float]) -> Label | None:
    """Return the faces between all outlines that enough of the weight has inside."""
    import shapely

    areas = np.array([area_of(label) for label in labels], dtype=object)
    lines = shapely.union_all(shapely.boundary(areas))
    faces = np.array(shapely.polygonize([lines]).geoms, dtype=object)
    if not len(faces):
        return None
    points = shapely.point_on_surface(faces)
    inside = shapely.contains(areas[:, None], points[None, :])
    share = np.asarray(weights) @ inside / np.sum(weights)
    return _polygon("", shapely.union_all(faces[share >= _HALF]))


def _polygon(class_name: str, area: "BaseGeometry") -> Label | None:
    """Return an area as a polygon without crumbs and holes, or None where nothing is left."""
    import shapely

    # Where an outline begins says how it is simplified, so it begins where its place says.
    ordered = shapely.normalize(area)
    parts: list[Polygon] = [
        part for part in shapely.get_parts(ordered) if part.geom_type == "Polygon" and part.area > 0
    ]
    least = _CRUMB * max((part.area for part in parts), default=0.0)
    outlines = []
    for part in parts:
        if part.area >= least:
            filled = shapely.simplify(shapely.Polygon(part.exterior), _STRAIGHT)
            ring = filled.exterior if len(filled.exterior.coords) > 3 else part.exterior
            outlines.append(np.asarray(ring.coords)[:-1].ravel().tolist())
    return Label.polygon(class_name, outlines) if outlines else None


def _vote_on_pixels(labels: Sequence[Label], weights: Sequence[float]) -> Label | None:
    """Return the pixels that enough of the weight has set."""
    votes: npt.NDArray[np.float64] = np.zeros(labels[0].pixels.shape)
    for label, weight in zip(labels, weights, strict=True):
        votes += weight * label.pixels
    # Sums of weights may fall short of a half by their last digit only.
    pixels = votes >= _HALF * np.sum(weights)
    return Label.mask("", pixels) if pixels.any() else None
