"""From bytes to pixels: strictly, so that a damaged picture is refused and never half grey."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from annotation_platform.errors import DataError

Pixels = npt.NDArray[np.uint8]

_EXTENSIONS = {"JPEG": "jpg", "PNG": "png"}
_OTHER_FORMATS = ("BMP", "GIF", "TIFF", "WEBP", "PPM")
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture declare, read before anything is decoded."""

    format: str
    mode: str
    width: int
    height: int
    frames: int
    orientation: int


def read_header(data: bytes) -> Header:
    """Return what the picture says of itself; bytes that are no picture are a DataError."""
    if not data:
        raise DataError("empty file")
    try:
        with warnings.catch_warnings():
            # The pixel limit is the policy's, checked by the caller on this header.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _open(data)
            orientation = int(image.getexif().get(_ORIENTATION, 1) or 1)
            frames = int(getattr(image, "n_frames", 1))
    except Image.DecompressionBombError as error:
        raise DataError("too many pixels") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, TypeError) as error:
        raise DataError("not an image") from error
    return Header(
        format=str(image.format),
        mode=image.mode,
        width=image.width,
        height=image.height,
        frames=frames,
        orientation=orientation if 1 <= orientation <= 8 else 1,
    )


def decode(data: bytes) -> Pixels:
    """Return the ``(H, W, 3)`` RGB pixels of an upright picture.

    EXIF orientation is applied; grey, palette, 16-bit, CMYK and transparent pictures become RGB,
    transparency on white; of an animation the first frame is taken.

    Raises:
        DataError: the picture is truncated or damaged. JPEGs are decoded strictly: libjpeg's
            warnings, which other decoders swallow, count as damage.
    """
    try:
        if data[:2] == b"\xff\xd8":
            simplejpeg.decode_jpeg(data, strict=True)
        elif data[:8] == b"\x89PNG\r\n\x1a\n":
            _open(data).verify()
        image = _open(data)
        image.load()
        upright = ImageOps.exif_transpose(image)
        return np.asarray(_as_rgb(upright), dtype=np.uint8)
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        TypeError,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"damaged image: {' '.join(str(error).split())[:120]}") from error


def encode_png(pixels: Pixels) -> bytes:
    """Return the pixels as a PNG: lossless, and the same bytes for the same pixels."""
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG", compress_level=6)
    return sink.getvalue()


def true_extension(header: Header) -> str:
    """Return the file extension under which this kind of picture is stored."""
    return _EXTENSIONS.get(header.format, "png")


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=[*_EXTENSIONS, *_OTHER_FORMATS])


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in {"I;16", "I;16B", "I;16L", "I"}:
        scaled = np.asarray(image, dtype=np.float64) / 257.0
        return Image.fromarray(np.clip(scaled, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "P"} and (
        image.mode != "P" or "transparency" in image.info
    ):
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")
