"""What cleaning kept out, and how a person puts it back.

The file stays in the lake as it landed. Putting it back writes a release, once and for good; the
image then lands again, in the next round, and is accepted whatever its quality.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.ingestion.rounds import Arrivals
from annotation_platform.schema.rounds import RELEASED, Arrival
from annotation_platform.schema.tables import records
from annotation_platform.storage.keys import raw_key
from annotation_platform.storage.objects import ObjectStore

_SHORTEST = 8
"""Digits of an image id that must be given; all of them are 64."""


@dataclass(frozen=True)
class Release:
    """That an image was put back: which, from which round and name, when and why."""

    image_id: str
    round_id: str
    source_key: str
    byte_size: int
    sidecar: str
    reason: str
    released_at: str


@dataclass(frozen=True)
class QuarantinedImage:
    """A landed object that was kept out: its reason, with the measured value, and its file.

    ``file`` is the key in the lake, empty where nothing could be read; ``put_back`` when somebody
    put it back, empty if nobody did.
    """

    image_id: str | None
    round_id: str
    source_key: str
    reason: str
    file: str
    put_back: str


def kept_out(cleaned: pd.DataFrame, store: ObjectStore) -> list[QuarantinedImage]:
    """Return what ``cleaned_images`` has in quarantine, by round and name."""
    back = {one.image_id: one.released_at[:16] for one in releases(store)}
    rows = cleaned[cleaned["outcome"] == "quarantined"].sort_values(["round_id", "source_key"])
    kept = []
    for row in records(rows):
        image_id = row["image_id"] if isinstance(row["image_id"], str) else None
        kept.append(
            QuarantinedImage(
                image_id=image_id,
                round_id=str(row["round_id"]),
                source_key=str(row["source_key"]),
                reason=str(row["reason"]),
                file=raw_key(image_id) if image_id else "",
                put_back=back.get(image_id or "", ""),
            )
        )
    return kept


def release(
    image_id: str,
    cleaned: pd.DataFrame,
    raw: pd.DataFrame,
    store: ObjectStore,
    *,
    why: str,
    now: datetime,
) -> Release:
    """Put an image back and return the release; one that was put back before stays as it was.

    Args:
        image_id: the image, or the first eight or more digits of it.
        cleaned: ``cleaned_images`` of all rounds.
        raw: ``raw_images`` of all rounds.
        store: the lake.
        why: the person's reason, kept in the record.
        now: the time of it.

    Raises:
        DataError: there is no such image, it is accepted, it repeats an accepted one to the
            pixel, or it cannot be decoded.
    """
    row = find_image(image_id, cleaned)
    _must_be_out(row, cleaned)
    found = str(row["image_id"])
    landed = raw[(raw["image_id"] == found) & (raw["round_id"] == row["round_id"])].iloc[0]
    made = Release(
        image_id=found,
        round_id=str(row["round_id"]),
        source_key=str(landed["source_key"]),
        byte_size=int(landed["byte_size"]),
        sidecar="" if pd.isna(landed["sidecar_sha256"]) else str(landed["sidecar_sha256"]),
        reason=why,
        released_at=now.astimezone(UTC).isoformat(),
    )
    text = json.dumps(asdict(made), indent=1, ensure_ascii=False)
    store.create(_key(found), text.encode())
    return Release(**json.loads(store.get(_key(found))))


def releases(store: ObjectStore) -> Iterator[Release]:
    """Yield every release, by image id."""
    return (Release(**json.loads(store.get(key))) for key in store.list("quarantine"))


def with_releases(landed: Arrivals, store: ObjectStore, *, now: datetime) -> Arrivals:
    """Return what landed and, as objects of their own, the images that were put back."""
    objects, ages = list(landed.objects), dict(landed.ages)
    for put_back in releases(store):
        item = Arrival(
            key=put_back.source_key,
            stamp=f"{RELEASED}{put_back.image_id}",
            byte_size=put_back.byte_size,
            sidecar=put_back.sidecar,
        )
        objects.append(item)
        age = now - datetime.fromisoformat(put_back.released_at)
        ages[item] = max(0.0, age.total_seconds())
    return Arrivals(objects, ages)


def find_image(image_id: str, cleaned: pd.DataFrame) -> "pd.Series[Any]":
    """Return the newest row of one image by the first eight or more digits of its id."""
    ids = cleaned["image_id"].fillna("")
    long_enough = len(image_id) >= _SHORTEST
    rows = cleaned[ids.str.startswith(image_id.lower())] if long_enough else cleaned[:0]
    if rows["image_id"].nunique() != 1:
        raise DataError(
            f"{image_id}: names no single image. `annotation-platform quarantine list --json` "
            f"shows the ids; at least {_SHORTEST} digits are needed."
        )
    return rows.sort_values("round_id").iloc[-1]


def _must_be_out(row: "pd.Series[Any]", cleaned: pd.DataFrame) -> None:
    name = str(row["image_id"])[:12]
    rows = cleaned[cleaned["image_id"] == row["image_id"]]
    accepted = rows.loc[rows["outcome"] == "accepted", "round_id"]
    if not accepted.empty:
        raise DataError(f"{name}: is accepted already, in {accepted.iloc[0]}.")
    if row["reason"] in {"exact_bytes", "exact_pixels"}:
        raise DataError(
            f"{name}: is the same image as {row['duplicate_of']}, which is accepted; there is "
            "nothing to put back."
        )
    if row["width"] == 0:
        raise DataError(
            f"{name}: cannot be decoded ({row['reason']}), so nobody could label it. Land a sound "
            "copy instead."
        )


def _key(image_id: str) -> str:
    return f"quarantine/{image_id}.json"
