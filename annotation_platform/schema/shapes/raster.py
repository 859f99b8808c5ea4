"""Masks as pixels, as outlines and as COCO's run lengths.

A mask holds the pixels whose centres are in an outline, by the even-odd rule; outlines made from a
mask run along the edges of its pixels, so that rasterising them gives the same mask, pixel by
pixel.

Run lengths are COCO's: down the columns, unset pixels first; their text has five bits and a
continuation bit per character, as differences from the length before the last (pycocotools'
``maskApi.c``).
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray

if TYPE_CHECKING:
    from shapely.geometry.base import BaseGeometry

Pixels = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

_LONGEST_CODE = 7
"""Characters of one run length: five bits each, 32 bits and a sign in all."""


def rasterise(outlines: Sequence[Sequence[float]], *, width: int, height: int) -> Pixels:
    """Return the ``(height, width)`` pixels whose centres are in any of the outlines.

    An outline that crosses itself is filled by the even-odd rule. A centre exactly on an edge
    belongs to the area on its right or below it, so that neighbours share no pixel. Parts outside
    the image are cut; repeated or collinear corners are allowed.

    Args:
        outlines: each ``x, y, x, y, …``, absolute pixels.
        width: width of the image, pixels.
        height: height of the image, pixels.
    """
    pixels = np.zeros((height, width), dtype=bool)
    for outline in outlines:
        corners = np.asarray(outline, dtype=np.float64).reshape(-1, 2)
        top = int(np.clip(math.floor(corners[:, 1].min()), 0, height))
        bottom = int(np.clip(math.ceil(corners[:, 1].max()), 0, height))
        left = int(np.clip(math.floor(corners[:, 0].min()), 0, width))
        right = int(np.clip(math.ceil(corners[:, 0].max()), 0, width))
        if top < bottom and left < right:
            inside = _filled(corners - (left, top), right - left, bottom - top)
            pixels[top:bottom, left:right] |= inside
    return pixels


def _filled(corners: FloatArray, width: int, height: int) -> Pixels:
    """Return the pixels of one outline in a window, by scan lines through the centres of rows."""
    (x1, y1), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    # The rows whose centre line an edge crosses, including its upper end but not its lower one.
    first = np.clip(np.ceil(np.minimum(y1, y2) - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(y1, y2) - 0.5), 0, height).astype(np.int64)
    counts = last - first
    edge = np.repeat(np.arange(len(corners)), counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    share = (row + 0.5 - y1[edge]) / (y2 - y1)[edge]
    x = x1[edge] + share * (x2 - x1)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
    crossings = np.bincount(row * (width + 1) + column, minlength=height * (width + 1))
    crossings = crossings.reshape(height, width + 1)[:, :width]
    return np.asarray(np.cumsum(crossings, axis=1) % 2 == 1)


def trace(pixels: Pixels) -> list[list[float]]:
    """Return outlines ``x, y, x, y, …`` along the edges of the set pixels, which they enclose.

    Pixels that meet only at a corner are in separate outlines. Because an outline has no holes, an
    area with holes is cut in two at the upper edge of each hole. Every corner is a whole pixel; the
    order is from top to bottom, then left to right. Without set pixels there is no outline.
    """
    import shapely

    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    if not len(rows):
        return []
    top, left = int(rows[0]), int(columns[0])
    window = np.pad(pixels[top : rows[-1] + 1, left : columns[-1] + 1], 1)
    across = window[1:, :-1] != window[:-1, :-1]
    down = window[:-1, 1:] != window[:-1, :-1]
    pieces = _pieces(across, down, window)
    holes = [ring for piece in pieces for ring in shapely.get_rings(piece)[1:]]
    if holes:
        for ring in holes:
            _cut_at_hole(shapely.get_coordinates(ring), across, down)
        pieces = _pieces(across, down, window)
    shift = np.array([left - 1.0, top - 1.0])
    outlines = [
        (shapely.get_coordinates(piece.normalize())[:-1] + shift).ravel().tolist()
        for piece in pieces
    ]
    return sorted(outlines, key=lambda outline: (min(outline[1::2]), min(outline[::2]), outline))


def _pieces(across: Pixels, down: Pixels, window: Pixels) -> "list[BaseGeometry]":
    """Return the faces that are enclosed by unit edges and contain set pixels.

    ``across[y, x]`` is the edge from the corner (x + 1, y + 1) to its right, ``down`` the edge
    below it: the first row and column of corners is outside and has no edges.
    """
    import shapely

    h, w = window.shape
    right, below = np.zeros((h + 1, w + 1), bool), np.zeros((h + 1, w + 1), bool)
    right[1:h, : w - 1] = across
    below[: h - 1, 1:w] = down
    flat = right | np.roll(right, 1, axis=1)
    steep = below | np.roll(below, 1, axis=0)
    nodes = flat & steep
    segments = [_joined(nodes, right), _joined(nodes.T, below.T)[:, :, ::-1]]
    ends = np.concatenate(segments)[:, :, ::-1].astype(float)
    lines = np.asarray(shapely.linestrings(ends), dtype=object).tolist()
    faces = shapely.get_parts(shapely.polygonize(lines))
    inner = np.floor(shapely.get_coordinates(shapely.point_on_surface(faces))).astype(np.int64)
    found: list[BaseGeometry] = faces[window[inner[:, 1], inner[:, 0]]].tolist()
    return found


def _joined(nodes: Pixels, edges: Pixels) -> npt.NDArray[np.int64]:
    """Return ``(N, 2, 2)`` segments, row then column, between nodes of a row joined by edges."""
    found = np.argwhere(nodes)
    is_joined = (found[:-1, 0] == found[1:, 0]) & edges[found[:-1, 0], found[:-1, 1]]
    return np.stack([found[:-1][is_joined], found[1:][is_joined]], axis=1)


def _cut_at_hole(ring: FloatArray, across: Pixels, down: Pixels) -> None:
    """Add edges from the upper corners of a hole to the next edges on its left and right."""
    corners = ring.astype(np.int64)
    y = int(corners[:, 1].min())
    at_top = corners[corners[:, 1] == y, 0]
    # The cut ends at a corner where a vertical edge begins or ends, not at a horizontal edge.
    met = np.flatnonzero(down[y - 1] | down[y]) + 1
    start, end = int(at_top.min()), int(at_top.max())
    across[y - 1, met[met < start].max() : start] = True
    across[y - 1, end : met[met > end].min()] = True


def counts_from_text(text: str) -> Counts:
    """Return the run lengths of COCO's compressed text.

    Raises:
        ValueError: the text is truncated, or contains invalid run lengths.
    """
    codes = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("its run lengths are not in COCO's compressed form")
    ends = np.flatnonzero(~codes & 32)
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _LONGEST_CODE:
        raise ValueError("its run lengths are not in COCO's compressed form")
    position = np.arange(len(codes)) - np.repeat(starts, sizes)
    values = np.add.reduceat((codes & 31) << (5 * position), starts)
    values -= np.where(codes[ends] & 16, np.int64(1) << (5 * sizes), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def text_from_counts(counts: Counts, *, width: int, height: int) -> str:
    """Return COCO's compressed text of run lengths that add up to the image; see ``checked``."""
    from pycocotools import mask as coco

    runs = {"size": [height, width], "counts": counts.tolist()}
    text: bytes = coco.frPyObjects(runs, height, width)["counts"]
    return text.decode("ascii")


