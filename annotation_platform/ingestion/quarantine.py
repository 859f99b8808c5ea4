"""Quarantined images, and how a person restores them.

The original file stays in the lake. Restoring writes a permanent release; the image then arrives
again, in the next round, and is accepted whatever its quality.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.ingestion.rounds import Arrivals
from annotation_platform.schema.keys import raw_key
from annotation_platform.schema.rounds import RELEASED, Arrival
from annotation_platform.schema.tables import CleanedImages, Frame, RawImages, records
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.objects import ObjectStore

_SHORTEST = 8
"""Least number of digits that identify an image; a full id has 64."""


@dataclass(frozen=True)
class Release:
    """The restoration of an image: its id, its round and name, the reason and the time."""

    image_id: str
    round_id: str
    source_key: str
    byte_size: int
    sidecar: str
    reason: str
    released_at: str


@dataclass(frozen=True)
class QuarantinedImage:
    """A quarantined object: its reason, with the measured value, and its file.

    ``file`` is the key in the lake, empty if the object could not be read; ``put_back`` is the
    time when it was restored, empty if it was not.
    """

    image_id: str | None
    round_id: str
    source_key: str
    reason: str
    file: str
    put_back: str


def quarantined_images(cleaned: Frame[CleanedImages], store: ObjectStore) -> list[QuarantinedImage]:
    """Return the quarantined images of ``cleaned_images``, by round and name."""
    restored_at = {one.image_id: one.released_at[:16] for one in releases(store)}
    rows = cleaned[cleaned[CleanedImages.outcome] == Outcome.QUARANTINED]
    found = []
    for row in records(rows.sort_values([CleanedImages.round_id, CleanedImages.source_key])):
        image_id = row[CleanedImages.image_id]
        image_id = image_id if isinstance(image_id, str) else None
        found.append(
            QuarantinedImage(
                image_id=image_id,
                round_id=str(row[CleanedImages.round_id]),
                source_key=str(row[CleanedImages.source_key]),
                reason=str(row[CleanedImages.reason]),
                file=raw_key(image_id) if image_id else "",
                put_back=restored_at.get(image_id or "", ""),
            )
        )
    return found


def release(
    image_id: str,
    cleaned: Frame[CleanedImages],
    raw: Frame[RawImages],
    store: ObjectStore,
    *,
    why: str,
    now: datetime,
) -> Release:
    """Restore an image and return the release; an earlier release of it is kept unchanged.

    Args:
        image_id: id of the image, or its first eight or more digits.
        cleaned: ``cleaned_images`` of all rounds.
        raw: ``raw_images`` of all rounds.
        store: the lake.
        why: the person's reason, stored in the release.
        now: the time of the release.

    Raises:
        DataError: the image does not exist, is accepted, has the bytes or pixels of an accepted
            one, or cannot be decoded.
    """
    row = find_image(image_id, cleaned)
    _refuse_unless_quarantined(row, cleaned)
    found, round_id = str(row[CleanedImages.image_id]), str(row[CleanedImages.round_id])
    is_landed = (raw[RawImages.image_id] == found) & (raw[RawImages.round_id] == round_id)
    landed = raw[is_landed].iloc[0]
    sidecar = landed[RawImages.sidecar_sha256]
    restored = Release(
        image_id=found,
        round_id=round_id,
        source_key=str(landed[RawImages.source_key]),
        byte_size=int(landed[RawImages.byte_size]),
        sidecar="" if pd.isna(sidecar) else str(sidecar),
        reason=why,
        released_at=now.astimezone(UTC).isoformat(),
    )
    text = json.dumps(asdict(restored), indent=1, ensure_ascii=False)
    store.create(_key(found), text.encode())
    return Release(**json.loads(store.get(_key(found))))


def releases(store: ObjectStore) -> Iterator[Release]:
    """Yield all releases, ordered by image id."""
    return (Release(**json.loads(store.get(key))) for key in store.list("quarantine"))


def with_releases(landed: Arrivals, store: ObjectStore, *, now: datetime) -> Arrivals:
    """Return the arrivals and, as additional objects, the restored images."""
    objects, ages = list(landed.objects), dict(landed.ages)
    for restored in releases(store):
        item = Arrival(
            key=restored.source_key,
            stamp=f"{RELEASED}{restored.image_id}",
            byte_size=restored.byte_size,
            sidecar=restored.sidecar,
        )
        objects.append(item)
        age = now - datetime.fromisoformat(restored.released_at)
        ages[item] = max(0.0, age.total_seconds())
    return Arrivals(objects, ages)


def find_image(image_id: str, cleaned: Frame[CleanedImages]) -> "pd.Series[Any]":
    """Return the newest row of one image by the first eight or more digits of its id."""
    ids = cleaned[CleanedImages.image_id].fillna("")
    long_enough = len(image_id) >= _SHORTEST
    rows = cleaned[ids.str.startswith(image_id.lower())] if long_enough else cleaned[:0]
    if rows[CleanedImages.image_id].nunique() != 1:
        raise DataError(
            f"{image_id}: does not identify one image. `annotation-platform quarantine list "
            f"--json` shows the ids; give at least {_SHORTEST} digits."
        )
    return rows.sort_values(CleanedImages.round_id).iloc[-1]


def _refuse_unless_quarantined(row: "pd.Series[Any]", cleaned: Frame[CleanedImages]) -> None:
    image_id, reason = row[CleanedImages.image_id], row[CleanedImages.reason]
    name = str(image_id)[:12]
    rows = cleaned[cleaned[CleanedImages.image_id] == image_id]
    is_accepted = rows[CleanedImages.outcome] == Outcome.ACCEPTED
    accepted = rows.loc[is_accepted, CleanedImages.round_id]
    if not accepted.empty:
        raise DataError(f"{name}: is accepted already, in {accepted.iloc[0]}.")
    if reason in {"exact_bytes", "exact_pixels"}:
        raise DataError(
            f"{name}: is the same image as {row[CleanedImages.duplicate_of]}, which is accepted; "
            "it need not be restored."
        )
    if row[CleanedImages.width] == 0:
        raise DataError(
            f"{name}: cannot be decoded ({reason}), so it cannot be labelled. Land a sound copy "
            "instead."
        )


def _key(image_id: str) -> str:
    return f"quarantine/{image_id}.json"
