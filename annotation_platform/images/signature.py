"""Signatures of images, which survive recompression, resizing and small crops."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from annotation_platform.images.decoding import Pixels
from annotation_platform.images.reduced import Reduced, reduced
from annotation_platform.schema.geometry import FloatArray

VIEWS = 14
"""View 0 is the unchanged image, 1 to 7 its mirror images and quarter turns, 8 to 13 windows of
decreasing size in its middle."""

SIGNATURE = np.dtype(
    [
        ("image_id", "S64"),
        ("hashes", "<u8", (VIEWS, 3)),
        ("vectors", "<f2", (7, 224)),
        ("grey", "u1", (32, 32)),
    ]
)
"""A row of signatures as they are stored; see `Signature`."""

SignatureTable = np.ndarray[Any, np.dtype[np.void]]
"""``(N,)`` rows of `SIGNATURE`."""

_SAME_IMAGE = 0.985
"""Least correlation of the grey copies. Re-encoded, resized to a fifth, brighter or darker, BCCD's
images have at least 0.99; two different ones stay below 0.6."""
_SAME_SPOT = 0.5
"""Largest difference of a spot, a sixteenth of each side, in standard deviations of the image.
The same changes stay below it; narrow crops and objects of 5 % of the width are above it."""

_WEIGHTS = np.array([2.0, 1.0, 1.0, 0.25])
"""Of brightness, two colour differences and histogram: the values that separate BCCD's images
best."""
_WINDOWS = (1.0, 0.9, 0.83, 0.77, 0.71, 0.65, 0.6)
"""Sides of the windows in the middle of an image; a crop between two of them is near to both."""
_POSITIONS = list(product((False, True), (False, True), (False, True)))
"""Transposed, then mirrored top to bottom, then left to right: views 0 to 7."""
_SIDE = 64
"""Side in pixels of the square copy from which everything is computed."""
_BLOCKS = np.array([0, 64, 80])
"""First positions of the frequencies of brightness and of the two colour differences."""
_SIGNED = np.arange(64).reshape(8, 8)[:6, :6].ravel()[1:33]
"""Frequencies of brightness in the hash of colours."""


@dataclass(frozen=True)
class Signature:
    """Hashes and vectors of an image in 14 views, which survive recompression and small crops."""

    hashes: npt.NDArray[np.uint64]
    """``(14, 3)``: by view, hashes of its lowest frequencies, its cells and its colours."""
    vectors: npt.NDArray[np.float16]
    """``(7, 224)``: of view 0 and the windows; of unit length, or zero for one flat colour.

    Those of views 1 to 7 follow from view 0, see `seen_as`.
    """
    grey: npt.NDArray[np.uint8]
    """``(32, 32)`` brightness, whatever the image's own proportions."""

    @property
    def perceptual_hash(self) -> str:
        """The hash of the whole image's lowest frequencies, 16 hex digits.

        It has the signs of the 8 × 8 lowest frequencies of the cosine transform of a 32 × 32 grey
        copy, relative to their median. Recompression and resizing hardly change it; crops, flips
        and rotations do. Zauner, "Implementation and Benchmarking of Perceptual Image Hash
        Functions", 2010.
        """
        return f"{int(self.hashes[0, 0]):016x}"


def signature(image: Pixels | Reduced) -> Signature:
    """Return three hashes and a vector of each view of an image, and a small grey copy.

    The hashes have 64 bits each: the 8 × 8 lowest frequencies of the brightness against their
    median; the 8 × 8 cells against their median; the signs of the lowest frequencies of brightness
    and colours, of brightness only if there are no colours. Each is robust against other changes.

    The vector has the 8 × 8 lowest frequencies of the brightness, the 4 × 4 lowest of both colour
    differences, all without the mean, and the square roots of a histogram of hue, saturation and
    value; each block has the length of its weight, or less if there is hardly any contrast. On
    BCCD, whose images are very similar, the cosine of two vectors is at least 0.88 for an image
    and its small changes and at most 0.86 for two images in all their views.
    """
    colour = reduced(image).colour
    square = colour.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    planes = np.array(square.convert("YCbCr").split(), dtype=np.float64)
    # Everything is linear in the pixels: a window is resized and transformed by one product, so
    # small that BLAS starts no threads. Rounding removes numerical noise, so that noise never
    # decides a bit.
    rows = (_LOW.reshape(56, _SIDE) @ planes).reshape(3, 7, 8, _SIDE)
    low = np.round(rows @ _LOW.transpose(0, 2, 1), 6)
    rows = (_CELLS.reshape(56, _SIDE) @ planes[0]).reshape(7, 8, _SIDE)
    cells = np.round(rows @ _CELLS.transpose(0, 2, 1), 6).reshape(7, 64)
    frequencies = np.concatenate(
        [low[0].reshape(7, 64), *(low[plane, :, :4, :4].reshape(7, 16) for plane in (1, 2))], axis=1
    )
    turned = frequencies[0, _MOVED[1:, :96]] * _SIGNS[1:, :96]
    views = np.concatenate([frequencies[:1], turned, frequencies[1:]])
    cells = np.concatenate([cells[:1], cells[0, _CELLS_MOVED[1:]], cells[1:]])
    grey = square.convert("L").reduce(2)
    return Signature(_hashes(views, cells), _vectors(frequencies, square), np.array(grey))


