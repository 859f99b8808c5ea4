"""Strict decoding of images: a damaged image is refused, never decoded in part.

Every image is converted to 8-bit RGB by one rule per kind:

- grey, palette and black-and-white: their colours;
- transparency, as a channel or as one colour: flattened on white;
- 16 bits per channel: scaled from the full range of the declared bits, without clipping;
- 32-bit integers beyond 16 bits, and floating point: scaled from the least to the greatest value;
- CMYK: JPEG in Adobe's inverted form, as in browsers; without colour management;
- LAB: converted to sRGB by its colour profile;
- animations and multi-page documents: the first frame.
"""

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageCms, TiffImagePlugin

from annotation_platform.errors import DataError
from annotation_platform.images.privacy import MOST_PARTS, count_parts, gif_frames, webp_frames

Pixels = npt.NDArray[np.uint8]

_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png"}
_NAMES = {
    "JPEG": {"jpg", "jpeg", "jpe", "jfif"},
    "MPO": {"jpg", "jpeg", "jpe", "jfif", "mpo"},
    "PNG": {"png", "apng"},
    "BMP": {"bmp", "dib"},
    "GIF": {"gif"},
    "TIFF": {"tif", "tiff"},
    "WEBP": {"webp"},
    "PPM": {"ppm", "pgm", "pbm", "pnm", "pfm"},
}
# Pillow detects MPO itself: a JPEG that is the first of several images.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_ALLOWED = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*",
    b"II+\0", b"MM\0+", b"RIFF",
)  # fmt: skip
_REFUSED = {
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"\0\0\1\0": "ICO",
    b"8BPS": "PSD",
    b"%PDF": "PDF",
    b"icns": "ICNS",
    b"DDS ": "DDS",
    b"BLP": "BLP",
}
_ORIENTATION = 0x0112
_MOST_SCANS = 1000
_SCANS_OF_LARGEST = 20
"""Limit of scans for a JPEG with the maximum of pixels; a progressive JPEG has about ten."""
_BAND_PIXELS = 4_000_000
"""Pixels of a band; converting colours band by band holds a large image in memory only twice."""
_FAST_PNG_PIXELS = 4_000_000

# Pillow's plugins raise any of these for hostile bytes.
_PILLOW_RAISES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    ImageCms.PyCMSError,
)


