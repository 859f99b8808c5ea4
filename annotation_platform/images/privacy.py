"""Cutting metadata out of a picture file without touching a pixel of it."""

from annotation_platform.errors import DataError

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT",
    b"pHYs", b"bKGD",
}  # fmt: skip
_STANDALONE = {0x01, *range(0xD0, 0xD8)}


def strip_jpeg(data: bytes) -> bytes:
    """Return the JPEG without EXIF, GPS, XMP, comments and whatever follows its end.

    The JFIF header, colour profile and Adobe marker stay, because they say what the colours are.

    Raises:
        DataError: the segments do not add up to a JPEG.
    """
    kept = bytearray(b"\xff\xd8")
    position = 2
    while True:
        marker, start, end = _jpeg_segment(data, position)
        if marker == 0xD9:
            return bytes(kept + b"\xff\xd9")
        if marker == 0xDA:
            scan_end = _end_of_scan(data, end)
            kept += data[start:scan_end]
            position = scan_end
            continue
        if _keeps_colour(marker, data[start + 4 : end]):
            kept += data[start:end]
        position = end


def strip_png(data: bytes) -> bytes:
    """Return the PNG without text, EXIF, times and whatever follows its end; DataError if cut."""
    kept = bytearray(_PNG_SIGNATURE)
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 12 + length
        if end > len(data):
            break
        if kind in _PNG_KEPT:
            kept += data[position:end]
        if kind == b"IEND":
            return bytes(kept)
        position = end
    raise DataError("damaged image: the PNG ends before its last chunk")


def _jpeg_segment(data: bytes, position: int) -> tuple[int, int, int]:
    """Return marker, start and end of the segment at ``position``; fill bytes are skipped."""
    if position >= len(data) or data[position] != 0xFF:
        raise DataError("damaged image: a JPEG segment is missing")
    while position + 1 < len(data) and data[position + 1] == 0xFF:
        position += 1
    if position + 2 > len(data):
        raise DataError("damaged image: the JPEG ends inside a segment")
    marker = data[position + 1]
    if marker == 0xD9 or marker in _STANDALONE:
        return marker, position, position + 2
    end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    if end > len(data) or end < position + 4:
        raise DataError("damaged image: a JPEG segment is cut")
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
