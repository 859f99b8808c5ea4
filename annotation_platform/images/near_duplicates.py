"""Which pictures show the same thing again: recompressed, resized or a little brighter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from annotation_platform.images.decoding import Pixels
from annotation_platform.images.hashing import grey, hash_bits

_SAME_PICTURE = 0.985
"""Least correlation of 64 × 64 grey copies; two different pictures of BCCD stay below 0.95."""


@dataclass(frozen=True)
class Candidate:
    """A picture that may repeat another: positions in the two lists given, and differing bits."""

    new: int
    known: int
    bits: int


def close_hashes(new: Sequence[str], known: Sequence[str], *, bits: int) -> list[Candidate]:
    """Return the pairs of hashes at most ``bits`` apart, nearest first; ties in list order.

    Every new hash is compared with every known one, at about 10⁸ pairs a second.
    """
    if not new or not known:
        return []
    ours, theirs = hash_bits(list(new)), hash_bits(list(known))
    found = []
    for position, value in enumerate(ours):
        distances = np.bitwise_count(theirs ^ value)
        for other in np.flatnonzero(distances <= bits):
            found.append(Candidate(position, int(other), int(distances[other])))
    return sorted(found, key=lambda pair: (pair.bits, pair.new, pair.known))


def same_picture(a: Pixels, b: Pixels) -> bool:
    """Return whether two pictures with close hashes show the same, by correlation.

    Brightness and contrast do not matter; a picture of one flat colour matches nothing.
    """
    if abs(a.shape[1] / a.shape[0] - b.shape[1] / b.shape[0]) > 0.02:
        return False
    first, second = grey(a, 64, 64).ravel(), grey(b, 64, 64).ravel()
    if first.std() < 1.0 or second.std() < 1.0:
        return False
    return float(np.corrcoef(first, second)[0, 1]) >= _SAME_PICTURE


def confirmed(
    pairs: Sequence[Candidate],
    load_new: Callable[[int], Pixels],
    load_known: Callable[[int], Pixels],
) -> dict[int, int]:
    """Return, for each new picture that repeats a known one, the position of the nearest."""
    matches: dict[int, int] = {}
    for pair in pairs:
        if pair.new in matches:
            continue
        if same_picture(load_new(pair.new), load_known(pair.known)):
            matches[pair.new] = pair.known
    return matches