@dataclass(frozen=True)
class Header:
    """The properties that an image declares, read before it is decoded."""

    format: str
    mode: str
    width: int
    height: int
    frames: int


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image.

    ``pixels`` are ``(H, W, 3)`` RGB and upright; ``orientation``, 1 to 8, is the one that was
    undone; ``remarks`` lists tolerated problems: ``bad_orientation``, ``bad_metadata``, or
    ``levels_stretched`` if the range of the values was guessed.
    """

    pixels: Pixels
    orientation: int
    transparent: bool
    remarks: tuple[str, ...] = ()


def read_header(data: bytes, *, maximum_pixels: int, maximum_frames: int) -> Header:
    """Return the declared properties of an image, without allocating memory for its pixels.

    Raises:
        DataError: the bytes are not an image, of a format that is not allowed, or over a limit.
    """
    _check_kind(data)
    frames = gif_frames(data, most=maximum_frames)[0] if data[:3] == b"GIF" else 0
    frames = frames or (webp_frames(data, most=maximum_frames) if data[:4] == b"RIFF" else 0)
    try:
        image = _open(data)
        _check_pixels(image, data, maximum_pixels)
        frames = frames or _count_frames(image, maximum_frames)
    except Image.DecompressionBombError as error:
        raise DataError(f"too many pixels: at most {maximum_pixels}") from error
    except _PILLOW_RAISES as error:
        if data.startswith(_ALLOWED):
            raise DataError(f"damaged image: {_one_line(error)}") from error
        raise DataError("not an image") from error
    if frames > maximum_frames:
        raise DataError(f"too many frames: at most {maximum_frames}")
    return Header(str(image.format), image.mode, image.width, image.height, frames)


def decode(data: bytes) -> Pixels:
    """Return the ``(H, W, 3)`` RGB pixels of an upright image; see ``decode_image``."""
    return decode_image(data).pixels


def decode_image(data: bytes) -> DecodedImage:
    """Return an image upright and in RGB, by the rules of this module.

    The EXIF orientation is applied; a value outside 1 to 8 is ignored and added to ``remarks``.

    Raises:
        DataError: the image is truncated or damaged. JPEGs are decoded strictly: libjpeg's
            warnings, which other decoders ignore, count as damage.
    """
    try:
        if data[:2] == b"\xff\xd8":
            return _decode_jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            # Loading ignores wrong checksums; only `verify` checks them.
            _open(data).verify()
        image = _open(data)
        bits, turned = _tiff_facts(image)
        image.load()
        transparent = _is_transparent(image)
        orientation, remarks = (turned, ()) if turned else _orientation(image)
        stretch = _range(image, bits)
        if stretch is not None and stretch[2]:
            remarks = (*remarks, "levels_stretched")
        pixels = _as_rgb(image, stretch)
    except _PILLOW_RAISES as error:
        raise DataError(f"damaged image: {_one_line(error)}") from error
    # Pillow applies the orientation itself when it loads a TIFF, and for no other format.
    upright = pixels if turned else _turn(pixels, orientation)
    return DecodedImage(upright, orientation, transparent, remarks)


def read_orientation(data: bytes) -> int:
    """Return the EXIF orientation, 1 to 8, that ``decode_image`` undoes, usually from the header.

    A missing or invalid orientation is 1. Call ``read_header`` before it to check the limits: a
    PNG with its EXIF after the pixels is decoded.

    Raises:
        DataError: the bytes are not an image.
    """
    try:
        image = _open(data)
        _, turned = _tiff_facts(image)
        return turned or _orientation(image)[0]
    except _PILLOW_RAISES as error:
        raise DataError(f"damaged image: {_one_line(error)}") from error


def pixel_sha256(pixels: Pixels) -> str:
    """Return the SHA-256 of an image's size and pixels, whatever its coding."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def encode_png(pixels: Pixels) -> bytes:
    """Return the pixels as a lossless PNG; equal pixels give equal bytes."""
    sink = io.BytesIO()
    large = pixels.shape[0] * pixels.shape[1] > _FAST_PNG_PIXELS
    # At the low level a photograph is a tenth larger and written in a third of the time.
    Image.fromarray(pixels).save(sink, format="PNG", compress_level=1 if large else 6)
    return sink.getvalue()


def true_extension(header: Header) -> str:
    """Return the file extension under which an image of this format is stored."""
    return _EXTENSIONS.get(header.format, "png")


def misnamed(name: str, kind: str) -> bool:
    """Return whether a file's extension is that of another format; False without an extension."""
    _, dot, ending = name.rpartition("/")[2].rpartition(".")
    return bool(dot) and kind in _NAMES and ending.lower() not in _NAMES[kind]


def _check_kind(data: bytes) -> None:
    if not data:
        raise DataError("empty file")
    for magic, kind in _REFUSED.items():
        if data.startswith(magic):
            raise DataError(f"format not allowed: {kind}")
    if data[4:8] == b"ftyp":
        raise DataError("format not allowed: AVIF, HEIC or video")
    if b"<svg" in data[:1024].lower():
        raise DataError("format not allowed: SVG")
    if count_parts(data, most=MOST_PARTS) > MOST_PARTS:
        raise DataError(f"too many parts: more than {MOST_PARTS} chunks or segments")


def _check_pixels(image: Image.Image, data: bytes, maximum_pixels: int) -> None:
    width, height = image.size
    if width * height > maximum_pixels:
        raise DataError(f"too many pixels: {width}x{height}, at most {maximum_pixels}")
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tile = int(image.tag_v2.get(322, 0)), int(image.tag_v2.get(323, 0))
        if tile[0] * tile[1] > maximum_pixels:
            raise DataError(f"too many pixels: tiles of {tile[0]}x{tile[1]}")
    if data[:2] == b"\xff\xd8":
        # A scan of a few bytes makes the decoder process all pixels again.
        scans = data.count(b"\xff\xda")
        if scans > _MOST_SCANS or scans * width * height > _SCANS_OF_LARGEST * maximum_pixels:
            raise DataError(f"too many scans: {scans}")


