"""Which pictures show the same thing again: recompressed, resized or a little brighter."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annotation_platform.images.decoding import Pixels
from annotation_platform.images.hashing import grey, hash_bits

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]

_SAME_PICTURE = 0.985
"""Least correlation of 64 × 64 grey copies; two different pictures of BCCD stay below 0.95."""

_BLOCK = 1 << 16
"""Pairs compared at once: few enough for the cache, enough to hide the cost of a call."""
_WIDEST_BAND = 16


@dataclass(frozen=True)
class Candidate:
    """A picture that may repeat another: positions in the two lists given, and differing bits."""

    new: int
    known: int
    bits: int


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of hashes close to each other, as three arrays of one length.

    ``first`` and ``second`` are positions in the lists given, ``bits`` how many bits differ.
    """

    first: Positions
    second: Positions
    bits: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.first)


def close_hashes(new: Sequence[str], known: Sequence[str], *, bits: int) -> list[Candidate]:
    """Return the pairs of hashes at most ``bits`` apart, nearest first; ties in list order.

    None is missed, see `close_across`. Equal hashes are searched for once, but every pair of them
    is returned: a thousand blank pictures against a thousand are a million pairs.
    """
    if not new or not known:
        return []
    ours, our_places = np.unique(hash_bits(list(new)), return_inverse=True)
    theirs, their_places = np.unique(hash_bits(list(known)), return_inverse=True)
    found = close_across(ours, theirs, bits=bits)
    our_members, their_members = members(our_places), members(their_places)
    every = [
        Candidate(int(one), int(other), int(distance))
        for a, b, distance in zip(found.first, found.second, found.bits, strict=True)
        for one in our_members[a]
        for other in their_members[b]
    ]
    return sorted(every, key=lambda pair: (pair.bits, pair.new, pair.known))


def close_pairs(hashes: Hashes, *, bits: int, bands: int | None = None) -> ClosePairs:
    """Return all pairs among distinct hashes at most ``bits`` apart, ``first < second``, in order.

    None is missed. Norouzi, Punjani and Fleet, "Fast Search in Hamming Space with Multi-Index
    Hashing", 2012: two hashes at most ``bits`` apart are equal, or one bit apart, in one of a few
    bands of their bits, so only hashes that meet in a band are compared. The bands may be allowed
    different distances (as Qin et al., "GPH: Similarity Search in Hamming Space", 2018), and
    balanced bits are dealt out evenly to them. At 8 bits that is one pair in 14 with narrow bands
    and one in 160 with wide ones; what is cheaper for so many hashes is taken. Above about 12 bits
    of 64, bands no longer help and every pair is compared, some 4 × 10⁸ a second.

    Args:
        hashes: ``(N,)``; equal ones are refused, because many equal ones would make the search
            quadratic: collapse them first, with ``np.unique``.
        bits: 0 to 64.
        bands: how many, from half of ``bits + 1`` to ``bits + 1``, or 0 to compare every pair; what
            promises to be cheapest if None. The answer is the same.
    """
    if len(np.unique(hashes)) != len(hashes):
        raise ValueError("equal hashes must be collapsed before the search")
    return _search(hashes, hashes, bits, bands, within=True)


def close_across(new: Hashes, known: Hashes, *, bits: int, bands: int | None = None) -> ClosePairs:
    """Return all pairs of a new and a known hash at most ``bits`` apart, in order.

    As `close_pairs`, between two lists; equal hashes within a list are each reported.
    """
    return _search(new, known, bits, bands, within=False)


def members(classes: npt.NDArray[np.intp]) -> list[Positions]:
    """Return, for each class from 0 on, the ascending positions that belong to it."""
    order = np.argsort(classes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(classes))[:-1])


