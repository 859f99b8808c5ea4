"""Label Studio's run-length encoding of brush masks: decoding and encoding.

The code is that of ``@thi.ng/rle-pack``, with which Label Studio's front end packs the image's
pixels, red, green, blue and alpha of each, row by row. It is a string of bits: the number of values
(32 bits), bits of a value less one (5 bits), four lengths less one (4 bits each), then chunks. A
chunk is one bit (a run, or single values), two bits that choose one of the four lengths, the
number of values less one in that many bits, and either one value or all of them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.bool_]

_CHANNELS = 4
_HEADER_BITS = 53
_RUN_BITS = (3, 4, 8, 16)
_LONGEST_RUN = 1 << _RUN_BITS[-1]
_HALF_COVERED = 128


def decode_mask(code: object, width: int, height: int) -> Pixels:
    """Return the ``(height, width)`` pixels that a brush covers by at least half.

    A brush has a soft edge: a pixel's alpha is its covered share. The other channels have the same
    values or the colour of the class, and are ignored.

    Args:
        code: ``value.rle`` of a region: a list of bytes.
        width: width of the image in pixels.
        height: height of the image in pixels.

    Raises:
        ValueError: the code is damaged, or is not that of an image of this size.
    """
    data = _bytes(code)
    header = int.from_bytes(data[:7].ljust(7, b"\0"), "big") >> 3
    count = header >> 21
    if len(data) * 8 < _HEADER_BITS or (header >> 16) & 31 != 7:
        raise ValueError("its code does not begin as a mask's does")
    if count != width * height * _CHANNELS:
        raise ValueError(
            f"its code has {count} values, an image of {width} × {height} pixels "
            f"has {width * height * _CHANNELS}"
        )
    sizes = [((header >> shift) & 15) + 1 for shift in (12, 8, 4, 0)]
    values = _unpack(data, sizes, count)
    return (values.reshape(height, width, _CHANNELS)[:, :, 3] >= _HALF_COVERED).copy()


def encode_mask(pixels: Pixels) -> list[int]:
    """Return the code of a ``(height, width)`` mask for Label Studio: a list of bytes.

    Raises:
        ValueError: the image has 2^30 pixels or more, which the code cannot count.
    """
    flat = np.asarray(pixels, dtype=bool).ravel()
    count = flat.size * _CHANNELS
    if not 0 < count < 1 << 32:
        raise ValueError(f"a mask of {flat.size} pixels has no code")
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    lengths = np.diff(starts, append=flat.size) * _CHANNELS
    # A chunk holds at most 65,536 values: a longer run is several chunks.
    chunks = -(-lengths // _LONGEST_RUN)
    sizes = np.full(int(chunks.sum()), _LONGEST_RUN)
    sizes[np.cumsum(chunks) - 1] = lengths - (chunks - 1) * _LONGEST_RUN
    tokens, bits = _tokens(sizes, np.repeat(flat[starts] * 255, chunks))
    rows = np.unpackbits(
        (tokens << (32 - bits)).astype(">u4").view(np.uint8).reshape(-1, 4), axis=1
    )
    header = (count << 5 | 7) << 16
    for size, shift in zip(_RUN_BITS, (12, 8, 4, 0), strict=True):
        header |= (size - 1) << shift
    first = np.unpackbits(np.frombuffer((header << 3).to_bytes(7, "big"), np.uint8))[:_HEADER_BITS]
    body = rows[np.arange(32) < bits[:, None]]
    packed: list[int] = np.packbits(np.concatenate([first, body])).tolist()
    return packed


def _bytes(code: object) -> bytes:
    if not isinstance(code, list):
        raise ValueError(f"its code is no list of bytes but {type(code).__name__}")  # noqa: TRY004
    try:
        return bytes(code)
    except (TypeError, ValueError) as error:
        raise ValueError("its code is no list of whole numbers from 0 to 255") from error


def _unpack(data: bytes, sizes: Sequence[int], count: int) -> npt.NDArray[np.uint8]:
    values = np.zeros(count, dtype=np.uint8)
    padded = data + bytes(8)
    position, filled = _HEADER_BITS, 0
    while filled < count:
        start = position >> 3
        # 64 bits hold all that precedes a chunk's values, at any offset in a byte.
        window = int.from_bytes(padded[start : start + 8], "big") << (position & 7)
        size = sizes[(window >> 61) & 3]
        number = ((window >> (61 - size)) & ((1 << size) - 1)) + 1
        is_run = (window >> 63) & 1
        position += 3 + size
        used = position + 8 * (1 if is_run else number)
        if used > len(data) * 8 or filled + number > count:
            raise ValueError("its code breaks off or runs past its end")
        values[filled : filled + number] = (
            (window >> (53 - size)) & 255 if is_run else _octets(data, position, number)
        )
        position, filled = used, filled + number
    return values


def _octets(data: bytes, position: int, number: int) -> npt.NDArray[np.uint8]:
    first, last = position >> 3, (position + 8 * number + 7) >> 3
    bits = np.unpackbits(np.frombuffer(data[first:last], np.uint8))
    offset = position & 7
    return np.packbits(bits[offset : offset + 8 * number])


def _tokens(
    sizes: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return each chunk as a number, and how many bits of it count."""
    kinds = np.searchsorted([1 << bits for bits in _RUN_BITS[:-1]], sizes)
    length_bits = np.array(_RUN_BITS)[kinds]
    tokens = ((4 | kinds) << (length_bits + 8)) | ((sizes - 1) << 8) | values
    return tokens.astype(np.uint32), (3 + length_bits + 8).astype(np.uint32)
