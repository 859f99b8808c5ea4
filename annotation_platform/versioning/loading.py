"""A published version in three lines of a notebook: labels as a table, images as samples."""

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
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.settings import read_settings
from annotation_platform.versioning.address import parse_address
from annotation_platform.versioning.checkout import checkout_version, open_clone
from annotation_platform.versioning.contents import version_labels
from annotation_platform.versioning.manifest import MANIFEST_PATH, Manifest
from annotation_platform.versioning.registry import remote_of, unknown_version
from annotation_platform.versioning.remote import Progress

if TYPE_CHECKING:
    from annotation_platform.models.samples import Transforms, VersionSamples

_VERSION = re.compile(r"(?P<name>[^@]+)@v\d+\.\d+\.\d+")


@dataclass(frozen=True)
class LoadedVersion:
    """One version of a dataset.

    ``labels`` is its ``training_set`` table: a row a label, with the split of its image and what
    is known of it; an image without any label has one row with ``shape`` = ``none``. Images are
    fetched when they are first asked for.
    """

    tag: str
    manifest: Manifest
    ontology: Ontology
    labels: pd.DataFrame
    registry: str = field(repr=False)
    remote_url: str = field(repr=False)
    clone: Path = field(repr=False)

    @property
    def images(self) -> pd.DataFrame:
        """A row an image: id, split, size, extension, group and how many labels it has."""
        counted = self.labels.assign(labels=self.labels["shape"] != NOTHING.shape)
        counts = counted.groupby("image_id")["labels"].sum()
        columns = ["image_id", "split", "width", "height", "extension", "group_id"]
        images = self.labels.drop_duplicates("image_id")[columns].reset_index(drop=True)
        return images.assign(labels=images["image_id"].map(counts).astype("int64"))

    def fetch(self, *, progress: Progress | None = None) -> Path:
        """Return the folder with all files of the version, having fetched what is not there."""
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
        """Return a split as a torch ``Dataset``; see `VersionSamples`, which torch trains on."""
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

        ``torch("train", image_ids=version.balanced({"cat": 0.5, "dog": 0.5}).image_ids)`` trains on
        them; see `balance_images`.
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
        remote: where its files are; by default where the version says.
        folder: where a clone is kept; by default below ``ANNOTATION_HOME``. Another version
            loaded into the same folder takes its place there.

    Raises:
        PublishError: the version is not known, or its labels are not whole in the remote.
    """
    match = _VERSION.fullmatch(version)
    if match is None:
        raise PublishError(f"{version!r} is no version. Name one like training-set@v1.2.0.")
    settings = read_settings()
    source = str(registry or settings.registry_place)
    shown = parse_address(source).shown
    clone = Path(folder) if folder else _default_clone(settings.home_path, source, version)
    git = open_clone(source, clone)
    data, params = git.read(version, MANIFEST_PATH), git.read(version, "params.yaml")
    if data is None or params is None:
        raise unknown_version(git, version, where=shown)
    manifest = Manifest.from_json(data, where=f"{shown}: {version}")
    remote_there = remote_of(git, version, remote)
    files = remote_there.read_folder(manifest.folder_md5)
    return LoadedVersion(
        tag=version,
        manifest=manifest,
        ontology=parse_policy(params.decode(), where=f"{version}: params.yaml").ontology,
        labels=version_labels(remote_there, files, where=version),
        registry=source,
        remote_url=remote,
        clone=clone,
    )


def _default_clone(home: Path, source: str, version: str) -> Path:
    # Registries may each have a version of this name.
    digest = hashlib.sha256(parse_address(source).url.encode()).hexdigest()
    return home / "versions" / digest[:12] / version
