"""The lake as the platform uses it: objects, tables, round manifests and the answers ledger."""

import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd

from annotation_platform.audit_log.events import EventLog
from annotation_platform.curation.carry_over import carry_over
from annotation_platform.doer import command_doer
from annotation_platform.errors import NotReadyError
from annotation_platform.labeling.ledger import AnswersLedger
from annotation_platform.landing.ingest import ingest_round
from annotation_platform.landing.places import LandingPlace, open_landing
from annotation_platform.landing.quarantine import with_releases
from annotation_platform.landing.receipts import Receipts, open_receipts
from annotation_platform.landing.rounds import Landed, RoundManifests
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    BatchDrift,
    CleanedImages,
    Frame,
    ImportedLabels,
    LabelTasks,
    ReviewedLabels,
    RoundTasks,
    SelectedImages,
    Table,
)
from annotation_platform.schema.tables.shared import LABEL_COLUMNS
from annotation_platform.selection.pins import Pin, Pins
from annotation_platform.settings import Settings
from annotation_platform.storage.audited import AuditedStore, AuditLog
from annotation_platform.storage.keys import SHOWN, image_key
from annotation_platform.storage.mounted import MountedStore
from annotation_platform.storage.objects import LocalObjectStore, ObjectStore
from annotation_platform.storage.round_tables import RoundTables
from annotation_platform.storage.s3 import Bucket, S3ObjectStore, is_s3

T = TypeVar("T", bound=Table)
_REJECTED = "A reviewer rejected the last labels of this picture: "


@dataclass(frozen=True)
class Lake:
    """Everything the platform keeps, and the landing place it takes images from.

    ``runner`` is what works on its pictures: this machine, or a Ray cluster; see `map_each` of
    ``storage/engine.py``.
    """

    store: ObjectStore
    landing: LandingPlace
    receipts: Receipts
    runner: str = ""

    @property
    def tables(self) -> RoundTables:
        """The tables, by name and round."""
        return RoundTables(self.store)

    @property
    def manifests(self) -> RoundManifests:
        """What landed for each round."""
        return RoundManifests(self.store)

    @property
    def ledger(self) -> AnswersLedger:
        """Every answer ever seen."""
        return AnswersLedger(self.store)

    @property
    def events(self) -> EventLog:
        """What was published, decided and changed, by whom, when and why."""
        return EventLog(self.store)

    def ingest(self, round_id: str, *, maximum_bytes: int) -> pd.DataFrame:
        """Take what landed for a round into the lake; return its ``raw_images`` table."""
        return ingest_round(
            round_id,
            self.manifests.read(round_id),
            self.landing,
            self.store,
            self.receipts,
            maximum_bytes=maximum_bytes,
        )

    def landed(self, *, now: datetime) -> Landed:
        """Return what can become a round: what lies in the landing place or was put back."""
        return with_releases(self.landing.list(now=now), self.store, now=now)

    def picture(self, image_id: str, extension: str) -> bytes:
        """Return the bytes of a cleaned picture."""
        return self.store.get(image_key(image_id, extension))

    def picture_path(self, image_id: str, extension: str) -> Path:
        """Return a file with the bytes of a cleaned picture."""
        return self.store.local_path(image_key(image_id, extension))

    def earlier(self, table: type[T], round_id: str, *, without: Collection[str] = ()) -> Frame[T]:
        """Return a table of all rounds before this one; NotReadyError if one lacks it.

        What a round may hold depends on what earlier rounds hold, so rounds go in order here. Those
        ``without`` it are not waited for.
        """
        before = [key for key in self.manifests.rounds() if key < round_id]
        for key in before:
            if not self.tables.exists(table, key) and key not in without:
                raise NotReadyError(
                    f"{round_id} waits for {table.table_name} of {key}: "
                    f"run start_round for {key} first."
                )
        return self.tables.read_rounds(table, before)

    def accepted_images(self) -> pd.DataFrame:
        """Return the ``cleaned_images`` rows of every accepted image of every round."""
        images = self.tables.read_all(CleanedImages)
        return images[images["outcome"] == "accepted"].reset_index(drop=True)

    def held_rounds(self, gate: Literal["warn", "hold"]) -> list[str]:
        """Return the rounds that drifted and that nobody is asked about because of it, in order.

        ``gate`` is the policy's: with ``warn`` there are none. A round that people are asked about
        all the same, because somebody materialised its ``label_tasks``, is none of them.
        """
        if gate == "warn":
            return []
        asked = set(self.tables.rounds(LabelTasks))
        seen = [key for key in self.tables.rounds(BatchDrift) if key not in asked]
        return [key for key in seen if self.tables.read(BatchDrift, key)["drifted"].any()]

    def unasked_images(
        self,
        round_id: str,
        ontology: Ontology,
        *,
        ask_about_imported: bool = False,
        held: Collection[str] = (),
    ) -> pd.DataFrame:
        """Return the accepted images, up to this round, that people should be asked about.

        Those are the ones that no other round asks about, and those that another round gave back:
        it was closed before they were answered, or cancelled; a reviewer rejected
        their labels; or a class in their labels was split since; and those that somebody pinned
        after they were asked about. Images with usable labels of their own are left out, unless
        people are to be asked about them all the same, or somebody pinned them; so are those of
        other ``held`` rounds. What a later round, which went on meanwhile, asks about is its own.
        """
        images = self.accepted_images()
        images = images[~images["round_id"].isin(set(held) - {round_id})]
        asked = pd.concat(
            [
                self.earlier(SelectedImages, round_id, without=held),
                self._asked_meanwhile(round_id),
            ],
            ignore_index=True,
        )
        given_back = self._given_back(ontology)
        pairs = zip(asked["image_id"], asked["round_id"], strict=True)
        known = {image for image, asked_in in pairs if (image, asked_in) not in given_back}
        if not ask_about_imported:
            imported = self.tables.read_all(ImportedLabels)
            usable = carry_over(imported[imported["problem"] == ""], ontology)
            known |= set(usable.labels["image_id"])
        known -= _pinned_since(Pins(self.store).read(), asked)
        open_ = (images["round_id"] <= round_id) & ~images["image_id"].isin(known)
        return images[open_].reset_index(drop=True)

    def _asked_meanwhile(self, round_id: str) -> pd.DataFrame:
        """Return what later rounds ask about, save what this one already asks about itself."""
        rounds = self.tables.rounds(SelectedImages)
        later = self.tables.read_rounds(SelectedImages, [one for one in rounds if one > round_id])
        own = self.tables.read_rounds(SelectedImages, [round_id])
        return later[~later["image_id"].isin(own["image_id"])]

    def _given_back(self, ontology: Ontology) -> set[tuple[str, str]]:
        """Return the images, each with its round, whose question that round leaves open."""
        tables = self.tables
        found: set[tuple[str, str]] = set()
        for key in tables.rounds(RoundTasks):
            tasks = tables.read_columns(RoundTasks, key, ["image_id", "state"])
            left = tasks.loc[tasks["state"].isin(["left", "cancelled"]), "image_id"]
            found |= {(image, key) for image in left}
        divided = [old for old, new in ontology.successors.items() if len(new) > 1]
        again: set[str] = set()
        looked_at: dict[str, set[str]] = {}
        for key in tables.rounds(ReviewedLabels):
            columns = ["image_id", "decision", "class_name"]
            labels = tables.read_columns(ReviewedLabels, key, columns)
            rejected = labels.loc[labels["decision"] == "rejected", "image_id"]
            found |= {(image, key) for image in rejected.unique()}
            again |= set(labels.loc[labels["class_name"].isin(divided), "image_id"])
            looked_at[key] = set(labels["image_id"].unique())
        # All that was ever said of an image with a class that was split is open again.
        return found | {(one, key) for key, images in looked_at.items() for one in images & again}

    def rejections(self) -> dict[str, str]:
        """Return what to tell people of an image whose latest labels were rejected, by its id."""
        reviewed = self.tables.read_all(ReviewedLabels).sort_values("round_id", kind="stable")
        last = reviewed.drop_duplicates("image_id", keep="last")
        rejected = last[last["decision"] == "rejected"]
        why = _REJECTED + rejected["comment"]
        return dict(zip(rejected["image_id"], why, strict=True))

    def known_labels(self, origins: Collection[str]) -> pd.DataFrame:
        """Return the labels of images whose answer is known, the latest of each image.

        A reviewer accepted or fixed them, or they landed with a label of one of these origins.
        """
        reviewed = self.tables.read_all(ReviewedLabels)
        reviewed = reviewed[reviewed["decision"].isin(["accepted", "fixed"])]
        imported = self.tables.read_all(ImportedLabels)
        imported = imported[(imported["problem"] == "") & imported["origin"].isin(origins)]
        columns = ["round_id", "image_id", *LABEL_COLUMNS]
        known = pd.concat([reviewed[columns], imported[columns]], ignore_index=True)
        latest = known.groupby("image_id")["round_id"].transform("max")
        return known[known["round_id"] == latest].reset_index(drop=True)


