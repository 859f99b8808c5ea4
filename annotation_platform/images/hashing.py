"""Digests of pictures: of their bytes, of their pixels, and one that survives recompression."""

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from annotation_platform.images.decoding import Pixels
from annotation_platform.schema.geometry import FloatArray


def pixel_sha256(pixels: Pixels) -> str:
    """Return the SHA-256 of a picture's size and pixels, however it was coded."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def grey(pixels: Pixels, width: int, height: int) -> FloatArray:
    """Return the picture as ``(height, width)`` grey values, 0 to 255, averaged down."""
    small = Image.fromarray(pixels).convert("L").resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def perceptual_hash(pixels: Pixels) -> str:
    """Return a 64-bit hash, 16 hex digits, that recompression and resizing hardly change.

    The signs of the 8 × 8 lowest frequencies of the cosine transform of a 32 × 32 grey copy,
    relative to their median. Zauner, "Implementation and Benchmarking of Perceptual Image Hash
    Functions", 2010. Crops, flips and rotations change it.
    """
    low = dctn(grey(pixels, 32, 32), norm="ortho")[:8, :8]
    # Flat pictures have no frequencies but rounding noise; it must not decide a bit.
    low = np.round(low, 6)
    bits = (low > np.median(low)).ravel()
    return np.packbits(bits).tobytes().hex()


def hash_bits(hashes: list[str]) -> npt.NDArray[np.uint64]:
    """Return perceptual hashes as ``(N,)`` unsigned integers."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").astype(np.uint64)


_WEIGHTS = (2.0, 1.0, 1.0, 0.25)
"""Of brightness, two colour differences and histogram: what parts BCCD's pictures best."""
_WINDOWS = (0.9, 0.83, 0.77, 0.71, 0.65, 0.6)
"""Sides of the windows in the middle of a picture; a crop between two of them is near to both."""
_POSITIONS = list(product((False, True), (False, True), (False, True)))
"""Transposed, then mirrored top to bottom, then left to right."""
_COSINES = dctn(np.eye(32), axes=[0], norm="ortho")[:8]


@dataclass(frozen=True)
class Likeness:
    """What of a picture survives recompression, resizing and a small crop, in several views.

    View 0 is the picture as it stands, 1 to 7 its mirror images and quarter turns, 8 to 13 ever
    smaller windows in its middle.
    """

    hashes: npt.NDArray[np.uint64]
    """``(14, 3)``: by view, hashes of its lowest frequencies, its cells and its colours."""
    vectors: npt.NDArray[np.float16]
    """``(7, 224)``: of view 0 and the windows; of unit length, zero where all is one flat colour.

    Views 1 to 7 follow from view 0, see `seen_as`.
    """


def likeness(pixels: Pixels) -> Likeness:
    """Return three hashes and a vector of each view of a picture, for finding it again.

    The hashes, 64 bits each: the 8 × 8 lowest frequencies of the brightness against their median,
    like `perceptual_hash`; the 8 × 8 cells against their median; the signs of the lowest
    frequencies of brightness and colours, of brightness alone where there are no colours. Each
    withstands other changes than the others.

    The vector: the 8 × 8 lowest frequencies of the brightness, the 4 × 4 lowest of both colour
    differences, all without the mean, and the square roots of a histogram of hue, saturation and
    value; each block has the length of its weight, or less where there is hardly any contrast. On
    BCCD, whose pictures are much alike, the cosine of two vectors is at least 0.88 for a picture
    and its small changes and at most 0.86 for two pictures in all their views.
    """
    small = Image.fromarray(pixels).resize((192, 192), Image.Resampling.BOX)
    whole = _view(small, 1.0)
    turned = [whole.turned(*position) for position in _POSITIONS]
    windows = [_view(small, side) for side in _WINDOWS]
    return Likeness(
        np.array([view.hashes() for view in turned + windows], dtype=np.uint64),
        np.array([view.vector() for view in [whole, *windows]], dtype=np.float16),
    )


def seen_as(vectors: npt.NDArray[np.float16], view: int) -> npt.NDArray[np.float32]:
    """Return ``(N, 224)`` vectors of one view, 0 to 13, from the ``(N, 7, 224)`` of likenesses."""
    if view >= len(_POSITIONS):
        return vectors[:, view - len(_POSITIONS) + 1].astype(np.float32)
    moved_from, signs = _turned_places(*_POSITIONS[view])
    return vectors[:, 0, moved_from] * signs


