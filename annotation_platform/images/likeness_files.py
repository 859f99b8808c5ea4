"""The likenesses of accepted pictures, kept in the lake: one file a round."""

import io
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.images.decoding import decode
from annotation_platform.images.likeness import (
    LIKENESS,
    Likeness,
    LikenessTable,
    likeness,
    likeness_rows,
    set_likeness,
)
from annotation_platform.images.near_duplicates import Positions
from annotation_platform.images.parallel import map_each
from annotation_platform.storage.keys import image_key
from annotation_platform.storage.objects import ObjectStore

_AT_ONCE = 1 << 12


def likeness_key(round_id: str) -> str:
    """Return the lake's key of the likenesses of a round's accepted pictures."""
    return f"likenesses/{round_id}.npy"


def write_likenesses(
    store: ObjectStore, round_id: str, table: LikenessTable, rows: Positions
) -> None:
    """Keep these rows as a round's likenesses, by image id: the same pictures, the same bytes."""
    order = rows[np.argsort(table["image_id"][rows])]
    header = {"descr": LIKENESS.descr, "fortran_order": False, "shape": (len(order),)}
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, header)  # type: ignore[no-untyped-call]
    # Row by row rather than as a whole, which would need the memory twice.
    for start in range(0, len(order), _AT_ONCE):
        sink.write(table[order[start : start + _AT_ONCE]].tobytes())
    store.put(likeness_key(round_id), sink.getvalue())


def read_likenesses(store: ObjectStore, known: pd.DataFrame, table: LikenessTable) -> None:
    """Fill ``table`` with the likenesses of accepted pictures, in the order of ``known``.

    Where a round's file is missing, of another layout or lacks a picture, they are made anew from
    the stored pictures, and kept.

    Args:
        store: the lake.
        known: accepted rows of ``cleaned_images``.
        table: as many rows of likenesses.

    Raises:
        DataError: a likeness is missing, and its picture too.
    """
    ids = known["image_id"].to_numpy().astype("S64")
    for round_id in dict.fromkeys(known["round_id"]):
        places = np.flatnonzero(known["round_id"] == round_id)
        kept = _load(store, round_id)
        at = np.minimum(np.searchsorted(kept["image_id"], ids[places]), len(kept) - 1)
        there = kept["image_id"][at] == ids[places]
        table[places[there]] = kept[at[there]]
        missing = places[~there]
        if not len(missing):
            continue
        pictures = known.iloc[missing]
        keys = [
            image_key(image_id, extension)
            for image_id, extension in zip(pictures["image_id"], pictures["extension"], strict=True)
        ]
        made = map_each(LikenessOf(store), keys)
        for place, image_id, found in zip(missing, pictures["image_id"], made, strict=True):
            set_likeness(table[place], image_id, found)
        write_likenesses(store, round_id, table, places)


@dataclass(frozen=True)
class LikenessOf:
    """Makes the likeness of the stored picture under a key."""

    store: ObjectStore

    def __call__(self, key: str) -> Likeness:
        """Return the likeness; a picture that is missing or damaged is a DataError."""
        return likeness(decode(self.store.get(key)))


def _load(store: ObjectStore, round_id: str) -> LikenessTable:
    """Return a round's likenesses, read as they are needed; one empty row if there are none."""
    key = likeness_key(round_id)
    if not store.exists(key):
        return likeness_rows(1)
    try:
        kept = np.load(store.local_path(key), mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        return likeness_rows(1)
    return kept if kept.dtype == LIKENESS and kept.ndim == 1 and len(kept) else likeness_rows(1)
