"""Publishing a round's training set as a dataset version."""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pandas as pd

from annotation_platform.audit_log.noting import note_policy, note_release
from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.erasing.record import refuse_meanwhile
from annotation_platform.errors import AnnotationPlatformError, NotReadyError
from annotation_platform.lake import Lake
from annotation_platform.params import Params, parse_params
from annotation_platform.rebuilding.inputs import keep_inputs
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import (
    AutoLabels,
    DatasetVersions,
    ErrorBars,
    Frame,
    HumanLabels,
    TrainingRounds,
    TrainingSet,
)
from annotation_platform.storage.keys import image_key
from annotation_platform.storage.s3 import is_s3
from annotation_platform.versioning.address import parse_address
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.manifest import LabelError
from annotation_platform.versioning.mirror import open_registry
from annotation_platform.versioning.publisher import (
    IMAGE_PATH,
    ImagePath,
    name_objects,
    publish_version,
)
from annotation_platform.versioning.uploading import InBucket, Source


@dataclass(frozen=True)
class VersionStore:
    """Where versions go: a git repository, a DVC remote, and the source tree that made them."""

    registry: str | Path = field(repr=False)  # path or address; there may be a secret in it
    remote_url: str
    source_root: Path
    mirrors: Path  # folder of the copies of registries behind an address

    @property
    def shown(self) -> str:
        """The registry, without any secret: what people clone."""
        return parse_address(self.registry).shown

    def open(self) -> Git:
        """Return the registry, brought up to date if it is behind an address."""
        return open_registry(self.registry, self.mirrors)


@dataclass(frozen=True)
class PublishedRound:
    """The version of a round and what a reader needs to get it."""

    table: Frame[DatasetVersions]
    uploaded_files: int
    instructions: str  # Markdown


def publish_round(
    round_id: str,
    training_set: pd.DataFrame,
    lake: Lake,
    policy: Params,
    versions: VersionStore,
    *,
    now: datetime,
) -> PublishedRound:
    """Publish the training set and return the round's ``dataset_version`` row.

    Content that is published already makes no new version; its row names the existing one.
    """
    if training_set.empty:
        raise NotReadyError(
            f"the training set of {round_id} is empty: no finished round passes the gates. "
            "See held_rounds on training_set."
        )
    refuse_meanwhile(lake.store)
    note_policy(policy, lake, used_for=f"dataset_version of {round_id}", now=now)
    # As the training set was built: a round may have been merged anew since then.
    included = lake.tables.read(TrainingRounds, round_id)
    rounds = dict(zip(included["included_round"], included["labels_sha256"], strict=True))
    accepted = training_set.loc[training_set["origin"] == AUTO, "image_id"]
    proposed = lake.tables.read_all(AutoLabels)
    weights = {
        *lake.tables.values(HumanLabels, "weights_sha256", rounds),
        *proposed.loc[proposed["image_id"].isin(accepted), "weights_sha256"],
    }
    published = publish_version(
        versions.open(),
        remote_url=versions.remote_url,
        training_set=training_set,
        ontology=policy.ontology,
        params_text=policy.to_yaml(),
        rounds=rounds,
        policy_digest=policy.digest,
        weights=sorted(weights - {""}),
        source_root=versions.source_root,
        image_path=picture_source(lake),
        keep_together=policy.splits.keep_together,
        inputs=keep_inputs(round_id, lake),
        label_errors=_label_errors(round_id, lake),
        now=now,
    )
    images = training_set.drop_duplicates("image_id")
    splits = images["split"].value_counts()
    row: dict[str, object] = {
        "round_id": round_id,
        "version": published.version,
        "tag": published.tag,
        "commit": published.commit,
        "folder_md5": published.folder_md5,
        "images": len(images),
        "boxes": int(training_set["shape"].isin(AREAS).sum()),
        **{f"{split}_images": int(splits.get(split, 0)) for split in ("train", "val", "test")},
        "new_version": published.new_version,
    }
    note_release(round_id, row, lake, now=now)
    instructions = (
        f"```\ngit clone {versions.shown} dataset && cd dataset\n"
        f"git checkout {published.tag} && dvc pull\n```"
    )
    table = DatasetVersions.from_rows([row])
    return PublishedRound(table, published.uploaded_files, instructions)


def _label_errors(round_id: str, lake: Lake) -> list[LabelError]:
    """Return the error bars of a round's training set; none where the round measured none."""
    bars = lake.tables.read_rounds(ErrorBars, [round_id]).sort_values(["origin", "class_name"])
    return [
        LabelError(
            origin=str(bar["origin"]),
            class_name=str(bar["class_name"]),
            labels=int(bar["labels"]),
            audited=int(bar["audited"]),
            rate=None if pd.isna(bar["rate"]) else round(float(bar["rate"]), 4),
            low=round(float(bar["low"]), 4),
            high=round(float(bar["high"]), 4),
            level=float(bar["level"]),
        )
        for bar in bars.to_dict("records")
    ]


def picture_source(lake: Lake) -> ImagePath:
    """Return what says where a picture lies: in S3, its bucket can copy it to another."""

    def find(image_id: str, extension: str) -> Path | InBucket:
        url = lake.store.url(image_key(image_id, extension))
        if is_s3(url):
            return InBucket(url, lambda: lake.picture_path(image_id, extension))
        return Path(url)

    return find


class LakeMender:
    """Finds lost files of versions in the lake: pictures by their id, the rest rendered again.

    Args:
        lake: where pictures and tables are.
        versions: where the versions are.
    """

    def __init__(self, lake: Lake, versions: VersionStore) -> None:
        self._lake = lake
        self._versions = versions
        self._rendered: dict[str, Source] | None = None

    def __call__(self, path: str, md5: str) -> Source | None:
        """Return where the content of a file of a version can be had, or None."""
        picture = IMAGE_PATH.fullmatch(path)
        if picture and self._lake.store.exists(image_key(picture["image"], picture["extension"])):
            stored = self._lake.picture_path(picture["image"], picture["extension"])
            return Source(stored, f"image {picture['image']}")
        if self._rendered is None:
            self._rendered = self._render()
        return self._rendered.get(md5)

    def _render(self) -> dict[str, Source]:
        """Return what the training sets of the lake render to, under the policies of then."""
        found: dict[str, Source] = {}
        tables, git = self._lake.tables, self._versions.open()
        for round_id in tables.rounds(DatasetVersions):
            tag = str(tables.read(DatasetVersions, round_id).iloc[0]["tag"])
            text = git.read(tag, "params.yaml")
            if text is None:
                continue
            ontology = parse_params(text.decode(), where=f"{tag}: params.yaml").ontology
            try:
                frame = tables.read(TrainingSet, round_id)
                folder = build_folder(frame, ontology, name=tag.partition("@")[0])
            except AnnotationPlatformError:
                # Built anew since then, or taken away: it does not help this version.
                continue
            found |= name_objects(folder, self._lake.picture_path).texts
        return found
