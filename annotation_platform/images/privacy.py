"""The parts of an image file: removing metadata without changing pixels, and finding the end."""

import re

from annotation_platform.errors import DataError

MOST_PARTS = 100_000
"""Chunks or segments of one image; a PNG of 200 MB has some 25,000."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT",
    b"pHYs", b"bKGD",
}  # fmt: skip
_GIF_BLOCK = re.compile(rb"[\x21\x2c\x3b]")
_NO_FILL = re.compile(rb"[^\xff]")
_STANDALONE = {0x01, *range(0xD0, 0xD8)}


def strip_jpeg(data: bytes) -> bytes:
    """Return the JPEG without EXIF, GPS, XMP, comments and trailing data.

    The JFIF header, colour profile and Adobe marker are kept, because they define the colours.

    Raises:
        DataError: the segments do not form a JPEG.
    """
    return _walk_jpeg(data)[0]


def strip_png(data: bytes) -> bytes:
    """Return the PNG without text, EXIF, times and trailing data; DataError if truncated."""
    return _walk_png(data)[0]


def image_end(data: bytes, kind: str) -> int:
    """Return the position after the image's last byte; later bytes are not part of it.

    ``kind`` is Pillow's name of the format. Formats without a marked end, and those that may hold
    further images after the first, end with the file. An image without its end marker ends beyond
    the file.
    """
    if kind == "JPEG":
        return _walk_jpeg(data)[1]
    if kind == "PNG":
        return _walk_png(data)[1]
    if kind == "GIF":
        return gif_frames(data, most=len(data))[1]
    if kind == "WEBP":
        size = int.from_bytes(data[4:8], "little")
        return 8 + size + size % 2 if len(data) != 8 + size else len(data)
    return len(data)


def count_parts(data: bytes, *, most: int) -> int:
    """Return the number of chunks of a PNG, or of segments and fill bytes before a JPEG's scan.

    Counting stops beyond ``most``, because decoders process the parts one by one. The number is 0
    for other formats.

    Raises:
        DataError: the segments do not form a JPEG.
    """
    parts, position = 0, 2
    if data.startswith(_PNG_SIGNATURE):
        position = len(_PNG_SIGNATURE)
        while position + 12 <= len(data) and parts <= most:
            position += 12 + int.from_bytes(data[position : position + 4], "big")
            parts += 1
    elif data[:2] == b"\xff\xd8":
        marker = 0
        while marker not in {0xD9, 0xDA} and parts <= most:
            marker, start, end = _jpeg_segment(data, position)
            parts += 1 + start - position
            position = end
    return parts


def gif_frames(data: bytes, *, most: int) -> tuple[int, int]:
    """Return the number of frames of a GIF, at most ``most`` + 1, and its end.

    A truncated GIF ends one byte beyond the file.
    """
    beyond = len(data) + 1
    if len(data) < 13:
        return 0, beyond
    frames, position = 0, 13 + _gif_colours(data[10])
    while position < len(data):
        block = data[position]
        if block == 0x3B:
            return frames, position + 1
        if block == 0x21:
            position += 2
        elif block == 0x2C and position + 9 < len(data):
            frames += 1
            if frames > most:
                return frames, beyond
            position += 11 + _gif_colours(data[position + 9])
        else:
            # Decoders skip bytes between blocks.
            following = _GIF_BLOCK.search(data, position + 1)
            position = following.start() if following else beyond
            continue
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
    return frames, beyond


def webp_frames(data: bytes, *, most: int) -> int:
    """Return the number of frames of a WebP, at most ``most`` + 1; a still image has one."""
    frames, position = 0, 12
    while position + 8 <= len(data) and frames <= most:
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        frames += data[position : position + 4] == b"ANMF"
        position += 8 + length + length % 2
    return max(1, frames)


def _gif_colours(packed: int) -> int:
    return 3 * 2 ** ((packed & 7) + 1) if packed & 0x80 else 0


def _walk_jpeg(data: bytes) -> tuple[bytes, int]:
    """Return the JPEG without its metadata, and its end in ``data``."""
    stripped = bytearray(b"\xff\xd8")
    position, parts = 2, 0
    while True:
        parts += 1
        if parts > MOST_PARTS:
            raise DataError(f"too many parts: more than {MOST_PARTS} segments")
        marker, start, end = _jpeg_segment(data, position)
        if marker == 0xD9:
            return bytes(stripped + b"\xff\xd9"), end
        if marker == 0xDA:
            scan_end = _end_of_scan(data, end)
            stripped += data[start:scan_end]
            position = scan_end
            continue
        if _keeps_colour(marker, data[start + 4 : end]):
            stripped += data[start:end]
        position = end


def _walk_png(data: bytes) -> tuple[bytes, int]:
    """Return the PNG without its metadata, and its end in ``data``."""
    stripped = bytearray(_PNG_SIGNATURE)
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            break
        if kind in _PNG_KEPT:
            stripped += data[position:end]
        if kind == b"IEND":
            return bytes(stripped), end
        position = end
    raise DataError("damaged image: the PNG ends before its last chunk")


def _jpeg_segment(data: bytes, position: int) -> tuple[int, int, int]:
    """Return marker, start and end of the segment at ``position``; fill bytes are skipped."""
    if position >= len(data) or data[position] != 0xFF:
        raise DataError("damaged image: a JPEG segment is missing")
    marker_at = _NO_FILL.search(data, position)
    position = marker_at.start() - 1 if marker_at else len(data)
    if position + 2 > len(data):
        raise DataError("damaged image: the JPEG ends inside a segment")
    marker = data[position + 1]
    if marker == 0xD9 or marker in _STANDALONE:
        return marker, position, position + 2
    end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    if end > len(data) or end < position + 4:
        raise DataError("damaged image: a JPEG segment is truncated")
    return marker, position, end


def _end_of_scan(data: bytes, position: int) -> int:
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 1 >= len(data):
            raise DataError("damaged image: the JPEG has no end")
        follower = data[position + 1]
        if follower != 0x00 and follower not in _STANDALONE and follower != 0xFF:
            return position
        position += 1 if follower == 0xFF else 2


def _keeps_colour(marker: int, payload: bytes) -> bool:
    if marker == 0xE2:
        return payload.startswith(b"ICC_PROFILE\0")
    is_application_data = 0xE1 <= marker <= 0xEF and marker != 0xEE
    return not is_application_data and marker != 0xFE
