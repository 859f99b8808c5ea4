"""Load a published version in three lines of a notebook: labels as a table, images as samples."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from annotation_platform.curation.balance import Balance, balance_images
from annotation_platform.errors import PublishError
from annotation_platform.policy import parse_policy
from annotation_platform.registry_address import parse_address
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.settings import read_settings
from annotation_platform.versioning.checkout import checkout_version, open_clone
from annotation_platform.versioning.contents import version_labels
from annotation_platform.versioning.manifest import MANIFEST_PATH, Manifest
from annotation_platform.versioning.registry import remote_of, unknown_version
from annotation_platform.versioning.remote import Progress

if TYPE_CHECKING:
    from annotation_platform.models.samples import Transforms, VersionSamples

_VERSION = re.compile(r"[^@]+@v\d+\.\d+\.\d+")


@dataclass(frozen=True)
class LoadedVersion:
    """One version of a dataset.

    ``labels`` is its training set: one row per label, with the split and the metadata of its image;
    an image without any label has one row with ``shape`` = ``none``. Image files are fetched on
    first use.
    """

    tag: str
    manifest: Manifest
    ontology: Ontology
    labels: Frame[TrainingSet]
    registry: str = field(repr=False)
    remote_url: str = field(repr=False)
    clone: Path = field(repr=False)

    @property
    def images(self) -> pd.DataFrame:
        """One row per image: id, split, size, extension, group and ``labels``, their number."""
        image_id = TrainingSet.image_id
        is_label = self.labels[TrainingSet.shape] != NOTHING.shape
        counts = is_label.groupby(self.labels[image_id]).sum()
        columns = [
            *(image_id, TrainingSet.split, TrainingSet.width, TrainingSet.height),
            *(TrainingSet.extension, TrainingSet.group_id),
        ]
        images = self.labels.drop_duplicates(image_id)[columns].reset_index(drop=True)
        return images.assign(labels=images[image_id].map(counts).astype("int64"))

    def fetch(self, *, progress: Progress | None = None) -> Path:
        """Fetch the missing files of the version and return the folder that holds all of them."""
        checkout_version(
            self.registry, self.tag, self.clone, remote_url=self.remote_url, progress=progress
        )
        return self.clone / "datasets" / self.manifest.dataset

    def torch(
        self,
        split: str,
        *,
        image_ids: Sequence[str] | None = None,
        transforms: "Transforms | None" = None,
        masks: bool = False,
    ) -> "VersionSamples":
        """Return a split as a torch ``Dataset`` for training; see `VersionSamples`."""
        from annotation_platform.models.samples import VersionSamples

        folder = self.fetch()
        return VersionSamples(
            self.labels,
            self.ontology,
            folder,
            split,
            image_ids=image_ids,
            transforms=transforms,
            masks=masks,
        )

    def balanced(
        self,
        targets: Mapping[str, float],
        *,
        by: str = "class_name",
        size: int | None = None,
        seed: int = 0,
    ) -> Balance:
        """Return training images with these shares of classes, or of another column's values.

        ``torch("train", image_ids=version.balanced({"cat": 0.5, "dog": 0.5}).image_ids)`` is then
        the torch data set; see `balance_images`.
        """
        rng = np.random.default_rng(seed)
        return balance_images(self.labels, targets, by=by, size=size, rng=rng)


def load(
    version: str,
    *,
    registry: str | Path = "",
    remote: str = "",
    folder: str | Path | None = None,
) -> LoadedVersion:
    """Return a published version; only its labels are fetched.

    Args:
        version: its tag, such as ``training-set@v1.2.0``.
        registry: path or address of the git repository; by default ``ANNOTATION_REGISTRY``.
        remote: the remote with its files; by default the one in the version's configuration.
        folder: the folder of the clone; by default below ``ANNOTATION_HOME``. Another version
            loaded into the same folder replaces this one.

    Raises:
        PublishError: the version is unknown, or its labels are missing or damaged in the remote.
    """
    if _VERSION.fullmatch(version) is None:
        raise PublishError(f"{version!r} is not a version. Name one like training-set@v1.2.0.")
    settings = read_settings()
    source = str(registry or settings.registry_place)
    shown = parse_address(source).shown
    clone = Path(folder) if folder else _default_clone(settings.home_path, source, version)
    git = open_clone(source, clone)
    data, params = git.read(version, MANIFEST_PATH), git.read(version, "params.yaml")
    if data is None or params is None:
        raise unknown_version(git, version, where=shown)
    manifest = Manifest.from_json(data, where=f"{shown}: {version}")
    source_remote = remote_of(git, version, remote)
    files = source_remote.read_folder(manifest.folder_md5)
    return LoadedVersion(
        tag=version,
        manifest=manifest,
        ontology=parse_policy(params.decode(), where=f"{version}: params.yaml").ontology,
        labels=version_labels(source_remote, files, where=version),
        registry=source,
        remote_url=remote,
        clone=clone,
    )


def _default_clone(home: Path, source: str, version: str) -> Path:
    # Several registries may have a version of this name.
    digest = hashlib.sha256(parse_address(source).url.encode()).hexdigest()
    return home / "versions" / digest[:12] / version
