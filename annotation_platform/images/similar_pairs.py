"""Which images look alike: as they stand, mirrored, turned by quarters, or as a middle crop."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from annotation_platform.images.near_duplicates import (
    Bits,
    ClosePairs,
    Hashes,
    Positions,
    close_across,
)
from annotation_platform.images.signature import VIEWS, SignatureTable, seen_as

_SAME_VECTOR = 0.865
"""Least cosine. On BCCD small changes have at least 0.88 and different images at most 0.86."""
_LISTED = 16
"""Of more images than this with one hash, only the first is compared with others."""
_NEAREST = 32
"""A hash is compared with no more than so many others close to it, those nearest."""
_TURNED = 8
"""Views before this one are of the whole image, those from it on are of its middle."""
_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of images that look alike, as arrays of one length.

    ``earlier`` and ``later`` are positions in the list given; ``near`` says whether they do as
    they stand, and not only mirrored, turned or cropped; ``bits`` how many bits of 64 differ
    between the nearest of their hashes. Ordered by ``later``; near ones first, then by bits.
    """

    earlier: Positions
    later: Positions
    near: npt.NDArray[np.bool_]
    bits: Bits

    def __len__(self) -> int:
        return len(self.later)


def find_similar(
    signatures: SignatureTable, rows: Positions, *, known: int, bits: int
) -> SimilarPairs:
    """Return the pairs of images that look alike, of which one at least is new.

    Two images are candidates if one of three hashes differs in at most ``bits`` bits, which is
    searched for exactly; the cosine of their vectors then decides. An image of one flat colour
    is like no other. Where very many are alike not all their pairs are listed: a hash is compared
    with the 32 nearest, and of more than 16 images with one hash each is compared with the
    first of them and with the one before it, and the first alone with others.

    Args:
        signatures: what is known of images, new and known ones.
        rows: ``(N,)`` rows of ``signatures`` to look at, in the order in which one may repeat
            another; positions below are those in ``rows``.
        known: so many of them, the first ones, are known, and not compared among themselves.
        bits: 0 to 64; above 12 the search compares every pair.
    """
    if known >= len(rows):
        none = np.empty(0, dtype=np.int64)
        return SimilarPairs(none, none, none.astype(bool), none.astype(np.uint8))
    hashes = signatures["hashes"][rows]
    told = _told(signatures, rows)
    found = [
        pairs
        for kind in range(hashes.shape[2])
        for pairs in (
            _near(hashes[:, 0, kind], told[:, 0], known, bits),
            _similar(hashes[..., kind], told, known, bits, seen_new=True),
            _similar(hashes[..., kind], told, known, bits, seen_new=False),
        )
    ]
    return _best(_confirmed(_distinct(found), signatures, rows))


@dataclass(frozen=True)
class _Candidates:
    """Pairs with close hashes: the first image seen in some view, the second as it stands."""

    first: Positions
    view: Positions
    second: Positions
    bits: Bits


@dataclass(frozen=True)
class _Classes:
    """What is equal in a list: classes in the order of their first members."""

    values: Hashes
    first: Positions
    """Position of each class's first member, ascending."""
    of: Positions
    """Class of each position."""
    members: Positions
    """All positions, class by class."""
    starts: Positions
    """Where each class begins in ``members``."""
    sizes: Positions


def _told(signatures: SignatureTable, rows: Positions) -> npt.NDArray[np.bool_]:
    """Return which views have some contrast: what has none has nothing to be recognised by."""
    told = np.empty((len(rows), VIEWS), dtype=bool)
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        # Where there is contrast, the shares of the colours are not all zero.
        seen = (signatures["vectors"][rows[part], :, 96:] != 0).any(axis=2)
        told[part, :_TURNED], told[part, _TURNED:] = seen[:, :1], seen[:, 1:]
    return told


def _near(hashes: Hashes, told: npt.NDArray[np.bool_], known: int, bits: int) -> _Candidates:
    """Return candidates as they stand, the later image first; ``(N,)`` hashes of one kind."""
    places = np.flatnonzero(told)
    fresh_from = int(np.searchsorted(places, known))
    classes = _classes(hashes[places])
    fresh, where = np.unique(classes.of[fresh_from:], return_index=True)
    close = close_across(
        classes.values[fresh],
        classes.values,
        bits=bits,
        before=np.searchsorted(classes.first, fresh_from + where),
        most=_NEAREST,
    )
    unequal = close.bits > 0
    across = _spread(
        ClosePairs(fresh[close.first[unequal]], close.second[unequal], close.bits[unequal]),
        classes,
        classes,
    )
    one, other = _equal(classes)
    one, other = np.concatenate([across.first, one]), np.concatenate([across.second, other])
    distances = np.zeros(len(one), dtype=np.uint8)
    distances[: len(across)] = across.bits
    later, earlier = np.maximum(one, other), np.minimum(one, other)
    new = later >= fresh_from
    later, earlier = places[later[new]], places[earlier[new]]
    return _Candidates(later, np.zeros(len(later), dtype=np.int64), earlier, distances[new])