def checked(counts: Counts, *, width: int, height: int) -> Counts:
    """Return equivalent run lengths, none of them empty except the first.

    Raises:
        ValueError: one is negative, no pixel is set, or they do not add up to the image's pixels.
    """
    if (counts < 0).any() or int(counts.sum()) != width * height:
        raise ValueError(f"its run lengths do not add up to {width} × {height} pixels")
    ends = np.cumsum(counts)
    starts = ends - counts
    is_set = (np.arange(len(counts)) % 2 == 1) & (counts > 0)
    if not is_set.any():
        raise ValueError("it covers no pixel")
    starts, ends = starts[is_set], ends[is_set]
    apart = starts[1:] > ends[:-1]
    starts = starts[np.concatenate([[True], apart])]
    ends = ends[np.concatenate([apart, [True]])]
    bounds = np.concatenate([[0], np.stack([starts, ends], axis=1).ravel(), [width * height]])
    lengths = np.diff(bounds)
    return np.asarray(lengths if lengths[-1] else lengths[:-1], dtype=np.int64)


def extent(counts: Counts, *, height: int) -> tuple[float, float, float, float]:
    """Return the edges ``x1 y1 x2 y2`` around the set pixels of ``checked`` run lengths."""
    ends = np.cumsum(counts)
    first, last = ends[:-1:2], ends[1::2] - 1
    is_tall = first // height < last // height
    top = 0 if is_tall.any() else (first % height).min()
    bottom = height - 1 if is_tall.any() else (last % height).max()
    return (
        float(first[0] // height),
        float(top),
        float(last[-1] // height + 1),
        float(bottom + 1),
    )
