"""What each published version holds, read from the version itself: from its tag and its files."""

import io
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from annotation_platform.errors import PublishError
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.versioning.git import Registry, as_git
from annotation_platform.versioning.registry import VersionInfo, list_versions, remote_of
from annotation_platform.versioning.remote import DvcRemote

_SHARDS = "annotations/"


@dataclass(frozen=True)
class Held:
    """An image in a version: the round of its labels, where they are from, and its split."""

    version: str
    published_at: datetime
    round_id: str
    origin: str
    split: str
    labels: int  # 0: nothing to see in it


def versions_with(
    image_id: str, registry: Registry, remote_url: str, *, expected: Collection[str] = ()
) -> list[Held]:
    """Return the versions that hold an image, oldest first.

    Args:
        image_id: all 64 digits.
        registry: where the versions are; with none expected, it need not be there.
        remote_url: where their files are.
        expected: tags that must be in the registry.

    Raises:
        PublishError: the registry lacks an expected tag, or the remote a file of a version.
    """
    held = []
    tables: dict[str, pd.DataFrame] = {}
    for info in _versions(registry, expected):
        remote = remote_of(as_git(registry), info.commit, remote_url)
        files = remote.read_folder(info.manifest.folder_md5)
        path = f"{_SHARDS}{image_id[0]}.parquet"
        md5 = files.get(path)
        if md5 is None:
            continue
        if md5 not in tables:
            # Most versions share most of their files.
            tables[md5] = _table(remote, md5, path, info.tag)
        rows = tables[md5][tables[md5]["image_id"] == image_id]
        if not rows.empty:
            first = rows.iloc[0]
            held.append(
                Held(
                    version=info.version,
                    published_at=datetime.fromisoformat(info.manifest.published_at),
                    round_id=str(first["round_id"]),
                    origin=str(first["origin"]),
                    split=str(first["split"]),
                    labels=int((rows["shape"] != NOTHING.shape).sum()),
                )
            )
    return held


def newest_labels(
    registry: Registry, remote_url: str, *, expected: Collection[str] = ()
) -> pd.DataFrame:
    """Return the ``training_set`` that the newest version holds; empty if there is no version.

    Arguments and errors are those of ``versions_with``.
    """
    versions = _versions(registry, expected)
    if not versions:
        return TrainingSet.empty()
    info = versions[-1]
    remote = remote_of(as_git(registry), info.commit, remote_url)
    files = remote.read_folder(info.manifest.folder_md5)
    return version_labels(remote, files, where=info.tag)


def version_labels(remote: DvcRemote, files: Mapping[str, str], *, where: str) -> pd.DataFrame:
    """Return the ``training_set`` that a version holds, from its own tables.

    Args:
        remote: where its files are.
        files: the MD5 of each, by path.
        where: named in errors.

    Raises:
        PublishError: a table is missing or damaged.
        TableError: a table is none of ours.
    """
    shards = [_table(remote, files[path], path, where) for path in sorted(files) if _is_shard(path)]
    return pd.concat(shards, ignore_index=True) if shards else TrainingSet.empty()


def labels_of_image(
    remote: DvcRemote, files: Mapping[str, str], image_id: str, *, where: str
) -> pd.DataFrame:
    """Return what a version says of one image; empty if it has not got it. See above."""
    path = f"{_SHARDS}{image_id[0]}.parquet"
    if path not in files:
        return TrainingSet.empty()
    rows = _table(remote, files[path], path, where)
    return rows[rows["image_id"] == image_id].reset_index(drop=True)


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


def _is_shard(path: str) -> bool:
    return path.startswith(_SHARDS) and path.endswith(".parquet")


def _table(remote: DvcRemote, md5: str, path: str, where: str) -> pd.DataFrame:
    data = remote.read_whole(md5, f"{path} of {where}")
    return TrainingSet.check(pd.read_parquet(io.BytesIO(data)), where=where)
