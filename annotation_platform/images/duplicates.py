"""What repeats what in a folder: the same bytes, the same pixels, nearly the same, or turned."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import decode, read_header
from annotation_platform.images.hashing import Likeness, likeness, pixel_sha256, seen_as
from annotation_platform.images.near_duplicates import (
    ClosePairs,
    Positions,
    close_across,
    close_pairs,
    groups,
    members,
)

_SAME_VECTOR = 0.865
"""Least cosine. On BCCD small changes have at least 0.88 and different pictures at most 0.86."""
_LISTED = 32
"""Of more copies than this of one picture, only the first is compared and listed with others."""
_WORKERS = 2
_AT_ONCE = 64
_CONFIRMED_AT_ONCE = 1 << 14


@dataclass(frozen=True)
class DuplicatePair:
    """Two files that show the same, ``a`` before ``b``.

    ``distance`` is in bits of 64: of the nearest of their hashes, of a picture as it stands (near)
    or turned or cropped (similar); 0 for exact kinds.
    """

    a: str
    b: str
    kind: str
    distance: int


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no sound picture, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class Duplicates:
    """What repeats what. Paths are relative to the folder, with ``/``, in order."""

    groups: list[list[str]]
    pairs: list[DuplicatePair]
    skipped: list[SkippedFile]


@dataclass(frozen=True)
class _Seen:
    path: str
    sha256: str
    pixel_sha256: str
    likeness: Likeness


def find_duplicates(
    folder: Path,
    *,
    bits: int = 8,
    maximum_pixels: int = 100_000_000,
    maximum_frames: int = 1000,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Duplicates:
    """Return which files of a folder, its subfolders included, show the same picture.

    Two pictures are candidates if one of three hashes differs in at most ``bits`` bits, which is
    searched for exactly; the cosine of their vectors then decides. EXIF orientation is applied
    first. Four kinds, each pair has the first that holds:

    - ``exact_bytes``: the same file content.
    - ``exact_pixels``: the same pixels, coded or described differently.
    - ``near``: recompressed, resized, brighter, with a small crop or stamp.
    - ``similar``: the same but mirrored, turned by quarters, or its middle alone, down to six
      tenths of each side. Crops off the middle by more than a few hundredths and turns by other
      angles are not found.

    Groups tie together pairs of all kinds, directly or through others, so that no split holds a
    picture and its mirror image apart. A picture of one flat colour is like no other but itself.
    Of more than 32 copies of one picture each is paired with the first, not with each other. About
    7 kB of memory a picture.

    Args:
        folder: every regular file below it is looked at, whatever its name; links to folders are
            not followed.
        bits: 0 to 64; above 12 the search compares every pair.
        maximum_pixels, maximum_frames: pictures that declare more are skipped undecoded.
        progress: told how many of how many files were looked at.

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name a folder of pictures")
    files = (path for path in folder.rglob("*") if path.is_file())
    paths = sorted(files, key=lambda path: path.relative_to(folder).as_posix())
    seen: list[_Seen] = []
    skipped: list[SkippedFile] = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        # In portions, so that Ctrl-C does not wait for the rest of a large folder.
        for start in range(0, len(paths), _AT_ONCE):
            looks = pool.map(
                lambda path: _look(
                    path, folder, maximum_pixels=maximum_pixels, maximum_frames=maximum_frames
                ),
                paths[start : start + _AT_ONCE],
            )
            for done, look in enumerate(looks, start=start + 1):
                if isinstance(look, _Seen):
                    seen.append(look)
                else:
                    skipped.append(look)
                progress(done, len(paths))
    if not seen:
        return Duplicates([], [], skipped)
    kinds = _all_pairs(seen, bits)
    order = sorted(kinds)
    return Duplicates(
        [[seen[place].path for place in group] for group in groups(len(seen), order)],
        [DuplicatePair(seen[a].path, seen[b].path, *kinds[a, b]) for a, b in order],
        skipped,
    )


def _look(
    path: Path, folder: Path, *, maximum_pixels: int, maximum_frames: int
) -> _Seen | SkippedFile:
    name = path.relative_to(folder).as_posix()
    try:
        data = path.read_bytes()
        read_header(data, maximum_pixels=maximum_pixels, maximum_frames=maximum_frames)
        pixels = decode(data)
    except DataError as error:
        return SkippedFile(name, str(error))
    except OSError as error:
        return SkippedFile(name, f"cannot be read: {error.strerror}")
    return _Seen(name, hashlib.sha256(data).hexdigest(), pixel_sha256(pixels), likeness(pixels))