@dataclass(frozen=True)
class _View:
    low: list[FloatArray]
    """The lowest frequencies of brightness, 8 × 8, and of the colour differences, 4 × 4."""
    cells: FloatArray
    """``(8, 8)`` brightness."""
    colours: FloatArray
    """``(128,)`` square roots of the shares of 8 hues × 4 saturations × 4 values."""

    def turned(self, transposed: bool, down: bool, across: bool) -> "_View":
        """Return the view transposed, then mirrored; that turns odd frequencies' signs, no more."""
        low = [(block.T if transposed else block).copy() for block in self.low]
        cells = self.cells.T if transposed else self.cells
        for block in low:
            block[1::2] *= -1 if down else 1
            block[:, 1::2] *= -1 if across else 1
        cells = cells[:: -1 if down else 1, :: -1 if across else 1]
        return _View(low, cells, self.colours)

    def hashes(self) -> list[int]:
        bright, blue, red = self.low
        signs = [bright[:6, :6].ravel()[1:33], blue.ravel()[1:], red.ravel()[1:]]
        if max(np.abs(signs[1]).max(), np.abs(signs[2]).max()) < 16.0:
            # Without colours, only half of the bits would tell pictures apart.
            signs = [bright.ravel()[1:]]
        return [
            _pack(bright > np.median(bright)),
            _pack(self.cells > np.median(self.cells)),
            _pack(np.concatenate(signs) > 0),
        ]

    def vector(self) -> FloatArray:
        lengths = [float(np.linalg.norm(block.ravel()[1:])) for block in self.low]
        # 32 is the length that noise of one grey level has in 32 × 32 pixels.
        if lengths[0] < 32.0:
            return np.zeros(224)
        blocks = []
        for block, length, weight in zip(self.low, lengths, _WEIGHTS, strict=False):
            values = block.ravel() * (np.sqrt(weight) / max(length, 32.0))
            values[0] = 0.0
            blocks.append(values)
        vector = np.concatenate([*blocks, np.sqrt(_WEIGHTS[3]) * self.colours])
        return np.asarray(vector / np.linalg.norm(vector))


def _view(small: Image.Image, side: float) -> _View:
    """Return the window in the middle of a square picture; ``side`` 1 is all of it."""
    low, high = small.width * (1 - side) / 2, small.width * (1 + side) / 2
    window = small.resize((64, 64), Image.Resampling.BOX, box=(low, low, high, high))
    planes = np.asarray(window.convert("YCbCr"), dtype=np.float64)
    planes = planes.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    frequencies = [
        np.round(_COSINES[:count] @ planes[..., plane] @ _COSINES[:count].T, 6)
        for plane, count in ((0, 8), (1, 4), (2, 4))
    ]
    cells = np.round(planes[..., 0].reshape(8, 4, 8, 4).mean(axis=(1, 3)), 6)
    hue, saturation, value = np.asarray(window.convert("HSV")).reshape(-1, 3).T
    # The hue of grey pixels is noise.
    hue = np.where(saturation < 26, 0, hue)
    colours = (hue >> 5) * 16 + (saturation >> 6) * 4 + (value >> 6)
    shares = np.bincount(colours, minlength=128) / len(colours)
    return _View(frequencies, cells, np.sqrt(shares))


@cache
def _turned_places(
    transposed: bool, down: bool, across: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return where each value of a turned vector comes from, and its sign."""
    # The places themselves, from 1 on so that each has a sign, are turned like frequencies.
    places: FloatArray = np.asarray(np.arange(1, 225), dtype=np.float64)
    low: list[FloatArray] = [
        places[:64].reshape(8, 8),
        places[64:80].reshape(4, 4),
        places[80:96].reshape(4, 4),
    ]
    turned = _View(low, low[0], places[96:]).turned(transposed, down, across)
    moved = np.concatenate([*(block.ravel() for block in turned.low), turned.colours])
    return np.abs(moved).astype(np.int64) - 1, np.sign(moved).astype(np.float32)


def _pack(bits: npt.NDArray[np.bool_]) -> int:
    """Return up to 64 bits as one number."""
    return int.from_bytes(np.packbits(bits.ravel()).tobytes(), "big")


def describe(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return a ``(96,)`` float32 vector of unit length of a picture's layout and colours.

    The 8 × 8 lowest frequencies of the brightness and the 4 × 4 lowest of both colour
    differences, each block scaled to its own length, so that layout counts as much as colour.
    """
    small = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX).convert("YCbCr")
    planes = np.asarray(small, dtype=np.float64) - 128.0
    blocks = []
    for plane, side in ((0, 8), (1, 4), (2, 4)):
        block = dctn(planes[..., plane], norm="ortho")[:side, :side].ravel()
        blocks.append(block / max(float(np.linalg.norm(block)), 1e-9))
    vector = np.concatenate(blocks)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float32)
