"""Quality measures that decide whether an image can be labelled."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annotation_platform.images.decoding import Pixels
from annotation_platform.images.reduced import Reduced, reduced
from annotation_platform.policy import CleaningPolicy

_UNIFORM = 1.0
"""Contrast below which an image counts as one shade; single grey levels are noise."""
_GREYS = np.arange(256)


@dataclass(frozen=True)
class Quality:
    """Quality measures of a grey copy at most 320 pixels wide, with values 0 to 255.

    Sharpness is the variance of the Laplacian, brightness the mean, contrast the standard
    deviation, entropy Shannon's of the histogram, 0 to 8 bits.
    """

    sharpness: float
    brightness: float
    contrast: float
    entropy: float


def measure(image: Pixels | Reduced) -> Quality:
    """Return the measures of an image; the sharpness is 0 if it is too small for a Laplacian.

    All sums are of integers, so the measures are the same on every machine.
    """
    grey = reduced(image).grey
    histogram = np.array(grey.histogram())
    count = int(histogram.sum())
    total, squares = int(histogram @ _GREYS), int(histogram @ (_GREYS * _GREYS))
    shares = histogram[histogram > 0] / count
    return Quality(
        sharpness=_sharpness(np.asarray(grey)),
        brightness=total / count,
        contrast=float(np.sqrt(count * squares - total * total)) / count,
        entropy=abs(float(shares @ np.log2(shares))),
    )


def is_uniform(quality: Quality) -> bool:
    """Return whether the whole image is one shade."""
    return quality.contrast < _UNIFORM


def unusable(quality: Quality, *, width: int, height: int, policy: CleaningPolicy) -> str:
    """Return why the image cannot be labelled, with the measured value; empty if it can."""
    if min(width, height) < policy.minimum_side:
        return f"too small: {width}x{height}, at least {policy.minimum_side} needed"
    if quality.brightness < policy.minimum_brightness:
        return f"too dark: mean {quality.brightness:.1f}, at least {policy.minimum_brightness:g}"
    if quality.brightness > policy.maximum_brightness:
        return f"too bright: mean {quality.brightness:.1f}, at most {policy.maximum_brightness:g}"
    if quality.sharpness < policy.minimum_sharpness:
        return f"blurred: {quality.sharpness:.2f}, at least {policy.minimum_sharpness:g}"
    return ""


def _sharpness(grey: npt.NDArray[np.uint8]) -> float:
    if min(grey.shape) < 3:
        return 0.0
    values = grey.astype(np.int16)
    around = values[:-2, 1:-1] + values[2:, 1:-1]
    around += values[1:-1, :-2]
    around += values[1:-1, 2:]
    around -= 4 * values[1:-1, 1:-1]
    edges = around.astype(np.float64)
    total, squares = int(edges.sum()), int(np.einsum("hw,hw->", edges, edges))
    return (edges.size * squares - total * total) / edges.size**2