def _count_frames(image: Image.Image, most: int) -> int:
    """Return the number of frames, or ``most`` + 1 if there are more."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return int(getattr(image, "n_frames", 1))
    count = 1
    try:
        while count <= most:
            image.seek(count)
            count += 1
    except EOFError:
        pass
    image.seek(0)
    return count


def _decode_jpeg(data: bytes) -> DecodedImage:
    image = _open(data)
    if image.mode in {"L", "RGB"}:
        pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    else:
        simplejpeg.decode_jpeg(data, colorspace="CMYK", strict=True)
        image.load()
        pixels = _as_rgb(image, None)
    orientation, remarks = _orientation(image)
    return DecodedImage(_turn(pixels, orientation), orientation, transparent=False, remarks=remarks)


def _tiff_facts(image: Image.Image) -> tuple[int, int]:
    """Return bits per sample and orientation of an unloaded TIFF; 16 and 0 for other formats."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16, 0
    bits = image.tag_v2.get(258, (16,))
    orientation = image.tag_v2.get(_ORIENTATION, 1)
    known = isinstance(orientation, int) and 2 <= orientation <= 8
    return int(bits[0]), int(orientation) if known else 0


def _orientation(image: Image.Image) -> tuple[int, tuple[str, ...]]:
    """Return the orientation to apply, and remarks on the declared one."""
    try:
        declared: Any = image.getexif().get(_ORIENTATION, 1)
    except _PILLOW_RAISES:
        return 1, ("bad_metadata",)
    if isinstance(declared, int) and 1 <= declared <= 8:
        # Pillow has applied the orientation of a TIFF already.
        return (1, ()) if isinstance(image, TiffImagePlugin.TiffImageFile) else (declared, ())
    return 1, ("bad_orientation",)


def _turn(pixels: Pixels, orientation: int) -> Pixels:
    """Return the pixels upright: the turn by EXIF's ``orientation`` undone."""
    if orientation == 1:
        return pixels
    across = pixels.swapaxes(0, 1) if orientation >= 5 else pixels
    rows = slice(None, None, -1 if orientation in {3, 4, 7, 8} else 1)
    columns = slice(None, None, -1 if orientation in {2, 3, 6, 7} else 1)
    return np.ascontiguousarray(across[rows, columns])


def _is_transparent(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "RGBa", "LA", "La", "PA"} or "transparency" in image.info


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=_FORMATS)


def _bands(image: Image.Image) -> list[tuple[int, int]]:
    step = max(1, _BAND_PIXELS // max(1, image.width))
    return [(top, min(top + step, image.height)) for top in range(0, image.height, step)]


def _band(image: Image.Image, top: int, bottom: int) -> Image.Image:
    return image.crop((0, top, image.width, bottom))


def _range(image: Image.Image, bits: int) -> tuple[float, float, bool] | None:
    """Return the values of black and white, and whether they are guessed; None for 8 bits."""
    if image.mode.startswith("I;16"):
        return 0.0, float(2 ** min(bits, 16) - 1), False
    if image.mode not in {"I", "F"}:
        return None
    low, high = np.inf, -np.inf
    for top, bottom in _bands(image):
        values = np.asarray(_band(image, top, bottom))
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if image.mode == "I" and low >= 0 and high <= 65535:
        return 0.0, 65535.0, False
    return (low, high, True) if high > low else (0.0, 1.0, True)


def _as_rgb(image: Image.Image, stretch: tuple[float, float, bool] | None) -> Pixels:
    lab = _lab_to_rgb() if image.mode == "LAB" else None
    result = np.empty((image.height, image.width, 3), dtype=np.uint8)
    for top, bottom in _bands(image):
        band = _band(image, top, bottom)
        if stretch is not None:
            low, high, _ = stretch
            values = np.nan_to_num(np.asarray(band, dtype=np.float32), nan=low)
            scaled = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255)
            result[top:bottom] = scaled.astype(np.uint8)[..., np.newaxis]
        elif lab is not None:
            result[top:bottom] = np.asarray(ImageCms.applyTransform(band, lab))
        elif _is_transparent(image):
            white = Image.new("RGBA", band.size, (255, 255, 255, 255))
            flat = Image.alpha_composite(white, _with_alpha(band))
            result[top:bottom] = np.asarray(flat.convert("RGB"))
        else:
            result[top:bottom] = np.asarray(band.convert("RGB"))
    return result


def _with_alpha(image: Image.Image) -> Image.Image:
    straight = {"RGBa": "RGBA", "La": "LA"}.get(image.mode, image.mode)
    return image.convert(straight).convert("RGBA")


def _lab_to_rgb() -> ImageCms.ImageCmsTransform:
    profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    return ImageCms.buildTransform(*profiles, "LAB", "RGB")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