def _all_pairs(seen: Sequence[_Seen], bits: int) -> dict[tuple[int, int], tuple[str, int]]:
    """Return kind and distance by the positions, ascending, of two files."""
    _, classes = np.unique([one.pixel_sha256 for one in seen], return_inverse=True)
    copies = [group.tolist() for group in members(classes)]
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for group in copies:
        for a, b in _within(group):
            same = seen[a].sha256 == seen[b].sha256
            found[a, b] = ("exact_bytes" if same else "exact_pixels", 0)
    pictures = [seen[group[0]].likeness for group in copies]
    for (one, other), likeness_found in _near_and_similar(pictures, bits).items():
        for a, b in product(_listed(copies[one]), _listed(copies[other])):
            found[min(a, b), max(a, b)] = likeness_found
    return found


def _within(group: list[int]) -> list[tuple[int, int]]:
    """Return every pair of a group, or those with the first if it is large."""
    firsts = group if len(group) <= _LISTED else group[:1]
    return [(a, b) for place, a in enumerate(firsts) for b in group[place + 1 :]]


def _listed(group: list[int]) -> list[int]:
    return group if len(group) <= _LISTED else group[:1]


def _near_and_similar(
    pictures: Sequence[Likeness], bits: int
) -> dict[tuple[int, int], tuple[str, int]]:
    """Return kind and distance by the positions, ascending, of two pictures of other pixels."""
    vectors = np.stack([picture.vectors for picture in pictures])
    hashes = np.stack([picture.hashes for picture in pictures])
    # What has no contrast has nothing to be recognised by.
    told = np.flatnonzero(vectors[:, 0].any(axis=1))
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for view in range(hashes.shape[1]):
        for kind_of_hash in range(hashes.shape[2]):
            pairs = _close(
                hashes[told, view, kind_of_hash], hashes[told, 0, kind_of_hash], bits, view
            )
            for start in range(0, len(pairs), _CONFIRMED_AT_ONCE):
                part = slice(start, start + _CONFIRMED_AT_ONCE)
                first, second = told[pairs.first[part]], told[pairs.second[part]]
                cosines = np.einsum(
                    "nd,nd->n", seen_as(vectors[first], view), seen_as(vectors[second], 0)
                )
                for place in np.flatnonzero(cosines >= _SAME_VECTOR).tolist():
                    a, b = sorted((int(first[place]), int(second[place])))
                    kind = "similar" if view else "near"
                    distance = int(pairs.bits[start + place])
                    known = found.get((a, b))
                    if known is None or (known[0] == kind and distance < known[1]):
                        found[a, b] = (kind, distance)
    return found


def _close(
    seen_so: npt.NDArray[np.uint64], whole: npt.NDArray[np.uint64], bits: int, view: int
) -> ClosePairs:
    """Return the pairs of two pictures whose hashes are close, the first one seen in some view.

    Equal hashes are searched for once, then the pictures that have them are all paired; of more
    than 32 with one hash, each with the first of them and with the one before it.
    """
    ours, our_places = np.unique(seen_so, return_inverse=True)
    if view == 0:
        their_places = our_places
        close = close_pairs(ours, bits=bits)
        equal = [pair for group in members(our_places) for pair in _neighbours(group.tolist())]
    else:
        theirs, their_places = np.unique(whole, return_inverse=True)
        close = close_across(ours, theirs, bits=bits)
        equal = []
    first, second, distances = _spread(close, our_places, their_places)
    table = np.array(equal, dtype=np.int64).reshape(-1, 2)
    other = first != second
    return ClosePairs(
        np.concatenate([table[:, 0], first[other]]),
        np.concatenate([table[:, 1], second[other]]),
        np.concatenate([np.zeros(len(table), dtype=np.uint8), distances[other]]),
    )


def _spread(
    close: ClosePairs, ours: npt.NDArray[np.intp], theirs: npt.NDArray[np.intp]
) -> tuple[Positions, Positions, npt.NDArray[np.uint8]]:
    """Return pairs of members for pairs of classes; of a large class only the first member."""
    our_order, our_starts, our_sizes = _classes(ours)
    their_order, their_starts, their_sizes = _classes(theirs)
    counts = our_sizes[close.first] * their_sizes[close.second]
    pair = np.repeat(np.arange(len(close)), counts)
    place = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts)
    one, other = close.first[pair], close.second[pair]
    first = our_order[our_starts[one] + place // their_sizes[other]]
    second = their_order[their_starts[other] + place % their_sizes[other]]
    return first, second, close.bits[pair]


def _classes(classes: npt.NDArray[np.intp]) -> tuple[Positions, Positions, Positions]:
    """Return positions by class, where each class starts, and how many of it are listed."""
    sizes = np.bincount(classes)
    listed = np.where(sizes > _LISTED, 1, sizes)
    return np.argsort(classes, kind="stable"), np.cumsum(sizes) - sizes, listed


def _neighbours(group: list[int]) -> list[tuple[int, int]]:
    pairs = _within(group)
    if len(group) > _LISTED:
        pairs += pairwise(group[1:])
    return pairs
