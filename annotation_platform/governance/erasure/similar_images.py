"""Find images with the same content as others, by their signatures."""

from collections.abc import Callable, Sequence

import numpy as np

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import decode
from annotation_platform.images.parallel import map_each
from annotation_platform.images.signature import (
    Signature,
    SignatureTable,
    same_image,
    set_signature,
    signature,
    signature_rows,
)
from annotation_platform.images.similar_pairs import find_similar


def image_signatures(
    names: Sequence[str], load: Callable[[str], bytes]
) -> tuple[list[str], SignatureTable]:
    """Return the names of the files that are images, and their signatures without ids, in order."""

    def probe(name: str) -> Signature | None:
        try:
            return signature(decode(load(name)))
        except DataError:
            return None

    probed = zip(names, map_each(probe, names), strict=True)
    found = [(name, each) for name, each in probed if each is not None]
    table = signature_rows(len(found))
    for row, (_, each) in zip(table, found, strict=True):
        set_signature(row, "", each)
    return [name for name, _ in found], table


def matching_rows(candidates: SignatureTable, erased: SignatureTable, *, bits: int) -> list[int]:
    """Return the rows of ``candidates`` with the same content as one of ``erased``, in order.

    Args:
        candidates: signatures of the images to check.
        erased: signatures of the images to find.
        bits: of 64, the most in which two hashes may differ, as for near-duplicates; 0: only the
            same content counts, however it was compressed or resized.
    """
    if not len(candidates) or not len(erased):
        return []
    if bits:
        both = np.concatenate([candidates, erased])
        rows = np.arange(len(both), dtype=np.int64)
        pairs = find_similar(both, rows, known=len(candidates), bits=bits)
        return sorted(set(pairs.earlier[pairs.earlier < len(candidates)].tolist()))
    found: set[int] = set()
    for grey in erased["grey"]:
        copies = np.broadcast_to(grey, candidates["grey"].shape)
        square = np.ones(len(candidates))
        matches = same_image(candidates["grey"], copies, square, square)
        found |= set(np.flatnonzero(matches).tolist())
    return sorted(found)
