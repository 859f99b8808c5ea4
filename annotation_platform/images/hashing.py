"""Digests of images: of the pixels, and perceptual ones that survive recompression."""

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from annotation_platform.images.decoding import Pixels
from annotation_platform.images.reduced import Reduced
from annotation_platform.images.signature import signature


def pixel_sha256(pixels: Pixels) -> str:
    """Return the SHA-256 of an image's size and pixels, whatever its coding."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def perceptual_hash(image: Pixels | Reduced) -> str:
    """Return a 64-bit hash, 16 hex digits, that recompression and resizing hardly change.

    It is the first hash of the image's signature: the signs of the 8 × 8 lowest frequencies of the
    cosine transform of a 32 × 32 grey copy, relative to their median. Zauner, "Implementation and
    Benchmarking of Perceptual Image Hash Functions", 2010. Crops, flips and rotations change it.
    """
    return signature(image).perceptual_hash


def hash_bits(hashes: list[str]) -> npt.NDArray[np.uint64]:
    """Return perceptual hashes as ``(N,)`` unsigned integers."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), dtype=">u8").astype(np.uint64)


def describe(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return a ``(96,)`` float32 vector of unit length of an image's layout and colours.

    It has the 8 × 8 lowest frequencies of the brightness and the 4 × 4 lowest of both colour
    differences; each block is scaled to its own length, so that layout and colour count equally.
    """
    from scipy.fft import dctn

    small = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX).convert("YCbCr")
    planes = np.asarray(small, dtype=np.float64) - 128.0
    blocks = []
    for plane, side in ((0, 8), (1, 4), (2, 4)):
        block = dctn(planes[..., plane], norm="ortho")[:side, :side].ravel()
        blocks.append(block / max(float(np.linalg.norm(block)), 1e-9))
    vector = np.concatenate(blocks)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9), dtype=np.float32)
