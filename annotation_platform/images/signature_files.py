"""The signatures of accepted images, kept in the lake: one file a round."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.images.decoding import decode
from annotation_platform.images.near_duplicates import Positions
from annotation_platform.images.parallel import map_each
from annotation_platform.images.signature import (
    SIGNATURE,
    Signature,
    SignatureTable,
    set_signature,
    signature,
)
from annotation_platform.storage.keys import image_key
from annotation_platform.storage.objects import ObjectStore

_AT_ONCE = 1 << 8


def signature_key(round_id: str) -> str:
    """Return the lake's key of the signatures of a round's accepted images."""
    return f"likenesses/{round_id}.npy"


def write_signatures(
    store: ObjectStore, round_id: str, table: SignatureTable, rows: Positions
) -> None:
    """Keep these rows as a round's signatures, by image id: the same images, the same bytes."""
    order = rows[np.argsort(table["image_id"][rows])]
    header = {"descr": SIGNATURE.descr, "fortran_order": False, "shape": (len(order),)}
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, header)  # type: ignore[no-untyped-call]
    # Row by row rather than as a whole, which would need the memory twice.
    for start in range(0, len(order), _AT_ONCE):
        sink.write(table[order[start : start + _AT_ONCE]].tobytes())
    store.put(signature_key(round_id), sink.getvalue())


def read_signatures(store: ObjectStore, known: pd.DataFrame, table: SignatureTable) -> None:
    """Fill ``table`` with the signatures of accepted images, in the order of ``known``.

    Where a round's file is missing, of another layout or lacks an image, they are made anew from
    the stored images, and kept.

    Args:
        store: the lake.
        known: accepted rows of ``cleaned_images``.
        table: as many rows of signatures.

    Raises:
        DataError: a signature is missing, and its image too.
    """
    ids = known["image_id"].to_numpy().astype("S64")
    for round_id in dict.fromkeys(known["round_id"]):
        places = np.flatnonzero(known["round_id"] == round_id)
        places = places[np.argsort(ids[places])]
        there = np.zeros(len(places), dtype=bool)
        for kept in _load(store, round_id):
            at = np.minimum(np.searchsorted(ids[places], kept["image_id"]), len(places) - 1)
            wanted = ids[places[at]] == kept["image_id"]
            table[places[at[wanted]]] = kept[wanted]
            there[at[wanted]] = True
        if there.all():
            continue
        images = known.iloc[places[~there]]
        keys = [
            image_key(image_id, extension)
            for image_id, extension in zip(images["image_id"], images["extension"], strict=True)
        ]
        made = map_each(SignatureOf(store), keys)
        for place, image_id, found in zip(places[~there], images["image_id"], made, strict=True):
            set_signature(table[place], image_id, found)
        write_signatures(store, round_id, table, places)


@dataclass(frozen=True)
class SignatureOf:
    """Makes the signature of the stored image under a key."""

    store: ObjectStore

    def __call__(self, key: str) -> Signature:
        """Return the signature; an image that is missing or damaged is a DataError."""
        return signature(decode(self.store.get(key)))


def _load(store: ObjectStore, round_id: str) -> Iterator[SignatureTable]:
    """Yield a round's signatures, a few at a time; none where there is no file of this layout."""
    key = signature_key(round_id)
    if not store.exists(key):
        return
    with store.local_path(key).open("rb") as file:
        try:
            np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
            *_, layout = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
        except ValueError:
            return
        while layout == SIGNATURE and len(rows := np.fromfile(file, SIGNATURE, _AT_ONCE)):
            yield rows
