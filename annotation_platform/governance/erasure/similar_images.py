"""Which images show what others show, wherever they lie and whatever they are called."""

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


def look_at(names: Sequence[str], load: Callable[[str], bytes]) -> tuple[list[str], SignatureTable]:
    """Return those files that are images, and a signature of each, nameless."""

    def look(name: str) -> Signature | None:
        try:
            return signature(decode(load(name)))
        except DataError:
            return None

    looks = zip(names, map_each(look, names), strict=True)
    found = [(name, each) for name, each in looks if each is not None]
    table = signature_rows(len(found))
    for row, (_, each) in zip(table, found, strict=True):
        set_signature(row, "", each)
    return [name for name, _ in found], table


def which_show(others: SignatureTable, these: SignatureTable, *, bits: int) -> list[int]:
    """Return the rows of ``others`` that look like one of ``these``.

    Args:
        others: images to look at.
        these: images to look for.
        bits: of 64, how many a hash may differ in, as where duplicates are found; 0: only what
            shows the very same counts, however it was compressed or resized.
    """
    if not len(others) or not len(these):
        return []
    if bits:
        both = np.concatenate([others, these])
        rows = np.arange(len(both), dtype=np.int64)
        pairs = find_similar(both, rows, known=len(others), bits=bits)
        return sorted(set(pairs.earlier[pairs.earlier < len(others)].tolist()))
    found: set[int] = set()
    for grey in these["grey"]:
        copies = np.broadcast_to(grey, others["grey"].shape)
        square = np.ones(len(others))
        found |= set(np.flatnonzero(same_image(others["grey"], copies, square, square)).tolist())
    return sorted(found)
