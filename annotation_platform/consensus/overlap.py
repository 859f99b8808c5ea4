"""How much two labels of one shape cover the same place, from 0 (nothing) to 1 (the same)."""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.schema.geometry import FloatArray, as_boxes, iou_matrix
from annotation_platform.schema.shapes import AREAS, REGIONS, Label, rotated_corners

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

KEYPOINT_HALF = 0.02
"""How far apart, as a share of the picture's diagonal, two points overlap by one half."""


def labels_of(frame: pd.DataFrame) -> list[Label]:
    """Return the rows of a labels table as labels, in their order.

    Without a ``shape`` column every row is a box; without ``geometry`` it is empty.
    """
    blank = {"shape": "box", "geometry": ""}
    columns = ["shape", "class_name", "geometry", "x1", "y1", "x2", "y2"]
    values: list[Iterable[Any]] = [
        _plain(frame[name]) if name in frame.columns else [blank.get(name)] * len(frame)
        for name in columns
    ]
    return [Label(*row) for row in zip(*values, strict=True)]


def _plain(column: pd.Series) -> list[Any]:
    return [
        None if missing else value for value, missing in zip(column, column.isna(), strict=True)
    ]


def boxes_of(labels: Sequence[Label]) -> FloatArray:
    """Return the ``(N, 4)`` enclosing boxes, absolute pixels; missing ones as NaN."""
    return as_boxes([(each.x1, each.y1, each.x2, each.y2) for each in labels])


def overlap_matrix(
    a: Sequence[Label], b: Sequence[Label], *, image_size: tuple[float, float]
) -> FloatArray:
    """Return how much every label of ``a`` covers the same place as every label of ``b``.

    For areas it is the intersection over union: exact for boxes, rotated boxes and polygons, in
    pixels for masks. For keypoints it is ``exp(-d² / 2s²)`` of their distance d, the form of
    COCO's object keypoint similarity; because a lone point has no object whose size could set
    the scale, s is a share of the picture's diagonal, such that points ``KEYPOINT_HALF`` of it
    apart give one half. Labels of different shapes do not overlap, nor does anything that is no
    region; classes are not looked at. An area of zero overlaps nothing, itself included.

    Args:
        a: ``N`` labels of one picture.
        b: ``M`` labels of the same picture.
        image_size: width and height in pixels; only the distance of keypoints needs it.

    Returns:
        ``(N, M)`` values in ``[0, 1]``; an empty side gives an empty matrix.
    """
    overlap = np.zeros((len(a), len(b)))
    shapes = {label.shape for label in a} & {label.shape for label in b} & set(REGIONS)
    for shape in shapes:
        rows = [at for at, label in enumerate(a) if label.shape == shape]
        columns = [at for at, label in enumerate(b) if label.shape == shape]
        if rows and columns:
            ours, theirs = [a[at] for at in rows], [b[at] for at in columns]
            overlap[np.ix_(rows, columns)] = _of_one_shape(shape, ours, theirs, image_size)
    return overlap


@lru_cache(maxsize=64)
def pairs_of(count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the two positions of each pair among ``count`` things, the smaller one first."""
    one, other = np.triu_indices(count, k=1)
    return one, other


def _of_one_shape(
    shape: str, a: Sequence[Label], b: Sequence[Label], image_size: tuple[float, float]
) -> FloatArray:
    if shape == "box":
        return iou_matrix(boxes_of(a), boxes_of(b))
    if shape == "keypoint":
        reach = KEYPOINT_HALF * math.hypot(*image_size)
        gap = boxes_of(a)[:, None, :2] - boxes_of(b)[None, :, :2]
        return np.asarray(0.5 ** ((gap**2).sum(axis=2) / reach**2), dtype=np.float64)
    # Areas whose enclosing boxes do not meet need no exact look.
    near = iou_matrix(boxes_of(a), boxes_of(b)) > 0
    return _of_masks(a, b, near) if shape == "mask" else _of_outlines(a, b, near)


def _of_outlines(a: Sequence[Label], b: Sequence[Label], near: npt.NDArray[np.bool_]) -> FloatArray:
    import shapely

    ours = np.array([area_of(label) for label in a], dtype=object)
    theirs = np.array([area_of(label) for label in b], dtype=object)
    overlap = np.zeros(near.shape)
    rows, columns = np.nonzero(near)
    shared = shapely.area(shapely.intersection(ours[rows], theirs[columns]))
    union = shapely.area(ours)[rows] + shapely.area(theirs)[columns] - shared
    overlap[rows, columns] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    # Two ways round the same sum may part in the last digit.
    return np.clip(overlap, 0.0, 1.0)


def _of_masks(a: Sequence[Label], b: Sequence[Label], near: npt.NDArray[np.bool_]) -> FloatArray:
    from pycocotools import mask as coco

    ours, theirs = [run_lengths(label) for label in a], [run_lengths(label) for label in b]
    overlap = np.asarray(coco.iou(theirs, ours, [0] * len(ours)), dtype=np.float64).T
    # Masks of two sizes are of two pictures: there it answers -1.
    return np.where(near, np.clip(overlap, 0.0, 1.0), 0.0)


def run_lengths(mask: Label) -> dict[str, Any]:
    """Return a mask's geometry as pycocotools takes it."""
    runs = mask.values
    return {"size": runs["size"], "counts": runs["counts"].encode("ascii")}


def area_of(label: Label) -> "BaseGeometry":
    """Return a box, rotated box or polygon as a valid shapely geometry.

    An outline that crosses itself is filled by the even-odd rule, as COCO fills it. What lies in
    any of a polygon's outlines belongs to it.
    """
    if label.shape not in AREAS or label.shape == "mask":
        raise ValueError(f"a {label.shape} has no outline")
    if label.shape == "box":
        from shapely import box

        return cast("BaseGeometry", box(*boxes_of([label])[0]))
    return _outlined(label.shape, label.geometry)


@lru_cache(maxsize=4096)
def _outlined(shape: str, geometry: str) -> "BaseGeometry":
    """Parse once what is compared with many."""
    import shapely

    values = Label(shape, geometry=geometry).values
    outlines = [rotated_corners(*values)] if shape == "rotated_box" else values
    areas = [shapely.make_valid(shapely.Polygon(np.reshape(each, (-1, 2)))) for each in outlines]
    # Spikes and collapsed outlines leave lines behind.
    parts = [part for part in shapely.get_parts(areas) if part.geom_type.endswith("Polygon")]
    area: BaseGeometry = parts[0] if len(parts) == 1 else shapely.union_all(parts)
    return shapely.Polygon() if area.is_empty else area
