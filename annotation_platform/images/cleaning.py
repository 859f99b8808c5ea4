"""Cleaning of a round: each landed object is accepted, a duplicate, or quarantined.

There are two passes over a round, so that only a few images are in memory at a time: the first
probes each image, then all are compared, and the second stores the accepted ones.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from annotation_platform.errors import DataError
from annotation_platform.images.accepted import only_accepted
from annotation_platform.images.outcomes import (
    decide_outcomes,
    has_bytes,
    move_signature,
    needed_columns,
)
from annotation_platform.images.parallel import map_each
from annotation_platform.images.probing import CONVERTED, Probe, probe_image, stored_bytes
from annotation_platform.images.signature import signature_rows
from annotation_platform.images.signature_files import read_signatures, write_signatures
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.keys import image_key, raw_key
from annotation_platform.schema.tables import CleanedImages, Frame, RawImages, records
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class ProbeImage:
    """Probes the original bytes of an image id."""

    store: ObjectStore
    policy: CleaningPolicy

    def __call__(self, image_id: str) -> Probe:
        """Return the result of the probe; without a decodable image it has only a reason.

        Original bytes that are missing from the lake are a DataError, not a reason to quarantine.
        """
        data = self.store.get(raw_key(image_id))
        try:
            return probe_image(data, self.policy)
        except DataError as error:
            return Probe(reason=str(error))


@dataclass(frozen=True)
class Accepted:
    """An image to be stored: digest of its stored bytes, and whether it is converted to PNG."""

    image_id: str
    extension: str
    stored_sha256: str
    pixels: int
    is_converted: bool


@dataclass(frozen=True)
class KeepImage:
    """Stores an accepted image, unless it is stored already."""

    store: ObjectStore

    def __call__(self, image: Accepted) -> str:
        """Store the image; return an error if its original bytes have changed since the probe."""
        key = raw_key(image.image_id)
        try:
            raw = self.store.get(key)
            data = stored_bytes(raw, image.pixels, is_converted=image.is_converted)
        except DataError as error:
            return f"{key}: {error}"
        if hashlib.sha256(data).hexdigest() != image.stored_sha256:
            return f"{key}: changed in the lake during cleaning. Restore it and clean again."
        self.store.create(image_key(image.image_id, image.extension), data)
        return ""


def clean_round(
    raw: Frame[RawImages],
    earlier: Frame[CleanedImages],
    store: ObjectStore,
    policy: CleaningPolicy,
    *,
    runner: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Frame[CleanedImages]:
    """Return the ``cleaned_images`` table of a round and store its accepted images.

    The signatures of accepted images are stored too, for later rounds.

    Args:
        raw: the round's ``raw_images``. A row with a problem or without mandatory metadata is
            quarantined. A row that a person restored is accepted whatever its quality, metadata
            or near-duplicates, if it can be decoded and its bytes and pixels are new.
        earlier: ``cleaned_images`` of all earlier rounds; only accepted rows count. An image that
            repeats one of them, or an earlier one of this round (by name), is its duplicate; see
            `find_duplicate_status`.
        store: the lake with the original bytes.
        policy: the limits.
        runner: the engine of the passes over images, see `map_each`.
        progress: called with the number of distinct images that were probed.

    Returns:
        One row per row of ``raw``, in its order. Accepted images keep their coded data where it
        needs no change; the metadata of all is removed.
    """
    needed = raw[needed_columns(policy)]
    key_columns = [RawImages.source_key, RawImages.arrival_version]
    rows = records(needed.sort_values(key_columns, kind="stable"))
    distinct = list(dict.fromkeys(str(row[RawImages.image_id]) for row in rows if has_bytes(row)))
    known = only_accepted(earlier)
    signatures = signature_rows(len(known) + len(distinct))
    read_signatures(store, known, signatures[: len(known)])
    probes: dict[str, Probe] = {}
    results = map_each(ProbeImage(store, policy), distinct, runner=runner)
    for position, (image_id, probe) in enumerate(zip(distinct, results, strict=True)):
        probes[image_id] = move_signature(probe, image_id, signatures, len(known) + position)
        progress(position + 1)
    decided = decide_outcomes(rows, probes, known, signatures, policy)
    accepted = [row for row in decided if row[CleanedImages.outcome] == Outcome.ACCEPTED]
    for problem in map_each(KeepImage(store), [_accepted(row) for row in accepted], runner=runner):
        if problem:
            raise DataError(problem)
    by_key = {
        (row[CleanedImages.source_key], row[CleanedImages.arrival_version]): row for row in decided
    }
    in_order = [by_key[key] for key in zip(*(raw[each] for each in key_columns), strict=True)]
    cleaned = CleanedImages.from_rows(in_order)
    row_of = {image_id: row for row, image_id in enumerate(distinct, start=len(known))}
    stored = np.array(
        [row_of[str(row[CleanedImages.image_id])] for row in accepted], dtype=np.int64
    )
    # For a hundred thousand images these take hundreds of megabytes, and the last step needs more.
    del rows, probes, decided, accepted, by_key, in_order
    for round_id in dict.fromkeys(cleaned[CleanedImages.round_id]):
        write_signatures(store, round_id, signatures, stored)
    return cleaned


def _accepted(row: Mapping[str, Any]) -> Accepted:
    return Accepted(
        row[CleanedImages.image_id],
        row[CleanedImages.extension],
        row[CleanedImages.stored_sha256],
        row[CleanedImages.width] * row[CleanedImages.height],
        CONVERTED in row[CleanedImages.flags],
    )
