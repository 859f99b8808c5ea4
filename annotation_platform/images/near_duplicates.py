"""An exact search for close hashes that compares far fewer pairs than all."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]
Bits = npt.NDArray[np.uint8]

_Part = tuple[Positions, Positions, Bits]
_GATHERED = 1 << 18
_FEW_PAIRS = 10_000_000
"""Below this number of pairs, all are compared without a plan."""
_SAMPLE = 1 << 12
"""Hashes of a list from which the share of pairs that meet in a band is estimated."""
_BLOCK = 1 << 16
"""Pairs compared at once: few enough for the cache, enough to amortize the cost of a call."""
_WIDEST_BAND = 16
_HELD = 1 << 22
"""Pairs held in memory before those beyond ``most`` are dropped."""


@dataclass(frozen=True)
class ClosePairs:
    """Pairs of close hashes, as three arrays of one length.

    ``first`` and ``second`` are positions in the given lists, ``bits`` the number of differing
    bits.
    """

    first: Positions
    second: Positions
    bits: Bits

    def __len__(self) -> int:
        return len(self.first)


def close_across(
    new: Hashes,
    known: Hashes,
    *,
    bits: int,
    bands: int | None = None,
    before: Positions | None = None,
    most: int | None = None,
) -> ClosePairs:
    """Return all pairs of a new and a known hash at most ``bits`` apart, in order.

    No pair is missed, and each of several equal hashes in a list is reported. Norouzi, Punjani and
    Fleet, "Fast Search in Hamming Space with Multi-Index Hashing", 2012: two hashes at most
    ``bits`` apart are equal, or one bit apart, in one of a few bands of their bits, so only hashes
    that meet in a band are compared. Bands may allow different distances (as in Qin et al., "GPH:
    Similarity Search in Hamming Space", 2018), and balanced bits are distributed evenly to them. At
    8 bits, one pair in 14 is compared with narrow bands and one in 160 with wide ones; the cheaper
    for the number of hashes is taken. Above about 12 bits of 64, bands no longer help and every
    pair is compared, about 4 × 10⁸ per second.

    Args:
        new, known: ``(N,)`` and ``(M,)``.
        bits: 0 to 64.
        bands: number of bands, from half of ``bits + 1`` to ``bits + 1``, or 0 to compare every
            pair; None for the number with the least expected cost. The result does not depend on
            it.
        before: ``(N,)`` exclusive limits of the positions in ``known`` of each new hash's partners;
            None for no limit.
        most: limit of the number of partners of each new hash; the nearest are returned, ties in
            list order; None for all.
    """
    if len(new) <= len(known):
        return _search(new, known, _Query(bits, bands, before=before, most=most))
    # The longer list costs less on the side that is not iterated key by key.
    return _search(known, new, _Query(bits, bands, before=before, most=most, is_swapped=True))


def members(classes: npt.NDArray[np.intp]) -> list[Positions]:
    """Return the ascending positions of each class, from class 0 on."""
    order = np.argsort(classes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(classes))[:-1])


def groups(count: int, pairs: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Return the groups that pairs connect, directly or through others, by union-find.

    Each group is ascending and has at least two members; groups are ordered by first member.
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
    by_root: dict[int, list[int]] = {}
    for item in range(count):
        by_root.setdefault(root(item), []).append(item)
    return [group for group in by_root.values() if len(group) > 1]


@dataclass(frozen=True)
class _Query:
    """The pairs to find, see `close_across`; with ``is_swapped`` the left list is the known one."""

    bits: int
    bands: int | None
    before: Positions | None = None
    most: int | None = None
    is_swapped: bool = False


@dataclass(frozen=True)
class _Band:
    """Some bits of a hash; two hashes meet in the band if at most ``radius``, 0 or 1, differ."""

    bits: tuple[int, ...]
    radius: int

    @property
    def mask(self) -> np.uint64:
        return np.uint64(sum(1 << bit for bit in self.bits))

    def keys(self, hashes: Hashes) -> npt.NDArray[np.uint16]:
        words = hashes.astype("<u8").view("<u2").reshape(-1, 4).T.copy()
        keys = np.zeros(len(hashes), dtype=np.uint16)
        for position, bit in enumerate(self.bits):
            keys |= (words[bit // 16] >> np.uint16(bit % 16) & np.uint16(1)) << np.uint16(position)
        return keys

    def meeting_share(self, left: Hashes, right: Hashes) -> float:
        """Return the share of all pairs that meet in this band."""
        ours = self.keys(left)
        theirs = np.bincount(self.keys(right), minlength=1 << len(self.bits))
        changes = [0, *(1 << position for position in range(len(self.bits) * self.radius))]
        met = sum(int(theirs[ours ^ np.uint16(change)].sum()) for change in changes)
        return met / (len(left) * len(right))


def _search(left: Hashes, right: Hashes, query: _Query) -> ClosePairs:
    bits = query.bits
    if not 0 <= bits <= 64:
        raise ValueError(f"bits must be 0 to 64, not {bits}")
    found = _Found(query.most)
    bands = _plan(left, right, bits, query.bands) if len(left) and len(right) else []
    for number, band in enumerate(bands):
        for one, other, distance in _gathered(_meet(left, right, band, bits)):
            # A pair that meets in an earlier band was reported there.
            differing = left[one] ^ right[other]
            is_new = np.ones(len(one), dtype=bool)
            for earlier in bands[:number]:
                is_new &= np.bitwise_count(differing & earlier.mask) > earlier.radius
            first, second = (other, one) if query.is_swapped else (one, other)
            if query.before is not None:
                is_new &= second < query.before[first]
            found.add(first[is_new], second[is_new], distance[is_new])
    pairs = found.pairs()
    order = np.lexsort((pairs.second, pairs.first))
    return ClosePairs(pairs.first[order], pairs.second[order], pairs.bits[order])


def _gathered(parts: Iterable[_Part]) -> Iterator[_Part]:
    """Yield the same pairs in fewer, larger parts."""
    waiting: list[_Part] = []
    size = 0
    for part in parts:
        waiting.append(part)
        size += len(part[0])
        if size > _GATHERED:
            yield _joined(waiting)
            waiting, size = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(parts: Sequence[_Part]) -> _Part:
    first, second, bits = (np.concatenate(each) for each in zip(*parts, strict=True))
    return first, second, bits


class _Found:
    """Collects pairs; with a limit, the nearest ``most`` of each first hash."""

    def __init__(self, most: int | None) -> None:
        none = np.empty(0, dtype=np.int64)
        self._parts = [ClosePairs(none, none, np.empty(0, dtype=np.uint8))]
        self._most = most
        self._held, self._limit = 0, _HELD

    def add(self, first: Positions, second: Positions, bits: Bits) -> None:
        if len(first):
            self._parts.append(ClosePairs(first, second, bits))
            self._held += len(first)
        if self._most is not None and self._held > self._limit:
            nearest = self.pairs()
            self._parts, self._held = [nearest], len(nearest)
            self._limit = max(_HELD, 2 * self._held)

    def pairs(self) -> ClosePairs:
        first = np.concatenate([part.first for part in self._parts])
        second = np.concatenate([part.second for part in self._parts])
        bits = np.concatenate([part.bits for part in self._parts])
        if self._most is None:
            return ClosePairs(first, second, bits)
        order = np.lexsort((second, bits, first))
        starts = np.flatnonzero(np.diff(first[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        order = order[rank < self._most]
        return ClosePairs(first[order], second[order], bits[order])


def _plan(left: Hashes, right: Hashes, bits: int, count: int | None) -> list[_Band]:
    """Return ``count`` bands, or by default the number with the least expected work.

    A single band without bits compares all pairs. If the radii plus one add up to ``bits + 1``,
    two hashes further apart than the radius in every band differ in more than ``bits`` bits, so no
    close pair is missed.
    """
    least, most = (bits + 2) // 2, min(bits + 1, 64)
    if count is not None and count and not least <= count <= most:
        raise ValueError(f"bands must be 0 or {least} to {most}, not {count}")
    samples = tuple(hashes[:: 1 + len(hashes) // _SAMPLE] for hashes in (left, right))
    ones = [float((samples[0] >> np.uint64(bit) & np.uint64(1)).mean()) for bit in range(64)]
    balanced_first = sorted(range(64), key=lambda bit: (round(abs(ones[bit] - 0.5), 3), bit))
    if count is None and len(left) * len(right) < _FEW_PAIRS:
        count = 0
    counts = [0, *range(least, most + 1)] if count is None else [count]
    plans = [
        _deal(balanced_first, bits + 1 - each, 2 * each - bits - 1) if each else [_Band((), 0)]
        for each in counts
    ]

    def work(plan: list[_Band]) -> float:
        shares = [band.meeting_share(*samples) for band in plan]
        parts = zip(plan, shares, strict=True)
        return sum(_work(band, len(left), len(right), share) for band, share in parts)

    return min(plans, key=work) if len(plans) > 1 else plans[0]


def _deal(order: list[int], near_bands: int, equal_bands: int) -> list[_Band]:
    """Return bands of radius one, then of radius zero; the former have a few more bits."""
    bands = near_bands + equal_bands
    narrow = max(1, 64 // bands - (3 if near_bands else 0)) if equal_bands else 0
    widths = [0] * near_bands + [narrow] * equal_bands
    for number in range(64 - narrow * equal_bands):
        widths[number % (near_bands or bands)] += 1
    dealt: list[list[int]] = [[] for _ in widths]
    turn = 0
    for bit in order:
        while len(dealt[turn % bands]) >= widths[turn % bands]:
            turn += 1
        dealt[turn % bands].append(bit)
        turn += 1
    return [
        _Band(tuple(chosen[:_WIDEST_BAND]), int(number < near_bands))
        for number, chosen in enumerate(dealt)
    ]


def _work(band: _Band, left: int, right: int, share: float) -> float:
    """Return the approximate nanoseconds of a band in which this share of all pairs meets."""
    met = left * right * share
    calls = max(min(2.0 ** len(band.bits), left), met / _BLOCK)
    return 1.5 * met + 12_000.0 * calls * (1 + band.radius) + 20.0 * (left + right)


def _meet(left: Hashes, right: Hashes, band: _Band, bits: int) -> Iterator[_Part]:
    """Yield positions in left and right, and distances, of close hashes that meet in a band."""
    ours, our_order, our_starts = _buckets(left, band)
    theirs, their_order, their_starts = _buckets(right, band)
    changes = [1 << position for position in range(len(band.bits))] if band.radius else []
    filled = np.diff(our_starts) > 0
    if not changes:
        filled &= np.diff(their_starts) > 0
    for key in np.flatnonzero(filled).tolist():
        others = [key, *(key ^ change for change in changes)]
        spans = [slice(their_starts[other], their_starts[other + 1]) for other in others]
        columns = (
            theirs[spans[0]] if len(spans) == 1 else np.concatenate([theirs[s] for s in spans])
        )
        if not len(columns):
            continue
        low, high = our_starts[key], our_starts[key + 1]
        for row, column, distance in _compare(ours[low:high], columns, bits):
            positions = np.concatenate([their_order[span] for span in spans])
            yield our_order[low + row], positions[column], distance


def _buckets(hashes: Hashes, band: _Band) -> tuple[Hashes, Positions, Positions]:
    """Return the hashes ordered by key, their positions, and where each key starts."""
    keys = band.keys(hashes)
    order = np.argsort(keys, kind="stable")
    counts = np.bincount(keys, minlength=1 << len(band.bits))
    return hashes[order], order, np.concatenate([[0], np.cumsum(counts)])


def _compare(rows: Hashes, columns: Hashes, bits: int) -> Iterator[_Part]:
    """Yield rows, columns and distances of close hashes, block by block."""
    width = min(len(columns), _BLOCK)
    height = max(1, _BLOCK // width)
    for top in range(0, len(rows), height):
        block = rows[top : top + height, None]
        for start in range(0, len(columns), width):
            distances = np.bitwise_count(block ^ columns[None, start : start + width]).ravel()
            hits = (distances <= bits).nonzero()[0]
            if len(hits):
                row, column = np.divmod(hits, min(width, len(columns) - start))
                yield row + top, column + start, distances[hits]
