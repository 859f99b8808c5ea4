"""Duplicates in a folder: the same bytes, the same pixels, near-duplicates, or turned images."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import decode, pixel_sha256, read_header
from annotation_platform.images.folders import FoundFile, list_folder, read_file
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
"""With more copies of one image, only the first is compared and listed with other images."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two files that show the same image, ``a`` before ``b``.

    ``distance`` is the number of differing bits of 64 between their nearest hashes: of the
    unchanged images (near), or of a turned or cropped view (similar); 0 for exact kinds.
    """

    a: str
    b: str
    kind: str
    distance: int


@dataclass(frozen=True)
class SkippedFile:
    """A file that is not a readable image, and the reason."""

    path: str
    reason: str


@dataclass(frozen=True)
class Duplicates:
    """The duplicates in a folder. Paths are relative to the folder, with ``/``, in order."""

    groups: list[list[str]]
    pairs: list[DuplicatePair]
    skipped: list[SkippedFile]


@dataclass(frozen=True)
class _Decoded:
    path: str
    sha256: str
    pixel_sha256: str


@dataclass(frozen=True)
class DescribeFile:
    """Reads and decodes a file for comparison."""

    maximum_bytes: int
    maximum_pixels: int
    maximum_frames: int

    def __call__(self, file: FoundFile) -> tuple[str, str, Signature] | SkippedFile:
        """Return the digests of bytes and pixels and the signature, or the reason for none."""
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
    """Return the files of a folder and its subfolders that show the same image.

    Two images are candidates if one of three hashes differs in at most ``bits`` bits, with an
    exact search; the cosine of their vectors then decides. The EXIF orientation is applied first.
    There are four kinds; each pair has the first that applies:

    - ``exact_bytes``: the same file content.
    - ``exact_pixels``: the same pixels, with other coding or metadata.
    - ``near``: recompressed, resized, brighter, with a small crop or stamp.
    - ``similar``: mirrored, turned by quarters, or cropped to the middle, down to six tenths of
      each side. Crops that are off the middle by more than a few hundredths and turns by other
      angles are not found.

    Groups connect pairs of all kinds, directly or through others, so that an image and its mirror
    image are never in different splits. An image of one flat colour is similar only to itself.
    Of more than 32 copies of one image, each is paired with the first only; see `find_similar`
    for very large numbers of near-duplicates. An image takes about 5 kB of memory.

    Args:
        folder: all regular files below it are read, whatever their names; links are not followed,
            and are skipped like all other files that are not images.
        bits: 0 to 64; above 12 the search compares every pair.
        maximum_bytes: larger files are skipped without reading.
        maximum_pixels, maximum_frames: images that declare more are skipped without decoding.
        progress: called with the number of processed files and the number of all.

    Raises:
        DataError: there is no such folder.
    """
    files = list_folder(folder)
    decoded: list[_Decoded] = []
    skipped: list[SkippedFile] = []
    signatures = signature_rows(len(files))
    results = map_each(DescribeFile(maximum_bytes, maximum_pixels, maximum_frames), files)
    for done, (file, result) in enumerate(zip(files, results, strict=True), start=1):
        if isinstance(result, SkippedFile):
            skipped.append(result)
        else:
            sha256, pixels, found = result
            set_signature(signatures[len(decoded)], sha256, found)
            decoded.append(_Decoded(file.name, sha256, pixels))
        progress(done, len(files))
    if not decoded:
        return Duplicates([], [], skipped)
    kinds = _all_pairs(decoded, signatures, bits)
    order = sorted(kinds)
    return Duplicates(
        [[decoded[position].path for position in group] for group in groups(len(decoded), order)],
        [DuplicatePair(decoded[a].path, decoded[b].path, *kinds[a, b]) for a, b in order],
        skipped,
    )


def _all_pairs(
    decoded: Sequence[_Decoded], signatures: SignatureTable, bits: int
) -> dict[tuple[int, int], tuple[str, int]]:
    """Return kind and distance of each pair, by the ascending positions of its files."""
    _, classes = np.unique([one.pixel_sha256 for one in decoded], return_inverse=True)
    copies = [group.tolist() for group in members(classes)]
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for group in copies:
        for a, b in _within(group):
            same = decoded[a].sha256 == decoded[b].sha256
            found[a, b] = ("exact_bytes" if same else "exact_pixels", 0)
    firsts = np.array([group[0] for group in copies])
    similar = find_similar(signatures, firsts, known=0, bits=bits)
    columns = (similar.earlier, similar.later, similar.near, similar.bits)
    for one, other, near, distance in zip(*(each.tolist() for each in columns), strict=True):
        for a, b in product(_listed(copies[one]), _listed(copies[other])):
            found[min(a, b), max(a, b)] = ("near" if near else "similar", distance)
    return found


def _within(group: list[int]) -> list[tuple[int, int]]:
    """Return all pairs of a group, or the pairs with its first member if it is large."""
    return [(a, b) for i, a in enumerate(_listed(group)) for b in group[i + 1 :]]


def _listed(group: list[int]) -> list[int]:
    return group if len(group) <= _LISTED else group[:1]
