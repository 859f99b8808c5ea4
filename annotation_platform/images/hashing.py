"""The digest of an image's pixels, and a vector of its layout and colours."""

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image

from annotation_platform.images.decoding import Pixels


def pixel_sha256(pixels: Pixels) -> str:
    """Return the SHA-256 of an image's size and pixels, whatever its coding."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


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
