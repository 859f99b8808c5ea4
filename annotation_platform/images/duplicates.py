"""What repeats what in a folder: the same bytes, the same pixels, nearly the same, or turned."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import decode, read_header
from annotation_platform.images.folders import FoundFile, list_folder, read_file
from annotation_platform.images.hashing import pixel_sha256
from annotation_platform.images.near_duplicates import groups, members
from annotation_platform.images.parallel import map_each
from annotation_platform.images.signature import (
    Signature,
    SignatureTable,
    set_signature,
    signature,
    signature_rows,
)
from annotation_platform.images.similar_pairs import find_similar

_LISTED = 32
"""Of more copies than this of one image, only the first is compared and listed with others."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two files that show the same, ``a`` before ``b``.

    ``distance`` is in bits of 64: of the nearest of their hashes, of an image as it stands (near)
    or turned or cropped (similar); 0 for exact kinds.
    """

    a: str
    b: str
    kind: str
    distance: int


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no sound image, and why."""

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


@dataclass(frozen=True)
class FindRepeats:
    """Reads and decodes a file, for comparing it."""

    maximum_bytes: int
    maximum_pixels: int
    maximum_frames: int

    def __call__(self, file: FoundFile) -> tuple[str, str, Signature] | SkippedFile:
        """Return the digests of bytes and pixels and the signature, or why there are none."""
        try:
            if file.problem:
                return SkippedFile(file.name, file.problem)
            data = read_file(file.path, maximum_bytes=self.maximum_bytes)
            read_header(
                data, maximum_pixels=self.maximum_pixels, maximum_frames=self.maximum_frames
            )
            pixels = decode(data)
        except DataError as error:
            return SkippedFile(file.name, str(error))
        return hashlib.sha256(data).hexdigest(), pixel_sha256(pixels), signature(pixels)


def find_duplicates(
    folder: Path,
    *,
    bits: int = 8,
    maximum_bytes: int = 200_000_000,
    maximum_pixels: int = 100_000_000,
    maximum_frames: int = 1000,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Duplicates:
    """Return which files of a folder, its subfolders included, show the same image.

    Two images are candidates if one of three hashes differs in at most ``bits`` bits, which is
    searched for exactly; the cosine of their vectors then decides. EXIF orientation is applied
    first. Four kinds, each pair has the first that holds:

    - ``exact_bytes``: the same file content.
    - ``exact_pixels``: the same pixels, coded or described differently.
    - ``near``: recompressed, resized, brighter, with a small crop or stamp.
    - ``similar``: the same but mirrored, turned by quarters, or its middle alone, down to six
      tenths of each side. Crops off the middle by more than a few hundredths and turns by other
      angles are not found.

    Groups tie together pairs of all kinds, directly or through others, so that no split holds a
    image and its mirror image apart. An image of one flat colour is like no other but itself.
    Of more than 32 copies of one image each is paired with the first, not with each other; see
    `find_similar` for very many near-duplicates. About 5 kB of memory an image.

    Args:
        folder: every regular file below it is looked at, whatever its name; links are not
            followed, and skipped like everything else that is no image.
        bits: 0 to 64; above 12 the search compares every pair.
        maximum_bytes: larger files are skipped unread.
        maximum_pixels, maximum_frames: images that declare more are skipped undecoded.
        progress: told how many of how many files were looked at.

    Raises:
        DataError: there is no such folder.
    """
    files = list_folder(folder)
    seen: list[_Seen] = []
    skipped: list[SkippedFile] = []
    signatures = signature_rows(len(files))
    looks = map_each(FindRepeats(maximum_bytes, maximum_pixels, maximum_frames), files)
    for done, (file, look) in enumerate(zip(files, looks, strict=True), start=1):
        if isinstance(look, SkippedFile):
            skipped.append(look)
        else:
            sha256, pixels, found = look
            set_signature(signatures[len(seen)], sha256, found)
            seen.append(_Seen(file.name, sha256, pixels))
        progress(done, len(files))
    if not seen:
        return Duplicates([], [], skipped)
    kinds = _all_pairs(seen, signatures, bits)
    order = sorted(kinds)
    return Duplicates(
        [[seen[place].path for place in group] for group in groups(len(seen), order)],
        [DuplicatePair(seen[a].path, seen[b].path, *kinds[a, b]) for a, b in order],
        skipped,
    )


def _all_pairs(
    seen: Sequence[_Seen], signatures: SignatureTable, bits: int
) -> dict[tuple[int, int], tuple[str, int]]:
    """Return kind and distance by the positions, ascending, of two files."""
    _, classes = np.unique([one.pixel_sha256 for one in seen], return_inverse=True)
    copies = [group.tolist() for group in members(classes)]
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for group in copies:
        for a, b in _within(group):
            same = seen[a].sha256 == seen[b].sha256
            found[a, b] = ("exact_bytes" if same else "exact_pixels", 0)
    firsts = np.array([group[0] for group in copies])
    alike = find_similar(signatures, firsts, known=0, bits=bits)
    columns = (alike.earlier, alike.later, alike.near, alike.bits)
    for one, other, near, distance in zip(*(each.tolist() for each in columns), strict=True):
        for a, b in product(_listed(copies[one]), _listed(copies[other])):
            found[min(a, b), max(a, b)] = ("near" if near else "similar", distance)
    return found


def _within(group: list[int]) -> list[tuple[int, int]]:
    """Return every pair of a group, or those with the first if it is large."""
    firsts = group if len(group) <= _LISTED else group[:1]
    return [(a, b) for place, a in enumerate(firsts) for b in group[place + 1 :]]


def _listed(group: list[int]) -> list[int]:
    return group if len(group) <= _LISTED else group[:1]