def _similar(
    hashes: Hashes, told: npt.NDArray[np.bool_], known: int, bits: int, *, seen_new: bool
) -> _Candidates:
    """Return candidates in other views; ``(N, 14)`` hashes of one kind.

    All views of what is new are compared with everything, or else the middles of what is known
    with what is new: turning works both ways, cropping does not.
    """
    seen, whole = told.copy(), told[:, 0].copy()
    if seen_new:
        seen[:known] = seen[:, 0] = False
    else:
        seen[known:] = seen[:, :_TURNED] = whole[:known] = False
    first, view = np.nonzero(seen)
    second = np.flatnonzero(whole)
    ours, theirs = _classes(hashes[first, view]), _classes(hashes[second, 0])
    close = close_across(ours.values, theirs.values, bits=bits, most=_NEAREST)
    pairs = _spread(close, ours, theirs)
    other = first[pairs.first] != second[pairs.second]
    one = pairs.first[other]
    return _Candidates(first[one], view[one], second[pairs.second[other]], pairs.bits[other])


def _distinct(found: list[_Candidates]) -> _Candidates:
    """Return each candidate once, by view, with the bits of the hash that is nearest."""
    first = np.concatenate([each.first for each in found])
    view = np.concatenate([each.view for each in found])
    second = np.concatenate([each.second for each in found])
    bits = np.concatenate([each.bits for each in found])
    order = np.lexsort((bits, second, first, view))
    order = order[_changes(view[order], first[order], second[order])]
    return _Candidates(first[order], view[order], second[order], bits[order])


def _confirmed(pairs: _Candidates, signatures: SignatureTable, rows: Positions) -> SimilarPairs:
    """Return those candidates, ordered by view, whose vectors are close."""
    vectors = signatures["vectors"]
    bounds = np.searchsorted(pairs.view, np.arange(VIEWS + 1)).tolist()
    close = np.zeros(len(pairs.view), dtype=bool)
    for view in range(VIEWS):
        for start in range(bounds[view], bounds[view + 1], _AT_ONCE):
            part = slice(start, min(start + _AT_ONCE, bounds[view + 1]))
            ours = seen_as(vectors, rows[pairs.first[part]], view)
            theirs = seen_as(vectors, rows[pairs.second[part]], 0)
            close[part] = np.einsum("nd,nd->n", ours, theirs) >= _SAME_VECTOR
    first, second = pairs.first[close], pairs.second[close]
    return SimilarPairs(
        np.minimum(first, second),
        np.maximum(first, second),
        pairs.view[close] == 0,
        pairs.bits[close],
    )


def _best(pairs: SimilarPairs) -> SimilarPairs:
    """Return each pair once, as what it is nearest."""
    earlier, later, near, bits = pairs.earlier, pairs.later, pairs.near, pairs.bits
    order = np.lexsort((bits, ~near, earlier, later))
    order = order[_changes(later[order], earlier[order])]
    order = order[np.lexsort((earlier[order], bits[order], ~near[order], later[order]))]
    return SimilarPairs(earlier[order], later[order], near[order], bits[order])


def _changes(*columns: Positions) -> npt.NDArray[np.bool_]:
    """Return which rows of a sorted table differ from the one before."""
    changed = np.ones(len(columns[0]), dtype=bool)
    changed[1:] = np.any([np.diff(column) != 0 for column in columns], axis=0)
    return changed


def _classes(values: Hashes) -> _Classes:
    distinct, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    of = rank[inverse]
    sizes = np.bincount(of, minlength=len(order))
    return _Classes(
        distinct[order],
        first[order],
        of,
        np.argsort(of, kind="stable"),
        np.cumsum(sizes) - sizes,
        sizes,
    )


def _spread(close: ClosePairs, ours: _Classes, theirs: _Classes) -> ClosePairs:
    """Return pairs of members for pairs of classes; of a large class only the first member."""
    our_sizes, their_sizes = (
        np.where(classes.sizes > _LISTED, 1, classes.sizes) for classes in (ours, theirs)
    )
    counts = our_sizes[close.first] * their_sizes[close.second]
    pair = np.repeat(np.arange(len(close)), counts)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    one, other = close.first[pair], close.second[pair]
    return ClosePairs(
        ours.members[ours.starts[one] + place // their_sizes[other]],
        theirs.members[theirs.starts[other] + place % their_sizes[other]],
        close.bits[pair],
    )


def _equal(classes: _Classes) -> tuple[Positions, Positions]:
    """Return pairs of equal ones: all; in a large class each with the first and the one before."""
    own = classes.of[classes.members]
    place = np.flatnonzero(classes.sizes[own] > 1)
    rank = place - classes.starts[own[place]]
    is_large = classes.sizes[own[place]] > _LISTED
    ones, others = [place[is_large & (rank > 1)]], [(place - rank)[is_large & (rank > 1)]]
    for step in range(1, _LISTED):
        reached = place[(rank >= step) & (~is_large | (step == 1))]
        ones.append(reached)
        others.append(reached - step)
    one, other = np.concatenate(ones), np.concatenate(others)
    return classes.members[one], classes.members[other]