def signature_rows(count: int) -> SignatureTable:
    """Return ``count`` empty rows of signatures."""
    return np.zeros(count, dtype=SIGNATURE)


def set_signature(row: np.void, image_id: str, found: Signature) -> None:
    """Fill one row of signatures."""
    row["image_id"] = image_id
    row["hashes"], row["vectors"], row["grey"] = found.hashes, found.vectors, found.grey


def seen_as(
    vectors: npt.NDArray[np.float16], rows: npt.NDArray[np.int64], view: int
) -> npt.NDArray[np.float32]:
    """Return ``(M, 224)`` vectors of one view, 0 to 13, of these rows of ``(N, 7, 224)``."""
    if view >= len(_POSITIONS):
        return np.asarray(vectors[rows, view - len(_POSITIONS) + 1], dtype=np.float32)
    return np.asarray(vectors[rows, 0][:, _MOVED[view]] * _SIGNS[view])


def same_image(
    first: npt.NDArray[np.uint8],
    second: npt.NDArray[np.uint8],
    first_aspect: FloatArray,
    second_aspect: FloatArray,
) -> npt.NDArray[np.bool_]:
    """Return which pairs of images show the same, by their grey copies.

    It is stricter than near in `find_similar`, because duplicates are not labelled: a crop, a
    stamp or one more object in front of a fixed camera is another image here. The copies must
    correlate, and no spot may differ much. Brightness and contrast do not matter; an image of one
    flat colour matches no other.

    Args:
        first, second: ``(N, 32, 32)`` grey copies, see `Signature`.
        first_aspect, second_aspect: ``(N,)`` widths divided by heights.
    """
    ours, theirs = (grey.astype(np.float32) for grey in (first, second))
    ours -= ours.mean(axis=(1, 2), keepdims=True)
    theirs -= theirs.mean(axis=(1, 2), keepdims=True)
    own, other = (np.sqrt(np.einsum("nij,nij->n", each, each) / 1024) for each in (ours, theirs))
    # Noise of one grey level has a deviation of one.
    has_contrast = np.minimum(own, other) >= 1.0
    ours /= np.maximum(own, 1.0)[:, None, None]
    theirs /= np.maximum(other, 1.0)[:, None, None]
    is_same = np.einsum("nij,nij->n", ours, theirs) / 1024 >= _SAME_IMAGE
    spots = (ours - theirs).reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4))
    is_same &= np.abs(spots).max(axis=(1, 2)) <= _SAME_SPOT
    return np.asarray(has_contrast & is_same & (np.abs(first_aspect - second_aspect) <= 0.02))


def _hashes(views: FloatArray, cells: FloatArray) -> npt.NDArray[np.uint64]:
    """Return ``(14, 3)`` hashes from ``(14, 96)`` frequencies and ``(14, 64)`` cells."""
    bright, colours = views[:, :64], np.concatenate([views[:, 65:80], views[:, 81:96]], axis=1)
    bits = np.zeros((VIEWS, 3, 64), dtype=bool)
    middles = np.median(np.stack([bright, cells]), axis=2, keepdims=True)
    bits[:, 0] = bright > middles[0]
    bits[:, 1] = cells > middles[1]
    # Without colours, only half of the bits would distinguish images.
    coloured = np.abs(colours).max(axis=1) >= 16.0
    signs = np.concatenate([bright[:, _SIGNED], colours], axis=1) > 0
    bits[:, 2, :62] = np.where(coloured[:, None], signs, bright[:, 1:63] > 0)
    bits[:, 2, 62] = ~coloured & (bright[:, 63] > 0)
    return np.packbits(bits, axis=2).view(">u8")[..., 0].astype(np.uint64)


