"""The lake as the platform uses it: objects, tables, round manifests and the answers ledger."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.images.ingest import RoundManifests, image_key
from annotation_platform.labeling.ledger import AnswersLedger
from annotation_platform.storage.objects import LocalObjectStore, ObjectStore
from annotation_platform.storage.round_tables import RoundTables


@dataclass(frozen=True)
class Lake:
    """Everything the platform keeps, and the landing place it takes images from."""

    store: ObjectStore
    landing: Path

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

    def picture(self, image_id: str, extension: str) -> bytes:
        """Return the bytes of a cleaned picture."""
        return self.store.get(image_key(image_id, extension))

    def picture_path(self, image_id: str, extension: str) -> Path:
        """Return a file with the bytes of a cleaned picture."""
        return self.store.local_path(image_key(image_id, extension))

    def earlier(self, name: str, round_id: str) -> pd.DataFrame:
        """Return a table of all rounds before this one; NotReadyError if one lacks it.

        What a round may hold depends on what earlier rounds hold, so rounds go in order here.
        """
        before = [key for key in self.manifests.rounds() if key < round_id]
        for key in before:
            if not self.tables.exists(name, key):
                raise NotReadyError(
                    f"{round_id} waits for {name} of {key}: run start_round for {key} first."
                )
        return self.tables.read_rounds(name, before)

    def accepted_images(self) -> pd.DataFrame:
        """Return the ``cleaned_images`` rows of every accepted image of every round."""
        images = self.tables.read_all("cleaned_images")
        return images[images["outcome"] == "accepted"].reset_index(drop=True)

    def unasked_images(self, round_id: str) -> pd.DataFrame:
        """Return the accepted images, up to this round, that no earlier round asks about."""
        images = self.accepted_images()
        asked = set(self.earlier("selected_images", round_id)["image_id"])
        open_ = (images["round_id"] <= round_id) & ~images["image_id"].isin(asked)
        return images[open_].reset_index(drop=True)


def open_lake(lake: Path, landing: Path) -> Lake:
    """Return the lake in a folder; the folder is made by the first thing written."""
    return Lake(LocalObjectStore(lake), landing)
