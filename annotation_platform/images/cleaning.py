"""The cleaning pass: each landed object ends accepted, duplicate of one, or quarantined.

A round is gone through twice, so that never more than a few images are in memory: the first
pass looks at each image, then all are compared, and the second stores those that are accepted.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.outcomes import has_bytes, judge, needed_columns, put_away
from annotation_platform.images.parallel import map_each
from annotation_platform.images.probing import CONVERTED, Probe, look_at, stored_bytes
from annotation_platform.images.signature import signature_rows
from annotation_platform.images.signature_files import read_signatures, write_signatures
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.tables import CleanedImages, records
from annotation_platform.storage.keys import image_key, raw_key
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class ProbeImage:
    """Looks at the landed image of an image id."""

    store: ObjectStore
    policy: CleaningPolicy

    def __call__(self, image_id: str) -> Probe:
        """Return what a look finds; what cannot be decoded has the reason alone.

        Landed bytes that the lake has lost are a DataError: no image is given up for that.
        """
        data = self.store.get(raw_key(image_id))
        try:
            return look_at(data, self.policy)
        except DataError as error:
            return Probe(reason=str(error))


@dataclass(frozen=True)
class Accepted:
    """An image to be stored: what its stored bytes must be, and whether they are made anew."""

    image_id: str
    extension: str
    stored_sha256: str
    pixels: int
    is_converted: bool


@dataclass(frozen=True)
class KeepImage:
    """Stores an accepted image, if it is not there yet."""

    store: ObjectStore

    def __call__(self, image: Accepted) -> str:
        """Store it; return what is wrong if what landed is no longer what was looked at."""
        key = raw_key(image.image_id)
        try:
            raw = self.store.get(key)
            data = stored_bytes(raw, image.pixels, is_converted=image.is_converted)
        except DataError as error:
            return f"{key}: {error}"
        if hashlib.sha256(data).hexdigest() != image.stored_sha256:
            return f"{key}: changed in the lake while it was cleaned. Restore it and clean again."
        self.store.create(image_key(image.image_id, image.extension), data)
        return ""


def clean_round(
    raw: pd.DataFrame,
    earlier: pd.DataFrame,
    store: ObjectStore,
    policy: CleaningPolicy,
    *,
    runner: str | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Return the ``cleaned_images`` table of a round and store its accepted images.

    Their signatures are stored beside them, for later rounds.

    Args:
        raw: the round's ``raw_images``. A row with a problem or without mandatory metadata is
            quarantined. One that a person released is accepted whatever its quality, metadata or
            near-duplicates, if it can be decoded and its bytes and pixels are not there yet.
        earlier: ``cleaned_images`` of all earlier rounds; only their accepted rows count. An image
            that repeats one of them, or one before it in this round (by name), is its duplicate;
            see `find_standings`.
        store: the lake, with the landed bytes in it.
        policy: the limits.
        runner: what does the passes over images, see `map_each`.
        progress: told how many distinct images were looked at.

    Returns:
        One row per row of ``raw``, in its order. Accepted images keep their coded data where it
        needs no change; metadata is cut out of all of them.
    """
    needed = raw[needed_columns(policy)]
    rows = records(needed.sort_values(["source_key", "stamp"], kind="stable"))
    distinct = list(dict.fromkeys(str(row["image_id"]) for row in rows if has_bytes(row)))
    known = earlier[earlier["outcome"] == "accepted"].reset_index(drop=True)
    signatures = signature_rows(len(known) + len(distinct))
    read_signatures(store, known, signatures[: len(known)])
    seen: dict[str, Probe] = {}
    looks = zip(distinct, map_each(ProbeImage(store, policy), distinct, runner=runner), strict=True)
    for count, (image_id, look) in enumerate(looks, start=1):
        seen[image_id] = put_away(look, image_id, signatures, len(known) + count - 1)
        progress(count)
    result = judge(rows, seen, known, signatures, policy)
    accepted = [row for row in result if row["outcome"] == "accepted"]
    for problem in map_each(KeepImage(store), [_to_keep(row) for row in accepted], runner=runner):
        if problem:
            raise DataError(problem)
    order = {(row["source_key"], row["stamp"]): row for row in result}
    in_order = [order[key] for key in zip(raw["source_key"], raw["stamp"], strict=True)]
    cleaned = CleanedImages.from_rows(in_order)
    places = {image_id: place for place, image_id in enumerate(distinct, start=len(known))}
    kept = np.array([places[str(row["image_id"])] for row in accepted], dtype=np.int64)
    # Of a hundred thousand images these are hundreds of megabytes, and the last step takes more.
    del rows, seen, result, accepted, order, in_order
    for round_id in dict.fromkeys(cleaned["round_id"]):
        write_signatures(store, round_id, signatures, kept)
    return cleaned


def _to_keep(row: Mapping[str, Any]) -> Accepted:
    return Accepted(
        row["image_id"],
        row["extension"],
        row["stored_sha256"],
        row["width"] * row["height"],
        CONVERTED in row["flags"],
    )
