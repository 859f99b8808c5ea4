"""The lake together with the landing zone that it takes images from, and how both are opened."""

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from annotation_platform.actor import command_actor
from annotation_platform.ingestion.ingest import ingest_round
from annotation_platform.ingestion.landing_zone import LandingZone, open_landing_zone
from annotation_platform.ingestion.quarantine import with_releases
from annotation_platform.ingestion.receipts import Receipts, open_receipts
from annotation_platform.ingestion.rounds import Arrivals, RoundManifests
from annotation_platform.settings import Settings
from annotation_platform.storage.audited import AuditedStore, AuditLog
from annotation_platform.storage.keys import SHOWN
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.mounted import MountedStore
from annotation_platform.storage.objects import LocalObjectStore, ObjectStore
from annotation_platform.storage.read_once import ReadOnceStore
from annotation_platform.storage.s3 import Bucket, S3ObjectStore, is_s3

_READ_ONCE = ("tables/cleaned_images",)
"""Folders that only a run of the same round writes, and nearly every step reads."""


@dataclass(frozen=True, kw_only=True)
class LandingLake(Lake):
    """A lake and the landing zone it takes images from.

    Attributes:
        landing: where images arrive.
        receipts: which arrivals were taken, and under which image id.
    """

    landing: LandingZone
    receipts: Receipts

    @property
    def manifests(self) -> RoundManifests:
        """The arrivals of each round."""
        return RoundManifests(self.store)

    def ingest(self, round_id: str, *, maximum_bytes: int) -> pd.DataFrame:
        """Take the arrivals of a round into the lake; return its ``raw_images`` table."""
        return ingest_round(
            round_id,
            self.manifests.read(round_id),
            self.landing,
            self.store,
            self.receipts,
            maximum_bytes=maximum_bytes,
        )

    def landed(self, *, now: datetime) -> Arrivals:
        """Return the arrivals that can become a round, restored ones included."""
        return with_releases(self.landing.list(now=now), self.store, now=now)


def open_lake(
    lake: str | Path,
    landing: str | Path,
    *,
    cache: Path | None = None,
    receipts: str = "",
    shown: str = "",
    client: Any = None,
    audit: AuditLog | None = None,
    runner: str = "",
    held: dict[str, bytes] | None = None,
) -> LandingLake:
    """Return the lake at a place; it is made by the first thing written.

    Args:
        lake: a folder, or ``s3://bucket/prefix``.
        landing: where it takes images from, likewise.
        cache: a folder for copies of what lies in S3, needed where the lake does.
        receipts: ``dynamodb://table`` to keep there what has landed; by default the lake does.
        shown: where what people see lies where classes are masked; by default in the lake.
        client: for S3; by default one by AWS's variables.
        audit: where to write down each use of the lake, if at all.
        runner: what works on its images.
        held: receives the tables of images that are read, so that each is read once; for a run.
    """
    store = _open_store(str(lake), cache, client)
    if shown and shown != f"{lake}/{SHOWN}":
        store = MountedStore(store, SHOWN, _open_store(shown, cache, client))
    if held is not None:
        store = ReadOnceStore(store, _READ_ONCE, held)
    if audit is not None:
        store = AuditedStore(store, audit)
    return LandingLake(
        store=store,
        runner=runner,
        landing=open_landing_zone(str(landing), client),
        receipts=open_receipts(receipts, store),
    )


def lake_of(settings: Settings, *, audited: bool = True) -> LandingLake:
    """Return the lake of a deployment, for a person's command.

    Its use is written down, unless it is not ``audited``: that is for looking at what is written
    down, which must not change by being looked at.
    """
    return open_lake(
        settings.lake_url,
        settings.landing_url,
        cache=settings.cache_path,
        receipts=settings.receipts,
        shown=settings.shown_url,
        audit=uses_of(settings) if audited else None,
        runner=settings.runner,
    )


def uses_of(settings: Settings) -> AuditLog:
    """Return the log of the lake's uses from this home, for a person's command."""
    return AuditLog(settings.audit_path, command_actor())


def _open_store(place: str, cache: Path | None, client: Any) -> ObjectStore:
    if not is_s3(place):
        return LocalObjectStore(Path(place))
    copies = cache or Path(tempfile.gettempdir()) / "annotation-platform"
    return S3ObjectStore(Bucket(place, client), copies)