def _pinned_since(pins: Mapping[str, Pin], asked: pd.DataFrame) -> set[str]:
    """Return the images that somebody wants asked about, and that no round asked about for it."""
    done = set(zip(asked["image_id"], asked["reason"], strict=True))
    return {
        image for image, pin in pins.items() if pin.wanted and (image, pin.sentence) not in done
    }


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
) -> Lake:
    """Return the lake at a place; it is made by the first thing written.

    Args:
        lake: a folder, or ``s3://bucket/prefix``.
        landing: where it takes images from, likewise.
        cache: a folder for copies of what lies in S3, needed where the lake does.
        receipts: ``dynamodb://table`` to keep there what has landed; by default the lake does.
        shown: where what people see lies where classes are masked; by default in the lake.
        client: for S3; by default one by AWS's variables.
        audit: where to write down each use of the lake, if at all.
        runner: what works on its pictures.
    """
    store = _open_store(str(lake), cache, client)
    if shown and shown != f"{lake}/{SHOWN}":
        store = MountedStore(store, SHOWN, _open_store(shown, cache, client))
    if audit is not None:
        store = AuditedStore(store, audit)
    return Lake(store, open_landing(str(landing), client), open_receipts(receipts, store), runner)


def lake_of(settings: Settings, *, audited: bool = True) -> Lake:
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
    return AuditLog(settings.audit_path, command_doer())


def _open_store(place: str, cache: Path | None, client: Any) -> ObjectStore:
    if not is_s3(place):
        return LocalObjectStore(Path(place))
    copies = cache or Path(tempfile.gettempdir()) / "annotation-platform"
    return S3ObjectStore(Bucket(place, client), copies)
