"""From the landing zone into the lake: the bytes of a round, by their digest."""

import hashlib
from collections.abc import Callable, Sequence

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.governance.erasure.record import Erasures, refuse_meanwhile
from annotation_platform.ingestion.landing_zone import LandingZone
from annotation_platform.ingestion.receipts import Receipts
from annotation_platform.ingestion.sidecars import (
    NO_METADATA,
    read_sidecar,
    unreadable_sidecar,
)
from annotation_platform.schema.rounds import RELEASED, Arrival
from annotation_platform.schema.tables import RawImages
from annotation_platform.storage.keys import raw_key, sidecar_key
from annotation_platform.storage.objects import ObjectStore


def ingest_round(
    round_id: str,
    objects: Sequence[Arrival],
    place: LandingZone,
    store: ObjectStore,
    receipts: Receipts,
    *,
    maximum_bytes: int,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Copy the landed bytes of a round into the lake and return its ``raw_images`` table.

    An object that is gone, unreadable, not a regular file or no longer what the manifest says
    keeps its row, with the problem in it; what replaced it belongs to a later round. So does one
    of more than ``maximum_bytes``, which is not read, one whose sidecar cannot be used, and what
    was erased. While an erasure is under way it is a NotReadyError.
    """
    refuse_meanwhile(store)
    rows: list[dict[str, object]] = []
    erasures = Erasures(store)
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
            if landed.byte_size > maximum_bytes:
                raise _too_large(landed, maximum_bytes)
            row["image_id"] = store_arrivals(landed, place, store, receipts, erasures)
        except DataError as error:
            rows.append({**row, "problem": str(error)})
        else:
            sidecar = _store_sidecar(landed, place, store, receipts)
            rows.append({**row, **_described(sidecar, store)})
        progress(count)
    return RawImages.from_rows(rows)


def store_arrivals(
    landed: Arrival,
    place: LandingZone,
    store: ObjectStore,
    receipts: Receipts,
    erasures: Erasures,
) -> str:
    """Return the image id of a landed object, whose bytes are in the lake by then.

    What was stored once is not asked of the landing zone again: people may empty it. What was
    erased is a DataError, and is not stored.
    """
    if landed.stamp.startswith(RELEASED):
        return landed.stamp.removeprefix(RELEASED)
    known = receipts.find(landed)
    if known is not None:
        _refuse_erased(known, erasures)
        return known
    data = place.read(landed)
    image_id = hashlib.sha256(data).hexdigest()
    _refuse_erased(image_id, erasures)
    store.create(raw_key(image_id), data)
    return receipts.write(landed, image_id)


def _refuse_erased(image_id: str, erasures: Erasures) -> None:
    erased = erasures.find(image_id)
    if erased is not None:
        raise DataError(f"{erased.sentence}; it is not taken in again")


def _store_sidecar(
    landed: Arrival, place: LandingZone, store: ObjectStore, receipts: Receipts
) -> str:
    """Return the SHA-256 of the sidecar as it was when its round was first ingested."""
    if not landed.sidecar or landed.stamp.startswith(RELEASED):
        return landed.sidecar
    # A receipt of its own: whoever stored the image early may not have seen the sidecar yet.
    described = sidecar_receipt(landed)
    known = receipts.find(described)
    if known is not None:
        return known
    try:
        data = place.read_sidecar(landed.sidecar)
    except DataError as error:
        data = unreadable_sidecar(f"{landed.sidecar} {error}")
    digest = hashlib.sha256(data).hexdigest()
    store.create(sidecar_key(digest), data)
    return receipts.write(described, digest)


def sidecar_receipt(landed: Arrival) -> Arrival:
    """Return the object under which the receipt of a landed object's sidecar is."""
    return Arrival(landed.sidecar, f"of {landed.key}\0{landed.stamp}", 0)


def _too_large(landed: Arrival, maximum_bytes: int) -> DataError:
    return DataError(f"too many bytes: {landed.byte_size}, at most {maximum_bytes}")


def _described(sidecar: str, store: ObjectStore) -> dict[str, object]:
    if not sidecar:
        return {}
    try:
        metadata = read_sidecar(store.get(sidecar_key(sidecar))).metadata
    except DataError as error:
        return {"sidecar_sha256": sidecar, "problem": f"bad metadata: {error}"}
    return {"sidecar_sha256": sidecar, **metadata}
