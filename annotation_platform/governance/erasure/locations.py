"""All locations that can hold a trace of an image or a person."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.models.cards import ModelCard
from annotation_platform.versioning.git import Git


@dataclass(frozen=True)
class Locations:
    """All locations that an erasure covers.

    Attributes:
        lake: the lake, with the landing zone.
        registry: the registry with the versions.
        remote_url: location of the files of versions; empty: the location that they record.
        labeling: the labelling back ends.
        models: model cards by the SHA-256 of the weights.
        home: folder whose files the final search covers.
        reach: opens another registry by path or address.
        events: removes previews of images from the Dagster UI and returns the number of changed
            events. With no images it only raises a NotReadyError if runs are in progress.
    """

    lake: LandingLake
    registry: Git
    remote_url: str
    labeling: LabelingBackend
    models: Mapping[str, ModelCard]
    home: Path
    reach: Callable[[str], Git]
    events: Callable[[frozenset[str]], int]
