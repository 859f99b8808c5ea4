"""Opening a lake together with the landing zone from which it takes images."""

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from annotation_platform.actor import command_actor
from annotation_platform.ingestion.ingest import ingest_round
from annotation_platform.ingestion.landing_zone import LandingZone, open_landing_zone
from annotation_platform.ingestion.quarantine import with_releases
from annotation_platform.ingestion.receipts import Receipts, open_receipts
from annotation_platform.ingestion.rounds import Arrivals, RoundManifests
from annotation_platform.schema.keys import SHOWN
from annotation_platform.schema.tables import Frame, RawImages
from annotation_platform.settings import Settings
from annotation_platform.storage.audited import AccessLog, AccessLoggedStore
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.mounted import MountedStore
from annotation_platform.storage.objects import LocalObjectStore, ObjectStore
from annotation_platform.storage.read_once import ReadOnceStore
from annotation_platform.storage.s3 import Bucket, S3ObjectStore, is_s3

_READ_ONCE = ("tables/cleaned_images",)
"""Folders that nearly every step of a run reads, and that only runs of the same round write."""


@dataclass(frozen=True, kw_only=True)
class LandingLake(Lake):
    """A lake and the landing zone from which it takes images.

    Attributes:
        landing: the landing zone.
        receipts: the arrivals that are in the lake, with their image ids.
    """

    landing: LandingZone
    receipts: Receipts

    @property
    def manifests(self) -> RoundManifests:
        """The arrivals of each round."""
        return RoundManifests(self.store)

    def ingest(self, round_id: str, *, maximum_bytes: int) -> Frame[RawImages]:
        """Copy the arrivals of a round into the lake; return its ``raw_images`` table."""
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


@dataclass(frozen=True)
class LakeUsage:
    """How a process uses a lake.

    Attributes:
        audit: the log that records each access; None to record none.
        runner: the engine that processes images; see `map_each` of ``storage/engine.py``.
        held: receives the tables of images that are read, so that a run reads each once; None to
            read them each time.
    """

    audit: AccessLog | None = None
    runner: str = ""
    held: dict[str, bytes] | None = None


def open_lake(
    lake: str | Path,
    landing: str | Path,
    *,
    cache: Path | None = None,
    receipts: str = "",
    shown: str = "",
    client: Any = None,
    usage: LakeUsage = LakeUsage(),
) -> LandingLake:
    """Return the lake at an address; the first write creates it.

    Args:
        lake: a folder, or ``s3://bucket/prefix``.
        landing: address of the landing zone, likewise.
        cache: a folder for copies of objects in S3; by default one for temporary files.
        receipts: ``dynamodb://table`` for the receipts of arrivals; by default they are in the
            lake.
        shown: address of the masked images that people see; by default they are in the lake.
        client: for S3; by default one configured by AWS's variables.
        usage: access log, engine and cache of this process.
    """
    store = _open_store(str(lake), cache, client)
    if shown and shown != f"{lake}/{SHOWN}":
        store = MountedStore(store, SHOWN, _open_store(shown, cache, client))
    if usage.held is not None:
        store = ReadOnceStore(store, _READ_ONCE, usage.held)
    if usage.audit is not None:
        store = AccessLoggedStore(store, usage.audit)
    return LandingLake(
        store=store,
        runner=usage.runner,
        landing=open_landing_zone(str(landing), client),
        receipts=open_receipts(receipts, store),
    )


def lake_of(settings: Settings, *, audited: bool = True) -> LandingLake:
    """Return the lake of a deployment, for a command.

    Accesses are recorded in the access log if ``audited``. Commands that read the access log
    itself are not audited, because they must not change it.
    """
    audit = access_log_of(settings) if audited else None
    return open_lake(
        settings.lake_url,
        settings.landing_url,
        cache=settings.cache_path,
        receipts=settings.receipts,
        shown=settings.shown_url,
        usage=LakeUsage(audit=audit, runner=settings.runner),
    )


def access_log_of(settings: Settings) -> AccessLog:
    """Return the log of accesses to the lake from this home, for a command."""
    return AccessLog(settings.audit_path, command_actor())


def _open_store(url: str, cache: Path | None, client: Any) -> ObjectStore:
    if not is_s3(url):
        return LocalObjectStore(Path(url))
    copies = cache or Path(tempfile.gettempdir()) / "annotation-platform"
    return S3ObjectStore(Bucket(url, client), copies)
