"""The signatures of accepted images in the lake: one file per round."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

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
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.tables import CleanedImages, Frame
from annotation_platform.storage.objects import ObjectStore

_AT_ONCE = 1 << 8


def signature_key(round_id: str) -> str:
    """Return the lake's key of the signatures of a round's accepted images."""
    return f"signatures/{round_id}.npy"


def earlier_signature_key(round_id: str) -> str:
    """Return the key under which v0.1.0 stored them, which is read and not written."""
    return f"likenesses/{round_id}.npy"


def write_signatures(
    store: ObjectStore, round_id: str, table: SignatureTable, rows: Positions
) -> None:
    """Write these rows as a round's signatures, ordered by image id, so that bytes are stable."""
    order = rows[np.argsort(table["image_id"][rows])]
    header = {"descr": SIGNATURE.descr, "fortran_order": False, "shape": (len(order),)}
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, header)  # type: ignore[no-untyped-call]
    # In parts: the whole table would need its memory twice.
    for start in range(0, len(order), _AT_ONCE):
        sink.write(table[order[start : start + _AT_ONCE]].tobytes())
    store.put(signature_key(round_id), sink.getvalue())


def read_signatures(store: ObjectStore, known: Frame[CleanedImages], table: SignatureTable) -> None:
    """Fill ``table`` with the signatures of accepted images, in the order of ``known``.

    If a round's file is missing, has another layout or lacks an image, the missing signatures are
    computed from the stored images, and the file is written.

    Args:
        store: the lake.
        known: accepted rows of ``cleaned_images``.
        table: the same number of rows of signatures.

    Raises:
        DataError: a signature and its image are both missing.
    """
    rounds = known[CleanedImages.round_id]
    ids = known[CleanedImages.image_id].to_numpy().astype("S64")
    for round_id in dict.fromkeys(rounds):
        rows = np.flatnonzero(rounds == round_id)
        rows = rows[np.argsort(ids[rows])]
        is_found = np.zeros(len(rows), dtype=bool)
        for stored in _load(store, round_id):
            at = np.minimum(np.searchsorted(ids[rows], stored["image_id"]), len(rows) - 1)
            wanted = ids[rows[at]] == stored["image_id"]
            table[rows[at[wanted]]] = stored[wanted]
            is_found[at[wanted]] = True
        if is_found.all():
            continue
        missing = known.iloc[rows[~is_found]]
        image_ids = missing[CleanedImages.image_id]
        extensions = missing[CleanedImages.extension]
        keys = [image_key(*image) for image in zip(image_ids, extensions, strict=True)]
        computed = map_each(SignatureOf(store), keys)
        for row, image_id, found in zip(rows[~is_found], image_ids, computed, strict=True):
            set_signature(table[row], image_id, found)
        write_signatures(store, round_id, table, rows)


@dataclass(frozen=True)
class SignatureOf:
    """Computes the signature of the stored image under a key."""

    store: ObjectStore

    def __call__(self, key: str) -> Signature:
        """Return the signature; an image that is missing or damaged is a DataError."""
        return signature(decode(self.store.get(key)))


def _load(store: ObjectStore, round_id: str) -> Iterator[SignatureTable]:
    """Yield a round's signatures, a few at a time; none without a file of the current layout."""
    keys = (signature_key(round_id), earlier_signature_key(round_id))
    key = next(filter(store.exists, keys), None)
    if key is None:
        return
    with store.local_path(key).open("rb") as file:
        try:
            np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
            *_, layout = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
        except ValueError:
            return
        while layout == SIGNATURE and len(rows := np.fromfile(file, SIGNATURE, _AT_ONCE)):
            yield rows
