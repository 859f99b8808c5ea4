"""Read the labels of published versions from their tags and files, not from the lake."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from annotation_platform.errors import PublishError
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.storage.table_files import read_table
from annotation_platform.versioning.git import Registry, as_git
from annotation_platform.versioning.registry import VersionInfo, list_versions, remote_of
from annotation_platform.versioning.remote import DvcRemote

_SHARDS = "annotations/"


@dataclass(frozen=True)
class VersionedImage:
    """An image in a version: the round and origin of its labels, their number, and its split."""

    version: str
    published_at: datetime
    round_id: str
    origin: str
    split: str
    labels: int  # 0: no object in the image


def versions_with(
    image_id: str, registry: Registry, remote_url: str, *, expected: Collection[str] = ()
) -> list[VersionedImage]:
    """Return the versions that hold an image, oldest first.

    Args:
        image_id: the full id of 64 digits.
        registry: the registry; it need not exist if no version is expected.
        remote_url: the remote with the files of the versions.
        expected: tags that must be in the registry.

    Raises:
        PublishError: the registry lacks an expected tag, or the remote lacks a file of a version.
    """
    found = []
    tables: dict[str, pd.DataFrame] = {}
    for info in _versions(registry, expected):
        remote = remote_of(as_git(registry), info.commit, remote_url)
        files = remote.read_folder(info.manifest.folder_md5)
        path = f"{_SHARDS}{image_id[0]}.parquet"
        md5 = files.get(path)
        if md5 is None:
            continue
        if md5 not in tables:
            # Versions share most of their files, so each table is read once.
            tables[md5] = _table(remote, md5, path, info.tag)
        rows = tables[md5][tables[md5][TrainingSet.image_id] == image_id]
        if not rows.empty:
            first = rows.iloc[0]
            found.append(
                VersionedImage(
                    version=info.version,
                    published_at=datetime.fromisoformat(info.manifest.published_at),
                    round_id=str(first[TrainingSet.round_id]),
                    origin=str(first[TrainingSet.origin]),
                    split=str(first[TrainingSet.split]),
                    labels=int((rows[TrainingSet.shape] != NOTHING.shape).sum()),
                )
            )
    return found


def newest_labels(
    registry: Registry, remote_url: str, *, expected: Collection[str] = ()
) -> Frame[TrainingSet]:
    """Return the training set of the newest version; empty if there is no version.

    Arguments and errors are those of ``versions_with``.
    """
    versions = _versions(registry, expected)
    if not versions:
        return TrainingSet.empty()
    info = versions[-1]
    remote = remote_of(as_git(registry), info.commit, remote_url)
    files = remote.read_folder(info.manifest.folder_md5)
    return version_labels(remote, files, where=info.tag)


def version_labels(
    remote: DvcRemote, files: Mapping[str, str], *, where: str
) -> Frame[TrainingSet]:
    """Return the training set of a version, read from its Parquet files.

    Args:
        remote: the remote with its files.
        files: path to MD5 of every file.
        where: name of the version in errors.

    Raises:
        PublishError: a Parquet file is missing or damaged.
        TableError: a Parquet file does not hold a training set.
    """
    paths = [path for path in files if path.startswith(_SHARDS) and path.endswith(".parquet")]
    shards = [_table(remote, files[path], path, where) for path in sorted(paths)]
    return pd.concat(shards, ignore_index=True) if shards else TrainingSet.empty()


def labels_of_image(
    remote: DvcRemote, files: Mapping[str, str], image_id: str, *, where: str
) -> Frame[TrainingSet]:
    """Return the rows of one image in a version; empty if the version lacks it.

    Arguments and errors are those of ``version_labels``.
    """
    path = f"{_SHARDS}{image_id[0]}.parquet"
    if path not in files:
        return TrainingSet.empty()
    rows = _table(remote, files[path], path, where)
    return rows[rows[TrainingSet.image_id] == image_id].reset_index(drop=True)


def _versions(registry: Registry, expected: Collection[str]) -> list[VersionInfo]:
    if not expected and isinstance(registry, Path) and not registry.exists():
        return []
    versions = list_versions(registry)
    missing = sorted(set(expected) - {info.tag for info in versions})
    if missing:
        raise PublishError(
            f"{as_git(registry).where}: lacks {missing[0]}, which was published from this lake. "
            "Set ANNOTATION_REGISTRY to the repository that has it."
        )
    return versions


def _table(remote: DvcRemote, md5: str, path: str, where: str) -> Frame[TrainingSet]:
    data = remote.read_intact(md5, f"{path} of {where}")
    return read_table(TrainingSet, data, where=where)
