"""Looking at a large image in parts: where the parts lie, which are worth it, how they join.

A window is ``x1 y1 x2 y2`` in whole pixels of the image. The idea of slicing is that of Akyon,
Altinuc and Temizel, "Slicing Aided Hyper Inference and Fine-tuning for Small Object Detection",
2022; the joining is ours: two boxes from two windows are one object if they agree **in the part of
the image that both windows see**, so that a box cut by a border joins the whole one.
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
# At another scale an edge is off by more: less must do, if one box lies in the other.
_SAME_ACROSS_SCALES = 0.2
_MOSTLY_INSIDE = 0.7
# A cut box of which so much lies in another one is a piece of it.
_INSIDE = 0.8
# Networks place an edge that they do not see within this share of the window.
_EDGE_SHARE = 0.01


def tile_windows(width: int, height: int, *, side: int, overlap: float) -> Windows:
    """Return the ``(T, 4)`` windows that cover an image, row by row.

    Neighbours share at least ``overlap`` of ``side``; windows are spread evenly, so they often
    share more. An image that is no larger than ``side`` has one window, and with ``side`` 0 so has
    every image: itself.
    """
    if side == 0:
        return np.array([[0, 0, width, height]], dtype=np.int64)
    columns = _spread(width, side, overlap)
    rows = _spread(height, side, overlap)
    windows = [[x, y, min(x + side, width), min(y + side, height)] for y in rows for x in columns]
    return np.array(windows, dtype=np.int64)


def most_useful(windows: Windows, pixels: Pixels, whole: Detections, *, most: int) -> Windows:
    """Return at most ``most`` of the windows, the most useful first; ties in their order.

    A window is the more useful the more detail its pixels show and the more boxes a look at the
    whole image found in it, each as its share of all windows together.
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

    Boxes of one class are one object if, cut to what both of their windows see, they overlap by an
    IoU of 0.5 or more, or, between windows of different size, by 0.2 if one lies mostly in the
    other; an object has at most one box of a window. It is where the smallest window places it that
    does not cut it, and where all do, it is all that they cover together. Its score is the highest
    of these. A box that is cut although another window sees all of it and more is left out: that
    window knows better. The whole image may be one of the windows; it overrules no other, since
    what is small it sees badly.

    Args:
        windows: ``(T, 4)``, those that were looked at, in any order.
        found: what was seen in each, in pixels **of the window**.
        width: of the image.
        height: of the image.
    """
    parts = _gather(windows, found, width=width, height=height)
    kept: list[_Object] = []
    for name in sorted(set(parts.class_names)):
        places = np.array([n for n, one in enumerate(parts.class_names) if one == name])
        kept.extend(_objects(parts, places, name, windows))
    kept.sort(key=lambda one: (-one.score, one.class_name, *one.box.tolist()))
    return Detections(
        boxes=np.array([one.box for one in kept]).reshape(-1, 4),
        scores=np.array([one.score for one in kept]),
        class_names=[one.class_name for one in kept],
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
    its = windows[number].reshape(-1, 4)
    near = np.maximum(1.0, _EDGE_SHARE * (its[:, 2:] - its[:, :2]))
    image = np.array([width, height])
    before = (boxes[:, :2] - its[:, :2] < near) & (its[:, :2] > 0)
    after = (its[:, 2:] - boxes[:, 2:] < near) & (its[:, 2:] < image)
    return _Parts(
        boxes=boxes,
        scores=np.concatenate([one.scores for one in found]) if found else np.zeros(0),
        class_names=[name for one in found for name in one.class_names],
        window=number,
        cut=(before | after).any(axis=1),
        image=np.array([0.0, 0.0, width, height]),
    )


def _objects(
    parts: _Parts, places: npt.NDArray[np.intp], name: str, windows: Windows
) -> list[_Object]:
    """Return the objects of one class."""
    places = places[~_better_known(parts, places, windows)]
    areas = box_areas(windows.astype(np.float64))
    objects = []
    for group in _groups(parts, places, windows):
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


def _better_known(
    parts: _Parts, places: npt.NDArray[np.intp], windows: Windows
) -> npt.NDArray[np.bool_]:
    """Return which cut boxes lie whole in another tile, clear of its borders inside."""
    known = np.zeros(len(places), dtype=bool)
    for row, place in enumerate(places):
        if not parts.cut[place]:
            continue
        box, own = parts.boxes[place], windows[parts.window[place]]
        near = np.maximum(1.0, _EDGE_SHARE * (windows[:, 2:] - windows[:, :2]))
        left = (box[:2] - windows[:, :2] >= near) | (windows[:, :2] == parts.image[:2])
        right = (windows[:, 2:] - box[2:] >= near) | (windows[:, 2:] == parts.image[2:])
        holds = (windows[:, :2] <= box[:2]) & (windows[:, 2:] >= box[2:])
        # A larger window, such as the whole image, sees the same at a smaller size.
        finer = box_areas(windows.astype(float)) <= box_areas(own[None].astype(float))
        others = np.arange(len(windows)) != parts.window[place]
        known[row] = bool(((left & right & holds).all(axis=1) & finer & others).any())
    return known


def _groups(
    parts: _Parts, places: npt.NDArray[np.intp], windows: Windows
) -> list[npt.NDArray[np.intp]]:
    """Return the boxes of each object: those that agree join, the most alike first."""
    group_of = {int(place): {int(place)} for place in places}
    for one, other in _agreeing(parts, places, windows):
        first, second = group_of[one], group_of[other]
        seen = {int(parts.window[place]) for place in first}
        if first is second or any(int(parts.window[place]) in seen for place in second):
            continue
        first |= second
        for place in second:
            group_of[place] = first
    unique = {id(group): group for group in group_of.values()}
    return [np.array(sorted(group)) for group in unique.values()]


def _agreeing(
    parts: _Parts, places: npt.NDArray[np.intp], windows: Windows
) -> list[tuple[int, int]]:
    """Return the pairs of boxes that are one object, the most alike first."""
    pairs: list[tuple[float, int, int]] = []
    areas = box_areas(windows.astype(np.float64))
    members = {int(n): places[parts.window[places] == n] for n in np.unique(parts.window[places])}
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
    """Return how much of the smaller box of each pair lies in the larger, from their IoU."""
    total = box_areas(a)[:, None] + box_areas(b)[None, :]
    shared = total * overlap / (1.0 + overlap)
    smaller = np.minimum(box_areas(a)[:, None], box_areas(b)[None, :])
    return np.asarray(shared / np.maximum(smaller, 1e-12))


def _cut_to(boxes: Boxes, window: FloatArray) -> Boxes:
    low, high = np.tile(window[:2], 2), np.tile(window[2:], 2)
    return np.asarray(np.clip(boxes, low, high))


def _without_pieces(objects: list[_Object]) -> list[_Object]:
    """Leave out what only cut boxes saw and lies in a larger object of the same class."""
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
    # Every fourth pixel is enough to tell a quay from the water.
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
    """Return the detections of an image that was looked at mirrored left to right."""
    boxes = found.boxes
    turned = np.column_stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]])
    return replace(found, boxes=turned)
