"""Measures of a picture that say whether a person could label it."""

from dataclasses import dataclass

import numpy as np

from annotation_platform.images.decoding import Pixels
from annotation_platform.images.hashing import grey
from annotation_platform.params import CleaningPolicy

_WIDTH = 320
"""Sharpness is measured at one width, so that the limit means the same for every camera."""
_UNIFORM = 1.0
"""Contrast below which a picture is one shade: a step of grey here and there is noise."""


@dataclass(frozen=True)
class Quality:
    """Measured on a grey copy of at most 320 pixels width, values 0 to 255.

    Sharpness: variance of the Laplacian. Brightness: mean. Contrast: standard deviation.
    """

    sharpness: float
    brightness: float
    contrast: float


def measure(pixels: Pixels) -> Quality:
    """Return the measures of a picture; one too small for a Laplacian has sharpness zero."""
    height, width = pixels.shape[:2]
    columns = min(width, _WIDTH)
    values = grey(pixels, columns, max(1, round(height * columns / width)))
    brightness, contrast = float(values.mean()), float(values.std())
    if min(values.shape) < 3:
        return Quality(0.0, brightness, contrast)
    middle = values[1:-1, 1:-1]
    around = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    return Quality(float(np.var(around - 4.0 * middle)), brightness, contrast)


def is_uniform(quality: Quality) -> bool:
    """Return whether the whole picture is one shade."""
    return quality.contrast < _UNIFORM


def unusable(quality: Quality, *, width: int, height: int, policy: CleaningPolicy) -> str:
    """Return why nobody could label the picture, with the measured value; empty if one could."""
    if min(width, height) < policy.minimum_side:
        return f"too small: {width}x{height}, at least {policy.minimum_side} needed"
    if quality.brightness < policy.minimum_brightness:
        return f"too dark: mean {quality.brightness:.1f}, at least {policy.minimum_brightness:g}"
    if quality.brightness > policy.maximum_brightness:
        return f"too bright: mean {quality.brightness:.1f}, at most {policy.maximum_brightness:g}"
    if quality.sharpness < policy.minimum_sharpness:
        return f"blurred: {quality.sharpness:.2f}, at least {policy.minimum_sharpness:g}"
    return ""
