"""Pairs of similar images: unchanged, mirrored, turned by quarters, or cropped to the middle."""

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
"""Of more images than this with one hash, only the first is compared with other hashes."""
_NEAREST = 32
"""Number of nearest hashes with which a hash is compared."""
_TURNED = 8
"""Views before this one show the whole image, the others its middle."""
_AT_ONCE = 1 << 12


@dataclass(frozen=True)
class SimilarPairs:
    """Pairs of similar images, as arrays of one length.

    ``earlier`` and ``later`` are positions in the given list; ``near`` is whether they are similar
    without mirroring, turning or cropping; ``bits`` is the number of bits of 64 that differ
    between their nearest hashes. Ordered by ``later``; near pairs first, then by bits.
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
    """Return the pairs of similar images with at least one new image.

    Two images are candidates if one of three hashes differs in at most ``bits`` bits, with an
    exact search; the cosine of their vectors then decides. An image of one flat colour is similar
    to no other. Of very large groups not all pairs are listed: a hash is compared with the 32
    nearest, and of more than 16 images with one hash, each is compared with the first and with the
    previous one, and only the first with other hashes.

    Args:
        signatures: signatures of new and known images.
        rows: ``(N,)`` rows of ``signatures`` to compare, in the order in which images may become
            originals; returned positions are those in ``rows``.
        known: number of known images, the first of ``rows``, which are not compared with each
            other.
        bits: 0 to 64; above 12 the search compares every pair.
    """
    if known >= len(rows):
        none = np.empty(0, dtype=np.int64)
        return SimilarPairs(none, none, none.astype(bool), none.astype(np.uint8))
    hashes = signatures["hashes"][rows]
    has_contrast = _has_contrast(signatures, rows)
    found = [
        pairs
        for kind in range(hashes.shape[2])
        for pairs in (
            _near(hashes[:, 0, kind], has_contrast[:, 0], known, bits),
            _similar(hashes[..., kind], has_contrast, known, bits, views_of_new=True),
            _similar(hashes[..., kind], has_contrast, known, bits, views_of_new=False),
        )
    ]
    return _best(_confirmed(_distinct(found), signatures, rows))


@dataclass(frozen=True)
class _Candidates:
    """Pairs with close hashes: the first image in some view, the second unchanged."""

    first: Positions
    view: Positions
    second: Positions
    bits: Bits


@dataclass(frozen=True)
class _Classes:
    """Classes of equal values in a list, in the order of their first members."""

    values: Hashes
    first: Positions
    """Position of each class's first member, ascending."""
    of: Positions
    """Class of each position."""
    members: Positions
    """All positions, class by class."""
    starts: Positions
    """First position of each class in ``members``."""
    sizes: Positions


