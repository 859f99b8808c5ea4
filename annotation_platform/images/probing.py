"""Probing an image: decoding it once, measuring it, and preparing the bytes to store."""

import hashlib
import threading
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import (
    DecodedImage,
    Header,
    Pixels,
    decode_image,
    encode_png,
    pixel_sha256,
    read_header,
    true_extension,
)
from annotation_platform.images.privacy import image_end, strip_jpeg, strip_png
from annotation_platform.images.quality import is_uniform, measure, unusable
from annotation_platform.images.reduced import reduced
from annotation_platform.images.signature import Signature, signature
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.tables import CleanedImages

CONVERTED = "converted_from_"
"""Prefix of the flag of an image that is stored in another format or mode."""
_PLAIN_MODES = {"JPEG": {"L", "RGB"}, "MPO": {"L", "RGB"}, "PNG": {"L", "RGB", "P", "1"}}
_LARGE_PIXELS = 16_000_000
_large = threading.Lock()
"""Allows one image of more than ``_LARGE_PIXELS`` at a time, to limit the memory."""


@dataclass(frozen=True)
class Probe:
    """The result of probing an image.

    ``facts`` are columns of ``cleaned_images``, empty if the image cannot be decoded; ``reason``
    says why it cannot be labelled, empty if it can; ``format`` is that of the original bytes,
    whatever their name; ``signature`` is for finding duplicates.
    """

    facts: dict[str, object] = field(default_factory=dict)
    reason: str = ""
    format: str = ""
    signature: Signature | None = None


def probe_image(raw: bytes, policy: CleaningPolicy) -> Probe:
    """Return the result of probing the bytes of an image; a DataError if they are not an image."""
    if len(raw) > policy.maximum_bytes:
        raise DataError(f"too many bytes: {len(raw)}, at most {policy.maximum_bytes}")
    header = read_header(
        raw, maximum_pixels=policy.maximum_pixels, maximum_frames=policy.maximum_frames
    )
    with _memory_for(header.width * header.height):
        image = decode_image(raw)
        data, extension, flags = _to_store(raw, header, image)
        return _measured(image.pixels, data, extension, header, flags, policy)


def stored_bytes(raw: bytes, pixels: int, *, is_converted: bool) -> bytes:
    """Return the bytes to store of an image: its coded data without metadata, or a new PNG.

    Args:
        raw: the original bytes.
        pixels: number of pixels of the image.
        is_converted: whether the image is stored as a new PNG, from its flags (`CONVERTED`).

    Raises:
        DataError: the bytes are not such an image.
    """
    if not is_converted:
        return strip_jpeg(raw) if raw[:2] == b"\xff\xd8" else strip_png(raw)
    with _memory_for(pixels):
        return encode_png(decode_image(raw).pixels)


def _memory_for(pixels: int) -> AbstractContextManager[object]:
    """Return the lock to hold while an image of this number of pixels is decoded."""
    return _large if pixels > _LARGE_PIXELS else nullcontext()


def _measured(
    pixels: Pixels,
    data: bytes,
    extension: str,
    header: Header,
    flags: list[str],
    policy: CleaningPolicy,
) -> Probe:
    height, width = pixels.shape[:2]
    small = reduced(pixels)
    quality, found = measure(small), signature(small)
    if is_uniform(quality):
        flags = [*flags, "uniform"]
    facts: dict[str, object] = {
        CleanedImages.width: width,
        CleanedImages.height: height,
        CleanedImages.extension: extension,
        CleanedImages.stored_sha256: hashlib.sha256(data).hexdigest(),
        CleanedImages.stored_md5: hashlib.md5(data, usedforsecurity=False).hexdigest(),
        CleanedImages.stored_bytes: len(data),
        CleanedImages.pixel_sha256: pixel_sha256(pixels),
        CleanedImages.perceptual_hash: found.perceptual_hash,
        CleanedImages.sharpness: quality.sharpness,
        CleanedImages.brightness: quality.brightness,
        CleanedImages.entropy: quality.entropy,
        CleanedImages.flags: ",".join(flags),
    }
    reason = unusable(quality, width=width, height=height, policy=policy)
    return Probe(facts, reason, header.format, found)


def _to_store(raw: bytes, header: Header, image: DecodedImage) -> tuple[bytes, str, list[str]]:
    """Return the bytes to store, their extension, and flags of problems and changes."""
    flags = ["multi_frame"] if header.frames > 1 else []
    flags += image.remarks
    end = image_end(raw, header.format)
    if end != len(raw):
        flags.append("trailing_data" if end < len(raw) else "end_missing")
    is_plain = header.mode in _PLAIN_MODES.get(header.format, set()) and not image.transparent
    if is_plain and image.orientation == 1:
        stripped = strip_png(raw) if header.format == "PNG" else strip_jpeg(raw)
        if stripped != raw[:end]:
            flags.append("metadata_cut")
        return stripped, true_extension(header), flags
    if image.orientation != 1:
        flags.append("rotated")
    flags.append(f"{CONVERTED}{header.format}_{header.mode}")
    return encode_png(image.pixels), "png", flags
