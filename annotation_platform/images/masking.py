"""Irreversible masking of regions of an image.

An ordinary blur, in which each pixel is a weighted mean of its neighbours, has as many output as
input values and can be inverted (for pixelated and blurred text see Hill et al., "On the
(In)effectiveness of Mosaicing and Blurring as Tools for Document Redaction", 2016; for faces
McPherson et al., "Defeating Image Obfuscation with Deep Learning", 2016). Here a whole patch, which
is one box or several boxes that touch, is first reduced to the mean colours of at most 4 × 4 cells:
48 numbers of 8 bits, whatever its size. Contents that differ only within cells, not in their means,
give the same bytes, so no computation can distinguish them.
"""

import io
from collections.abc import Sequence
from itertools import chain, pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, JpegImagePlugin

from annotation_platform.images.decoding import Pixels, decode
from annotation_platform.schema.geometry import Boxes

MaskRegion = tuple[int, int, int, int]
"""``x1 y1 x2 y2`` in whole pixels; the last column and row are outside."""
MaskStyle = Literal["blur", "grey"]

_CELLS = 4
_GREY = 128
_SUBSAMPLING = {-1: 0}
"""Maps Pillow's value for unknown chroma subsampling to the one for no subsampling."""


def masked_regions(boxes: Boxes, *, width: int, height: int, margin: float) -> list[MaskRegion]:
    """Return the regions of an image to mask, sorted and distinct.

    Args:
        boxes: ``(N, 4)``, absolute pixels.
        width: width of the image, in pixels.
        height: height of the image, in pixels.
        margin: the share of its width, and of its height, by which a box is enlarged at each side.
            The result is rounded outwards and clipped to the image; a box outside it is dropped.
    """
    grown = boxes + (boxes[:, [2, 3, 2, 3]] - boxes[:, [0, 1, 0, 1]]) * np.array(
        [-margin, -margin, margin, margin]
    )
    found = set()
    for x1, y1, x2, y2 in grown.tolist():
        left, top = max(0, int(np.floor(x1))), max(0, int(np.floor(y1)))
        right, bottom = min(width, int(np.ceil(x2))), min(height, int(np.ceil(y2)))
        if left < right and top < bottom:
            found.add((left, top, right, bottom))
    return sorted(found)


def mask_pixels(
    pixels: Pixels, regions: Sequence[MaskRegion], *, style: MaskStyle = "blur"
) -> Pixels:
    """Return a copy of ``(H, W, 3)`` pixels in which the regions are masked.

    Pixels outside the regions are unchanged. With ``blur`` a patch has the mean colours of at most
    4 × 4 cells, interpolated; with ``grey`` it has one colour, the same in every image.
    """
    result = pixels.copy()
    for patch in _patches(regions):
        x1, y1 = (min(region[side] for region in patch) for side in (0, 1))
        x2, y2 = (max(region[side] for region in patch) for side in (2, 3))
        window = result[y1:y2, x1:x2]
        covered = np.zeros(window.shape[:2], dtype=bool)
        for left, top, right, bottom in patch:
            covered[top - y1 : bottom - y1, left - x1 : right - x1] = True
        window[covered] = _GREY if style == "grey" else _smooth(window, covered)[covered]
    return result


def masked_image(data: bytes, regions: Sequence[MaskRegion], *, style: MaskStyle = "blur") -> bytes:
    """Return a stored image with the regions masked, in its format and without metadata.

    In a PNG, all other pixels are unchanged. A JPEG is coded again with its own quantization tables
    and chroma subsampling: its other pixels change by rounding only. A colour profile is kept,
    because it defines the colours.

    Args:
        data: an upright JPEG or PNG, as the lake stores them.
        regions: from ``masked_regions``.
        style: see ``mask_pixels``.

    Raises:
        DataError: the image is damaged.
    """
    masked = Image.fromarray(mask_pixels(decode(data), regions, style=style))
    original = Image.open(io.BytesIO(data), formats=["JPEG", "PNG"])
    profile = original.info.get("icc_profile")
    if original.mode == "L":
        # All three channels are equal.
        masked = masked.convert("L")
    sink = io.BytesIO()
    if isinstance(original, JpegImagePlugin.JpegImageFile):
        sampling = JpegImagePlugin.get_sampling(original)
        masked.save(
            sink,
            format="JPEG",
            qtables=original.quantization,
            subsampling=_SUBSAMPLING.get(sampling, sampling),
            icc_profile=profile,
        )
    else:
        masked.save(sink, format="PNG", icc_profile=profile)
    return sink.getvalue()


def _patches(regions: Sequence[MaskRegion]) -> list[list[MaskRegion]]:
    """Return the regions in groups of those that touch, directly or through others.

    Otherwise several boxes of the same face would show different means of it, and together reveal
    more than one box.
    """
    patches: list[list[MaskRegion]] = []
    for region in regions:
        touching = [patch for patch in patches if any(_touch(region, other) for other in patch)]
        separate = [patch for patch in patches if patch not in touching]
        patches = [*separate, [region, *chain.from_iterable(touching)]]
    return patches


def _touch(a: MaskRegion, b: MaskRegion) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _smooth(window: Pixels, covered: npt.NDArray[np.bool_]) -> Pixels:
    """Return the interpolated mean colours of a window's cells, over the covered pixels only."""
    height, width = covered.shape
    rows = np.linspace(0, height, min(_CELLS, height) + 1).astype(int)
    columns = np.linspace(0, width, min(_CELLS, width) + 1).astype(int)
    whole = np.rint(window[covered].mean(axis=0))
    means = np.empty((len(rows) - 1, len(columns) - 1, 3), dtype=np.uint8)
    for row, (top, bottom) in enumerate(pairwise(rows)):
        for column, (left, right) in enumerate(pairwise(columns)):
            inside = covered[top:bottom, left:right]
            colours = window[top:bottom, left:right][inside]
            means[row, column] = np.rint(colours.mean(axis=0)) if len(colours) else whole
    smooth = Image.fromarray(means).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(smooth)