def _has_contrast(signatures: SignatureTable, rows: Positions) -> npt.NDArray[np.bool_]:
    """Return which of the ``(N, 14)`` views have contrast: views without it match no other."""
    has_contrast = np.empty((len(rows), VIEWS), dtype=bool)
    for start in range(0, len(rows), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        # With contrast, the shares of the colours are not all zero.
        nonzero = (signatures["vectors"][rows[part], :, 96:] != 0).any(axis=2)
        has_contrast[part, :_TURNED], has_contrast[part, _TURNED:] = nonzero[:, :1], nonzero[:, 1:]
    return has_contrast


def _near(
    hashes: Hashes, has_contrast: npt.NDArray[np.bool_], known: int, bits: int
) -> _Candidates:
    """Return unchanged candidates, the later image first, from ``(N,)`` hashes of one kind."""
    positions = np.flatnonzero(has_contrast)
    new_from = int(np.searchsorted(positions, known))
    classes = _classes(hashes[positions])
    new_classes, first_new = np.unique(classes.of[new_from:], return_index=True)
    close = close_across(
        classes.values[new_classes],
        classes.values,
        bits=bits,
        before=np.searchsorted(classes.first, new_from + first_new),
        most=_NEAREST,
    )
    unequal = close.bits > 0
    across = _spread(
        ClosePairs(new_classes[close.first[unequal]], close.second[unequal], close.bits[unequal]),
        classes,
        classes,
    )
    one, other = _equal(classes)
    one, other = np.concatenate([across.first, one]), np.concatenate([across.second, other])
    distances = np.zeros(len(one), dtype=np.uint8)
    distances[: len(across)] = across.bits
    later, earlier = np.maximum(one, other), np.minimum(one, other)
    new = later >= new_from
    later, earlier = positions[later[new]], positions[earlier[new]]
    return _Candidates(later, np.zeros(len(later), dtype=np.int64), earlier, distances[new])


def _similar(
    hashes: Hashes,
    has_contrast: npt.NDArray[np.bool_],
    known: int,
    bits: int,
    *,
    views_of_new: bool,
) -> _Candidates:
    """Return candidates in other views, from ``(N, 14)`` hashes of one kind.

    Either all views of new images are compared with all images, or the middles of known images
    with new images: turning is symmetric, cropping is not.
    """
    views, whole = has_contrast.copy(), has_contrast[:, 0].copy()
    if views_of_new:
        views[:known] = views[:, 0] = False
    else:
        views[known:] = views[:, :_TURNED] = whole[:known] = False
    first, view = np.nonzero(views)
    second = np.flatnonzero(whole)
    ours, theirs = _classes(hashes[first, view]), _classes(hashes[second, 0])
    close = close_across(ours.values, theirs.values, bits=bits, most=_NEAREST)
    pairs = _spread(close, ours, theirs)
    other = first[pairs.first] != second[pairs.second]
    one = pairs.first[other]
    return _Candidates(first[one], view[one], second[pairs.second[other]], pairs.bits[other])


def _distinct(found: list[_Candidates]) -> _Candidates:
    """Return each candidate once, ordered by view, with the bits of the nearest hash."""
    first = np.concatenate([each.first for each in found])
    view = np.concatenate([each.view for each in found])
    second = np.concatenate([each.second for each in found])
    bits = np.concatenate([each.bits for each in found])
    order = np.lexsort((bits, second, first, view))
    order = order[_changes(view[order], first[order], second[order])]
    return _Candidates(first[order], view[order], second[order], bits[order])


def _confirmed(pairs: _Candidates, signatures: SignatureTable, rows: Positions) -> SimilarPairs:
    """Return the candidates with close vectors; ``pairs`` are ordered by view."""
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
    """Return each pair once, with its nearest kind and bits."""
    earlier, later, near, bits = pairs.earlier, pairs.later, pairs.near, pairs.bits
    order = np.lexsort((bits, ~near, earlier, later))
    order = order[_changes(later[order], earlier[order])]
    order = order[np.lexsort((earlier[order], bits[order], ~near[order], later[order]))]
    return SimilarPairs(earlier[order], later[order], near[order], bits[order])


def _changes(*columns: Positions) -> npt.NDArray[np.bool_]:
    """Return which rows of a sorted table differ from the previous one."""
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
    """Return the pairs of members for pairs of classes; a large class has only its first member."""
    our_sizes, their_sizes = (
        np.where(classes.sizes > _LISTED, 1, classes.sizes) for classes in (ours, theirs)
    )
    counts = our_sizes[close.first] * their_sizes[close.second]
    pair = np.repeat(np.arange(len(close)), counts)
    number = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    one, other = close.first[pair], close.second[pair]
    return ClosePairs(
        ours.members[ours.starts[one] + number // their_sizes[other]],
        theirs.members[theirs.starts[other] + number % their_sizes[other]],
        close.bits[pair],
    )


def _equal(classes: _Classes) -> tuple[Positions, Positions]:
    """Return the pairs of equal members; in a large class with the first and the previous only."""
    own = classes.of[classes.members]
    position = np.flatnonzero(classes.sizes[own] > 1)
    rank = position - classes.starts[own[position]]
    is_large = classes.sizes[own[position]] > _LISTED
    ones, others = [position[is_large & (rank > 1)]], [(position - rank)[is_large & (rank > 1)]]
    for step in range(1, _LISTED):
        reached = position[(rank >= step) & (~is_large | (step == 1))]
        ones.append(reached)
        others.append(reached - step)
    one, other = np.concatenate(ones), np.concatenate(others)
    return classes.members[one], classes.members[other]
