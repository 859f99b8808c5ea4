"""Everywhere that something of an image or a person can be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.models.cards import ModelCard
from annotation_platform.versioning.git import Git


@dataclass(frozen=True)
class Places:
    """Everywhere that something of an image can be.

    Attributes:
        lake: with the landing zone.
        registry: with the versions.
        remote_url: where their files are, if not where they say.
        labeling: where people label.
        models: the cards of models by the SHA-256 of their weights.
        home: whose files are looked through at the end.
        reach: opens another registry by path or address.
        events: takes images of images off the pages of the Dagster UI, and returns how many; of
            no images it only asks whether runs are under way, which is a NotReadyError.
    """

    lake: LandingLake
    registry: Git
    remote_url: str
    labeling: LabelingBackend
    models: Mapping[str, ModelCard]
    home: Path
    reach: Callable[[str], Git]
    events: Callable[[frozenset[str]], int]