def _vectors(frequencies: FloatArray, square: Image.Image) -> npt.NDArray[np.float16]:
    """Return ``(7, 224)`` vectors from ``(7, 96)`` frequencies and the image itself."""
    values = frequencies.copy()
    values[:, _BLOCKS] = 0.0
    lengths = np.sqrt(np.add.reduceat(values * values, _BLOCKS, axis=1))
    # 32 is the length that noise of one grey level has in 32 × 32 pixels.
    scales = np.sqrt(_WEIGHTS[:3]) / np.maximum(lengths, 32.0)
    values *= np.repeat(scales, (64, 16, 16), axis=1)
    vectors = np.concatenate([values, np.sqrt(_WEIGHTS[3]) * _colours(square)], axis=1)
    vectors /= np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
    vectors[lengths[:, 0] < 32.0] = 0.0
    return np.asarray(vectors, dtype=np.float16)


def _colours(square: Image.Image) -> FloatArray:
    """Return ``(7, 128)`` square roots of the shares of 8 hues × 4 saturations × 4 values."""
    hue, saturation, value = np.asarray(square.convert("HSV")).reshape(-1, 3).T
    # The hue of grey pixels is noise.
    hue = np.where(saturation < 26, 0, hue)
    colours = (hue >> 5) * 16 + (saturation >> 6) * 4 + (value >> 6)
    rings = np.bincount(_RINGS + colours, minlength=7 * 128).reshape(7, 128)
    # A window consists of its own ring and the inner ones.
    counts = rings[::-1].cumsum(axis=0)[::-1]
    return np.asarray(np.sqrt(counts / counts.sum(axis=1, keepdims=True)))


def _resizing(side: float, count: int) -> FloatArray:
    """Return the ``(count, 64)`` matrix that averages a middle window of size ``side``."""
    edges = _SIDE / 2 + _SIDE * side * (np.linspace(0.0, 1.0, count + 1) - 0.5)
    pixels = np.arange(_SIDE)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(shared, 0.0) * count / (_SIDE * side))


def _cosines() -> FloatArray:
    """Return the ``(8, 32)`` lowest rows of the orthonormal cosine transform."""
    angles = np.arange(8)[:, None] * (2 * np.arange(32) + 1) * np.pi / 64
    return np.asarray(np.cos(angles) * np.sqrt(np.where(np.arange(8) == 0, 1, 2) / 32)[:, None])


def _rings() -> npt.NDArray[np.int64]:
    """Return 128 times the number of the smallest window around each of 64 × 64 pixels."""
    reach = np.abs(np.arange(_SIDE) + 0.5 - _SIDE / 2) * 2 / _SIDE
    furthest = np.maximum(reach[:, None], reach)
    around = np.sum([furthest <= side for side in _WINDOWS], axis=0).ravel()
    return np.asarray(128 * (around - 1), dtype=np.int64)


def _turnings() -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the source positions and signs of the values of views 0 to 7, and those of cells."""
    # The positions, from 1 on so that each has a sign, are turned like the image: a mirror image
    # changes only the signs of odd frequencies.
    positions = np.arange(1, 225)
    vectors, cells = [], []
    for transposed, down, across in _POSITIONS:
        blocks = [positions[:64].reshape(8, 8), *positions[64:96].reshape(2, 4, 4)]
        blocks = [(block.T if transposed else block).copy() for block in blocks]
        for block in blocks:
            block[1::2] *= -1 if down else 1
            block[:, 1::2] *= -1 if across else 1
        vectors.append(np.concatenate([*(block.ravel() for block in blocks), positions[96:]]))
        square = np.arange(64).reshape(8, 8)
        square = square.T if transposed else square
        cells.append(square[:: -1 if down else 1, :: -1 if across else 1].ravel())
    signed = np.stack(vectors)
    return np.abs(signed) - 1, np.sign(signed).astype(np.float32), np.stack(cells)


_LOW = np.stack([_cosines() @ _resizing(side, 32) for side in _WINDOWS])
_CELLS = np.stack([_resizing(side, 8) for side in _WINDOWS])
_RINGS = _rings()
_MOVED, _SIGNS, _CELLS_MOVED = _turnings()