def groups(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return what the pairs tie together, directly or through others; loners are left out.

    By union-find. Each group is ascending, the groups are in order of their first member.
    """
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    tied: dict[int, list[int]] = {}
    for item in range(count):
        tied.setdefault(root(item), []).append(item)
    return [group for group in tied.values() if len(group) > 1]


def same_picture(a: Pixels, b: Pixels) -> bool:
    """Return whether two pictures with close hashes show the same, by correlation.

    Stricter than what `find_duplicates` calls near, since what repeats a picture is not labelled:
    a crop or a stamp is another picture here. Brightness and contrast do not matter; a picture of
    one flat colour matches nothing.
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


@dataclass(frozen=True)
class _Band:
    """Some bits of a hash, and in how many of them, 0 or 1, two hashes may differ to meet here."""

    bits: tuple[int, ...]
    radius: int

    @property
    def mask(self) -> np.uint64:
        return np.uint64(sum(1 << bit for bit in self.bits))

    def keys(self, hashes: Hashes) -> Positions:
        keys = np.zeros(len(hashes), dtype=np.uint64)
        for place, bit in enumerate(self.bits):
            keys |= (hashes >> np.uint64(bit) & np.uint64(1)) << np.uint64(place)
        return keys.astype(np.int64)


def _search(
    left: Hashes, right: Hashes, bits: int, count: int | None, *, within: bool
) -> ClosePairs:
    empty = np.empty(0, dtype=np.int64)
    found = [(empty, empty, np.empty(0, dtype=np.uint8))]
    if not 0 <= bits <= 64:
        raise ValueError(f"bits must be 0 to 64, not {bits}")
    if len(left) and len(right):
        bands = _plan(left, right, bits, count)
        for number, band in enumerate(bands):
            for first, second, distance in _meet(left, right, band, bits, within=within):
                # What met in an earlier band was reported there.
                differing = left[first] ^ right[second]
                fresh = np.ones(len(first), dtype=bool)
                for earlier in bands[:number]:
                    fresh &= np.bitwise_count(differing & earlier.mask) > earlier.radius
                found.append((first[fresh], second[fresh], distance[fresh]))
    first, second, distances = (np.concatenate(part) for part in zip(*found, strict=True))
    if within:
        first, second = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((second, first))
    return ClosePairs(first[order], second[order], distances[order])


def _plan(left: Hashes, right: Hashes, bits: int, count: int | None) -> list[_Band]:
    """Return so many bands, or as many as promise the least work; one of no bits for all pairs.

    If the radii plus one add up to ``bits + 1``, two hashes that lie further apart than the radius
    in every band differ in more than ``bits`` bits, so none within is missed.
    """
    least, most = (bits + 2) // 2, min(bits + 1, 64)
    if count is not None and count and not least <= count <= most:
        raise ValueError(f"bands must be 0 or {least} to {most}, not {count}")
    ones = [float((left >> np.uint64(bit) & np.uint64(1)).mean()) for bit in range(64)]
    balanced_first = sorted(range(64), key=lambda bit: (round(abs(ones[bit] - 0.5), 3), bit))
    counts = [0, *range(least, most + 1)] if count is None else [count]
    plans = [
        _deal(balanced_first, bits + 1 - each, 2 * each - bits - 1) if each else [_Band((), 0)]
        for each in counts
    ]
    return min(plans, key=lambda plan: sum(_work(band, len(left), len(right)) for band in plan))


def _deal(order: list[int], near_bands: int, equal_bands: int) -> list[_Band]:
    """Return bands of radius one, then of radius zero; the former need some more bits."""
    bands = near_bands + equal_bands
    narrow = max(1, 64 // bands - (3 if near_bands else 0)) if equal_bands else 0
    room = [0] * near_bands + [narrow] * equal_bands
    for place in range(64 - narrow * equal_bands):
        room[place % (near_bands or bands)] += 1
    dealt: list[list[int]] = [[] for _ in room]
    turn = 0
    for bit in order:
        while len(dealt[turn % bands]) >= room[turn % bands]:
            turn += 1
        dealt[turn % bands].append(bit)
        turn += 1
    return [
        _Band(tuple(dealt[place][:_WIDEST_BAND]), int(place < near_bands)) for place in range(bands)
    ]


def _work(band: _Band, left: int, right: int) -> float:
    """Return about how many nanoseconds a band of random hashes takes."""
    keys = 2.0 ** len(band.bits)
    met = left * right / keys * (1 + band.radius * len(band.bits))
    calls = max(min(keys, left), met / _BLOCK)
    return 2.0 * met + 12_000.0 * calls * (1 + band.radius)


def _meet(
    left: Hashes, right: Hashes, band: _Band, bits: int, *, within: bool
) -> Iterator[tuple[Positions, Positions, npt.NDArray[np.uint8]]]:
    """Yield positions in left and right, and distances, of close hashes that meet in a band.

    ``within`` a list a pair comes once, and no hash is its own pair.
    """
    ours, our_order, our_starts = _buckets(left, band)
    theirs, their_order, their_starts = (
        (ours, our_order, our_starts) if within else _buckets(right, band)
    )
    changes = [1 << place for place in range(len(band.bits))] if band.radius else []
    for key in np.flatnonzero(np.diff(our_starts)).tolist():
        low, high = int(our_starts[key]), int(our_starts[key + 1])
        others = [key ^ change for change in changes]
        if within:
            others = [other for other in others if other > key]
        spans = [(their_starts[other], their_starts[other + 1]) for other in [key, *others]]
        columns = np.concatenate([theirs[a:b] for a, b in spans])
        if not len(columns):
            continue
        places = None
        for row, column, distance in _compare(ours[low:high], columns, bits, within=within):
            if places is None:
                places = np.concatenate([their_order[a:b] for a, b in spans])
            yield our_order[low + row], places[column], distance


def _buckets(hashes: Hashes, band: _Band) -> tuple[Hashes, Positions, Positions]:
    """Return the hashes ordered by key, their positions, and where each key starts."""
    keys = band.keys(hashes)
    order = np.argsort(keys, kind="stable")
    starts = np.searchsorted(keys[order], np.arange((1 << len(band.bits)) + 1))
    return hashes[order], order, starts


def _compare(
    rows: Hashes, columns: Hashes, bits: int, *, within: bool
) -> Iterator[tuple[Positions, Positions, npt.NDArray[np.uint8]]]:
    """Yield rows, columns and distances of close hashes, block by block.

    ``within``: the first columns are the rows again, and only pairs above the diagonal count.
    """
    top = 0
    while top < len(rows):
        first_column = top if within else 0
        width = min(len(columns) - first_column, _BLOCK)
        height = max(1, _BLOCK // width)
        block = rows[top : top + height, None]
        for start in range(first_column, len(columns), width):
            distances = np.bitwise_count(block ^ columns[None, start : start + width])
            hits = np.flatnonzero(distances <= bits)
            if len(hits):
                row, column = np.divmod(hits, distances.shape[1])
                row, column = row + top, column + start
                kept = column > row if within else np.ones(len(row), dtype=bool)
                if kept.any():
                    yield row[kept], column[kept], distances.ravel()[hits][kept]
        top += height
