"""Ingestion of a round: copying its arrivals into the lake under their digests."""

import hashlib
from collections.abc import Sequence

from annotation_platform.errors import DataError
from annotation_platform.ingestion.containers import source_of
from annotation_platform.ingestion.landing_zone import LandingZone
from annotation_platform.ingestion.receipts import Receipts
from annotation_platform.ingestion.sidecars import (
    NO_METADATA,
    read_sidecar,
    unreadable_sidecar,
)
from annotation_platform.schema.keys import raw_key, sidecar_key
from annotation_platform.schema.rounds import RELEASED, Arrival, part_key
from annotation_platform.schema.tables import Frame, RawImages
from annotation_platform.storage.erasures import Erasures, refuse_meanwhile
from annotation_platform.storage.objects import ObjectStore


def ingest_round(
    round_id: str,
    objects: Sequence[Arrival],
    landing: LandingZone,
    store: ObjectStore,
    receipts: Receipts,
    *,
    maximum_bytes: int,
) -> Frame[RawImages]:
    """Copy the arrivals of a round into the lake and return its ``raw_images`` table.

    An object that is missing, unreadable, not a regular file or different from the manifest keeps
    its row, with the problem in it; its replacement belongs to a later round. The same holds for
    an object of more than ``maximum_bytes``, which is not read, for one with an unusable sidecar,
    and for an erased one.

    Raises:
        NotReadyError: an erasure is in progress.
    """
    refuse_meanwhile(store)
    rows: list[dict[str, object]] = []
    erasures = Erasures(store)
    for landed in objects:
        row: dict[str, object] = {
            RawImages.round_id: round_id,
            RawImages.source_key: landed.key,
            RawImages.arrival_version: landed.stamp,
            RawImages.byte_size: landed.byte_size,
            RawImages.image_id: None,
            RawImages.sidecar_sha256: None,
            RawImages.problem: "",
            **NO_METADATA,
        }
        try:
            if landed.byte_size > maximum_bytes:
                raise _too_large(landed, maximum_bytes)
            image_id = store_image(landed, landing, store, receipts, erasures)
            images = _images_of(landed, image_id, store, erasures)
        except DataError as error:
            rows.append({**row, RawImages.problem: str(error)})
        else:
            sidecar = _store_sidecar(landed, landing, store, receipts)
            row |= _sidecar_columns(sidecar, store)
            rows += [{**row, **image} for image in images]
    return RawImages.from_rows(rows)


def store_image(
    landed: Arrival,
    landing: LandingZone,
    store: ObjectStore,
    receipts: Receipts,
    erasures: Erasures,
) -> str:
    """Store the bytes of a landed object in the lake, and return its image id.

    A stored object is not read from the landing zone again, because people may empty it. An
    erased object is a DataError, and is not stored.
    """
    if landed.stamp.startswith(RELEASED):
        return landed.stamp.removeprefix(RELEASED)
    known = receipts.find(landed)
    if known is not None:
        _refuse_erased(known, erasures)
        return known
    data = landing.read(landed)
    image_id = hashlib.sha256(data).hexdigest()
    _refuse_erased(image_id, erasures)
    store.create(raw_key(image_id), data)
    return receipts.write(landed, image_id)


def _images_of(
    landed: Arrival, image_id: str, store: ObjectStore, erasures: Erasures
) -> list[dict[str, object]]:
    """Return the columns of each image of an arrival, and store the images of a container."""
    source = None if landed.stamp.startswith(RELEASED) else source_of(landed.key)
    if source is None:
        return [{RawImages.image_id: image_id}]
    rows: list[dict[str, object]] = []
    for index, image in enumerate(source(store.get(raw_key(image_id)))):
        part_id = hashlib.sha256(image.data).hexdigest()
        _refuse_erased(part_id, erasures)
        store.create(raw_key(part_id), image.data)
        rows.append(
            {
                RawImages.source_key: part_key(landed.key, index),
                RawImages.byte_size: len(image.data),
                RawImages.image_id: part_id,
                RawImages.parent_id: image_id,
                RawImages.frame_index: index,
                RawImages.timestamp_seconds: image.timestamp_seconds,
            }
        )
    if not rows:
        raise DataError("holds no image")
    return rows


def _refuse_erased(image_id: str, erasures: Erasures) -> None:
    erased = erasures.find(image_id)
    if erased is not None:
        raise DataError(f"{erased.sentence}; it is not taken in again")


def _store_sidecar(
    landed: Arrival, landing: LandingZone, store: ObjectStore, receipts: Receipts
) -> str:
    """Return the SHA-256 of the sidecar in its state when the round was first ingested."""
    if not landed.sidecar or landed.stamp.startswith(RELEASED):
        return landed.sidecar
    # A separate receipt: the image may have been stored before the sidecar arrived.
    sidecar = sidecar_receipt(landed)
    known = receipts.find(sidecar)
    if known is not None:
        return known
    try:
        data = landing.read_sidecar(landed.sidecar)
    except DataError as error:
        data = unreadable_sidecar(f"{landed.sidecar} {error}")
    digest = hashlib.sha256(data).hexdigest()
    store.create(sidecar_key(digest), data)
    return receipts.write(sidecar, digest)


def sidecar_receipt(landed: Arrival) -> Arrival:
    """Return the object that identifies the receipt of a landed object's sidecar."""
    return Arrival(landed.sidecar, f"of {landed.key}\0{landed.stamp}", 0)


def _too_large(landed: Arrival, maximum_bytes: int) -> DataError:
    return DataError(f"too many bytes: {landed.byte_size}, at most {maximum_bytes}")


def _sidecar_columns(sidecar: str, store: ObjectStore) -> dict[str, object]:
    if not sidecar:
        return {}
    try:
        metadata = read_sidecar(store.get(sidecar_key(sidecar))).metadata
    except DataError as error:
        return {RawImages.sidecar_sha256: sidecar, RawImages.problem: f"bad metadata: {error}"}
    return {RawImages.sidecar_sha256: sidecar, **metadata}
