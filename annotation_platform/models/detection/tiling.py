"""Detection in windows of a large image: their positions, their selection, and joining.

A window is ``x1 y1 x2 y2`` in whole pixels of the image. Slicing follows Akyon, Altinuc and
Temizel, "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection", 2022; the
joining is ours: two boxes from two windows are one object if they overlap **in the part of the
image that both windows cover**, so that a box cut by a border joins the whole one.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from annotation_platform.images.decoding import Pixels
from annotation_platform.models.protocols import Detections
from annotation_platform.schema.geometry import Boxes, FloatArray, box_areas, iou_matrix

Windows = npt.NDArray[np.int64]

_SAME = 0.5
# Edges differ more between scales: a smaller IoU suffices if one box is mostly inside the other.
_SAME_ACROSS_SCALES = 0.2
_MOSTLY_INSIDE = 0.7
# A cut box with at least this share of its area inside another one is a piece of it.
_INSIDE = 0.8
# Networks predict an edge outside the window at most this share of the window from its border.
_EDGE_SHARE = 0.01


def tile_windows(width: int, height: int, *, side: int, overlap: float) -> Windows:
    """Return the ``(T, 4)`` windows that cover an image, row by row.

    Neighbours share at least ``overlap`` of ``side``; windows are spaced evenly, so they often
    share more. An image no larger than ``side``, or any image with ``side`` 0, has one window: the
    whole image.
    """
    if side == 0:
        return np.array([[0, 0, width, height]], dtype=np.int64)
    columns = _spread(width, side, overlap)
    rows = _spread(height, side, overlap)
    windows = [[x, y, min(x + side, width), min(y + side, height)] for y in rows for x in columns]
    return np.array(windows, dtype=np.int64)


def select_windows(windows: Windows, pixels: Pixels, whole: Detections, *, most: int) -> Windows:
    """Return at most ``most`` of the windows, the most useful first; ties in their order.

    The usefulness of a window is its share of the detail of all windows plus its share of the
    scores of the boxes that were detected in the ``whole`` image.
    """
    if len(windows) <= most:
        return windows
    detail = _detail(pixels, windows)
    middles = (whole.boxes[:, :2] + whole.boxes[:, 2:]) / 2
    inside = ((middles[None] >= windows[:, None, :2]) & (middles[None] < windows[:, None, 2:])).all(
        axis=2
    )
    found = inside.astype(np.float64) @ whole.scores
    use = detail / max(detail.sum(), 1e-12) + found / max(found.sum(), 1e-12)
    return windows[np.argsort(-use, kind="stable")[:most]]


def join_windows(
    windows: Windows, found: Sequence[Detections], *, width: int, height: int
) -> Detections:
    """Return the detections of an image from those of its windows, best first.

    Boxes of one class are one object if, clipped to the part that both windows cover, they overlap
    by an IoU of 0.5 or more, or, between windows of different size, by 0.2 if one is mostly inside
    the other; an object has at most one box of a window. Its box is that of the smallest window
    that does not cut it; if all windows cut it, it is the union of their boxes. Its score is the
    highest of the boxes that are not cut, or else of all. A cut box is left out if another window,
    no larger, contains it with a margin: that window is more reliable. The whole image may be one
    of the windows; it overrules no other window, since it shows small objects badly.

    Args:
        windows: ``(T, 4)``, in any order.
        found: the detections in each, in pixels **of the window**.
        width: of the image.
        height: of the image.
    """
    parts = _gather(windows, found, width=width, height=height)
    objects: list[_Object] = []
    for name in sorted(set(parts.class_names)):
        indices = np.array([n for n, one in enumerate(parts.class_names) if one == name])
        objects.extend(_objects(parts, indices, name, windows))
    objects.sort(key=lambda one: (-one.score, one.class_name, *one.box.tolist()))
    return Detections(
        boxes=np.array([one.box for one in objects]).reshape(-1, 4),
        scores=np.array([one.score for one in objects]),
        class_names=[one.class_name for one in objects],
        dropped=sum(one.dropped for one in found),
        passes=sum(one.passes for one in found),
    )


@dataclass(frozen=True)
class _Parts:
    """The boxes of all windows, in pixels of the image."""

    boxes: Boxes
    scores: FloatArray
    class_names: list[str]
    window: npt.NDArray[np.intp]  # (N,) the number of the window
    cut: npt.NDArray[np.bool_]  # (N,) whether it ends at a border inside the image
    image: FloatArray  # (4,) the whole image as a window


@dataclass(frozen=True)
class _Object:
    box: FloatArray
    score: float
    class_name: str
    cut: bool


def _gather(windows: Windows, found: Sequence[Detections], *, width: int, height: int) -> _Parts:
    moved = [one.boxes + np.tile(window[:2], 2) for window, one in zip(windows, found, strict=True)]
    number = np.repeat(np.arange(len(windows)), [len(one.scores) for one in found])
    boxes = np.concatenate(moved) if moved else np.zeros((0, 4))
    own = windows[number].reshape(-1, 4)
    near = np.maximum(1.0, _EDGE_SHARE * (own[:, 2:] - own[:, :2]))
    image = np.array([width, height])
    before = (boxes[:, :2] - own[:, :2] < near) & (own[:, :2] > 0)
    after = (own[:, 2:] - boxes[:, 2:] < near) & (own[:, 2:] < image)
    return _Parts(
        boxes=boxes,
        scores=np.concatenate([one.scores for one in found]) if found else np.zeros(0),
        class_names=[name for one in found for name in one.class_names],
        window=number,
        cut=(before | after).any(axis=1),
        image=np.array([0.0, 0.0, width, height]),
    )


def _objects(
    parts: _Parts, indices: npt.NDArray[np.intp], name: str, windows: Windows
) -> list[_Object]:
    """Return the objects of one class."""
    indices = indices[~_whole_elsewhere(parts, indices, windows)]
    areas = box_areas(windows.astype(np.float64))
    objects = []
    for group in _groups(parts, indices, windows):
        whole = group[~parts.cut[group]]
        score = float(parts.scores[whole if len(whole) else group].max())
        if len(whole):
            sizes = areas[parts.window[whole]]
            box = parts.boxes[whole[np.lexsort((-parts.scores[whole], sizes))[0]]]
        else:
            corners = parts.boxes[group]
            box = np.concatenate([corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)])
        objects.append(_Object(box, score, name, cut=not len(whole)))
    return _without_pieces(objects)


def _whole_elsewhere(
    parts: _Parts, indices: npt.NDArray[np.intp], windows: Windows
) -> npt.NDArray[np.bool_]:
    """Return which cut boxes are inside another window, clear of its inner borders."""
    elsewhere = np.zeros(len(indices), dtype=bool)
    for row, index in enumerate(indices):
        if not parts.cut[index]:
            continue
        box, own = parts.boxes[index], windows[parts.window[index]]
        near = np.maximum(1.0, _EDGE_SHARE * (windows[:, 2:] - windows[:, :2]))
        left = (box[:2] - windows[:, :2] >= near) | (windows[:, :2] == parts.image[:2])
        right = (windows[:, 2:] - box[2:] >= near) | (windows[:, 2:] == parts.image[2:])
        holds = (windows[:, :2] <= box[:2]) & (windows[:, 2:] >= box[2:])
        # A larger window, such as the whole image, shows the object at a smaller scale.
        finer = box_areas(windows.astype(float)) <= box_areas(own[None].astype(float))
        others = np.arange(len(windows)) != parts.window[index]
        elsewhere[row] = bool(((left & right & holds).all(axis=1) & finer & others).any())
    return elsewhere


def _groups(
    parts: _Parts, indices: npt.NDArray[np.intp], windows: Windows
) -> list[npt.NDArray[np.intp]]:
    """Return the boxes of each object, grouped by descending overlap."""
    group_of = {int(index): {int(index)} for index in indices}
    for one, other in _overlapping_pairs(parts, indices, windows):
        first, second = group_of[one], group_of[other]
        present = {int(parts.window[index]) for index in first}
        if first is second or any(int(parts.window[index]) in present for index in second):
            continue
        first |= second
        for index in second:
            group_of[index] = first
    unique = {id(group): group for group in group_of.values()}
    return [np.array(sorted(group)) for group in unique.values()]


def _overlapping_pairs(
    parts: _Parts, indices: npt.NDArray[np.intp], windows: Windows
) -> list[tuple[int, int]]:
    """Return the pairs of boxes that may be one object, the largest overlap first."""
    pairs: list[tuple[float, int, int]] = []
    areas = box_areas(windows.astype(np.float64))
    own = parts.window[indices]
    members = {int(n): indices[own == n] for n in np.unique(own)}
    for one, other in itertools.combinations(members, 2):
        low = np.maximum(windows[one][:2], windows[other][:2])
        high = np.minimum(windows[one][2:], windows[other][2:])
        if (high <= low).any():
            continue
        shared = np.concatenate([low, high]).astype(np.float64)
        first = _cut_to(parts.boxes[members[one]], shared)
        second = _cut_to(parts.boxes[members[other]], shared)
        overlap = iou_matrix(first, second)
        same = overlap >= _SAME
        if areas[one] != areas[other]:
            same |= (overlap >= _SAME_ACROSS_SCALES) & (
                _share_inside(first, second, overlap) >= _MOSTLY_INSIDE
            )
        for row, column in np.argwhere(same):
            pair = int(members[one][row]), int(members[other][column])
            pairs.append((-float(overlap[row, column]), *pair))
    return [(first, second) for _, first, second in sorted(pairs)]


def _share_inside(a: Boxes, b: Boxes, overlap: FloatArray) -> FloatArray:
    """Return the share of the smaller box of each pair inside the larger one, from their IoU."""
    total = box_areas(a)[:, None] + box_areas(b)[None, :]
    shared = total * overlap / (1.0 + overlap)
    smaller = np.minimum(box_areas(a)[:, None], box_areas(b)[None, :])
    return np.asarray(shared / np.maximum(smaller, 1e-12))


def _cut_to(boxes: Boxes, window: FloatArray) -> Boxes:
    low, high = np.tile(window[:2], 2), np.tile(window[2:], 2)
    return np.asarray(np.clip(boxes, low, high))


def _without_pieces(objects: list[_Object]) -> list[_Object]:
    """Return the objects without those of cut boxes only that are inside a larger object."""
    if not any(one.cut for one in objects):
        return objects
    corners = np.array([one.box for one in objects])
    areas = box_areas(corners)
    top_left = np.maximum(corners[:, None, :2], corners[None, :, :2])
    sides = np.clip(np.minimum(corners[:, None, 2:], corners[None, :, 2:]) - top_left, 0.0, None)
    inside = sides[..., 0] * sides[..., 1] / np.maximum(areas[:, None], 1e-12)
    larger = areas[None, :] > areas[:, None]
    piece = ((inside >= _INSIDE) & larger).any(axis=1)
    return [one for one, is_piece in zip(objects, piece, strict=True) if not (one.cut and is_piece)]


def _spread(length: int, side: int, overlap: float) -> list[int]:
    """Return where windows of ``side`` start along ``length``."""
    if length <= side:
        return [0]
    step = max(1.0, side * (1.0 - overlap))
    count = int(np.ceil((length - side) / step)) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def _detail(pixels: Pixels, windows: Windows) -> FloatArray:
    """Return the mean difference between neighbouring pixels in each window, in grey levels."""
    # Every fourth pixel is enough to distinguish a quay from water.
    grey = pixels[::4, ::4].mean(axis=2)
    steps = np.zeros_like(grey)
    steps[:, 1:] += np.abs(np.diff(grey, axis=1))
    steps[1:] += np.abs(np.diff(grey, axis=0))
    return np.array(
        [
            steps[y1 // 4 : max(y2 // 4, y1 // 4 + 1), x1 // 4 : max(x2 // 4, x1 // 4 + 1)].mean()
            for x1, y1, x2, y2 in windows.tolist()
        ]
    )


def mirrored(found: Detections, *, width: int) -> Detections:
    """Return the detections of a mirrored image in pixels of the original one."""
    boxes = found.boxes
    original = np.column_stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]])
    return replace(found, boxes=original)
