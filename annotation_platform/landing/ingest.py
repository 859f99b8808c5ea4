"""From the landing place into the lake: the bytes of a round, by their digest."""

import hashlib
from collections.abc import Callable, Sequence

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.landing.places import LandingPlace
from annotation_platform.landing.receipts import Receipt, Receipts
from annotation_platform.landing.sidecars import MAXIMUM_BYTES, NO_METADATA, read_sidecar
from annotation_platform.schema.rounds import RELEASED, LandedObject
from annotation_platform.schema.tables import make_table
from annotation_platform.storage.keys import raw_key, sidecar_key
from annotation_platform.storage.objects import ObjectStore


def ingest_round(
    round_id: str,
    objects: Sequence[LandedObject],
    place: LandingPlace,
    store: ObjectStore,
    receipts: Receipts,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Copy the landed bytes of a round into the lake and return its ``raw_images`` table.

    An object that is gone, unreadable, not a regular file or no longer what the manifest says
    keeps its row, with the problem in it; what replaced it belongs to a later round. So does one
    whose sidecar cannot be used.
    """
    rows: list[dict[str, object]] = []
    for count, landed in enumerate(objects, start=1):
        row: dict[str, object] = {
            "round_id": round_id,
            "source_key": landed.key,
            "stamp": landed.stamp,
            "byte_size": landed.byte_size,
            "image_id": None,
            "sidecar_sha256": None,
            "problem": "",
            **NO_METADATA,
        }
        try:
            receipt = store_landed(landed, place, store, receipts)
        except DataError as error:
            rows.append({**row, "problem": str(error)})
        else:
            described = _described(receipt.sidecar, store)
            rows.append({**row, "image_id": receipt.image, **described})
        progress(count)
    return make_table("raw_images", rows)


def store_landed(
    landed: LandedObject, place: LandingPlace, store: ObjectStore, receipts: Receipts
) -> Receipt:
    """Return the receipt of a landed object, which is in the lake by then, with its sidecar.

    What was stored once is not asked of the landing place again: people may empty it.
    """
    if landed.stamp.startswith(RELEASED):
        return Receipt(landed.stamp.removeprefix(RELEASED), landed.sidecar)
    known = receipts.find(landed)
    if known is not None:
        return known
    data = place.read(landed)
    image_id = hashlib.sha256(data).hexdigest()
    store.create(raw_key(image_id), data)
    return receipts.write(landed, Receipt(image_id, _store_sidecar(place, landed.sidecar, store)))


def _store_sidecar(place: LandingPlace, key: str, store: ObjectStore) -> str:
    if not key:
        return ""
    try:
        data = place.read_sidecar(key)
    except DataError as error:
        data = f"{key}: {error}".encode()
    if len(data) > MAXIMUM_BYTES:
        data = f"{key}: {len(data)} bytes, at most {MAXIMUM_BYTES} are read".encode()
    # What stands in for a sidecar that cannot be read is none either, and says why.
    digest = hashlib.sha256(data).hexdigest()
    store.create(sidecar_key(digest), data)
    return digest


def _described(sidecar: str, store: ObjectStore) -> dict[str, object]:
    if not sidecar:
        return {}
    try:
        metadata = read_sidecar(store.get(sidecar_key(sidecar))).metadata
    except DataError as error:
        return {"sidecar_sha256": sidecar, "problem": f"bad metadata: {error}"}
    return {"sidecar_sha256": sidecar, **metadata}
