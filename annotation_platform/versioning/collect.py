"""Remove objects of the remote that no version names, such as those of a killed publisher."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from annotation_platform.errors import PublishError
from annotation_platform.versioning.git import Git, Registry, as_git
from annotation_platform.versioning.registry import VersionInfo, list_versions
from annotation_platform.versioning.remote import DvcRemote, registry_lock
from annotation_platform.versioning.sharing import (
    delete_registries,
    find_records,
    other_registries,
    recorded_registries,
)
from annotation_platform.versioning.source import default_remote
from annotation_platform.versioning.verify import names_of_untagged

YOUNG = timedelta(days=1)
"""Younger objects may belong to a publisher that is still running, so they stay."""


@dataclass(frozen=True)
class Collected:
    """The result of a garbage collection or of its dry run."""

    versions: int
    kept: int  # objects that versions name
    removed: tuple[str, ...]  # or, in a dry run, would be removed
    young: tuple[str, ...]  # no version names them, but they are younger than YOUNG


def _at_path(location: str) -> Git:
    return Git(Path(location))


@dataclass(frozen=True)
class OtherRegistries:
    """The registries, other than the own one, that may need objects of a remote.

    Attributes:
        at_hand: registries whose versions are known to be in the remote.
        reach: opens the other registries that are recorded in the remote, by path or address.
        deleted: registries recorded there whose versions no longer exist. Their records are
            removed, unless it is a dry run.
    """

    at_hand: Sequence[Git] = ()
    reach: Callable[[str], Git] = _at_path
    deleted: Sequence[str] = ()


_NO_OTHERS = OtherRegistries()


def collect_garbage(
    registry: Registry,
    remote: DvcRemote,
    *,
    expected: Collection[str],
    now: datetime,
    dry_run: bool = True,
    others: OtherRegistries = _NO_OTHERS,
) -> Collected:
    """Remove the objects of the remote that no version of the registry names.

    Publishers of this registry wait until it ends: all of them if the registry is a folder, only
    those that share this ``ANNOTATION_HOME`` if it is behind an address. Objects younger than
    ``YOUNG`` stay, and so do objects that versions of other registries in the remote need.

    Args:
        registry: it must hold every version that was ever published to this remote.
        remote: the remote with the objects.
        expected: tags that are known to be published, for instance from the lake.
        now: the current time.
        dry_run: whether to report the objects without removing them.
        others: the other registries that use the remote.

    Raises:
        PublishError: the needed objects are not known, because the registry is a shallow clone,
            has no version or lacks an expected one, or because another registry or the list of a
            version's files cannot be read; or a registry changed during the collection.
    """
    git = as_git(registry)
    with registry_lock(git.folder):
        git.refresh()
        infos = _complete_versions(git, expected)
        deleted, records = find_records(remote, others.deleted), recorded_registries(remote)
        registries = [
            git,
            *other_registries(remote, git, others.at_hand, others.reach, deleted=deleted),
        ]
        references = [each.text("for-each-ref") for each in registries]
        named: set[str] = set()
        for each in registries:
            named |= _named_by(each, remote, own=each is git)
        present = set(remote.all())
        unnamed = sorted(present - named)
        young = {name for name in unnamed if now - remote.written_at(name) < YOUNG}
        removed = tuple(name for name in unnamed if name not in young)
        if not dry_run and removed:
            _refuse_changes(registries, references)
            if recorded_registries(remote) != records:
                raise PublishError(
                    f"{remote.url}: another registry started to publish to it during the "
                    "collection, and nothing was removed. Run again."
                )
            remote.remove(removed)
        if not dry_run:
            delete_registries(remote, deleted)
    return Collected(len(infos), len(named & present), removed, tuple(sorted(young)))


def _complete_versions(git: Git, expected: Collection[str]) -> list[VersionInfo]:
    """Return the versions of a registry; a PublishError if it may not hold all of them."""
    _refuse_shallow(git)
    infos = list_versions(git)
    missing = sorted(set(expected) - {info.tag for info in infos})
    if missing or not infos:
        lacks = f"lacks {missing[0]}, which was published" if missing else "has no version"
        raise PublishError(
            f"{git.where}: {lacks}, so the needed objects are not known. Run `git fetch --tags` "
            "there, or set ANNOTATION_REGISTRY to the repository that has all versions."
        )
    return infos


def _refuse_changes(registries: Sequence[Git], references: Sequence[str]) -> None:
    for registry, before in zip(registries, references, strict=True):
        registry.refresh()
        if registry.text("for-each-ref") != before:
            raise PublishError(
                f"{registry.where}: changed during the collection, and nothing was removed. "
                "Run again."
            )


def unneeded_objects(
    git: Git, remote: DvcRemote, names: Collection[str], *, reach: Callable[[str], Git]
) -> set[str]:
    """Return those of the objects that no version of any registry names.

    Args:
        git: the registry; the caller holds its lock.
        remote: the remote with the objects.
        names: the objects.
        reach: as in ``OtherRegistries``.

    Raises:
        PublishError: another registry that publishes to the remote cannot be read.
    """
    registries = [git, *other_registries(remote, git, (), reach)]
    named = (_named_by(each, remote, own=each is git) for each in registries)
    return set(names).difference(*named)


def _refuse_shallow(git: Git) -> None:
    if git.text("rev-parse", "--is-shallow-repository") == "true":
        raise PublishError(
            f"{git.where}: a shallow clone does not hold every version. Run `git fetch --unshallow "
            "--tags` there and try again."
        )


def _named_by(git: Git, remote: DvcRemote, *, own: bool) -> set[str]:
    """Return the objects of a remote that a registry needs."""
    _refuse_shallow(git)
    infos = list_versions(git)
    named = names_of_untagged(git, remote, infos) | _named_by_dvc(git, remote)
    for info in infos:
        if own or not _is_elsewhere(git, remote, info):
            named |= {info.manifest.folder_md5}
            named |= set(remote.read_folder(info.manifest.folder_md5).values())
    return named


def _is_elsewhere(git: Git, remote: DvcRemote, info: VersionInfo) -> bool:
    """Return whether a version is configured for another remote and its files are not in this."""
    return default_remote(git, info.tag) != remote.url and bool(
        remote.missing([info.manifest.folder_md5])
    )


def _named_by_dvc(git: Git, remote: DvcRemote) -> set[str]:
    """Return the objects in DVC's files of any commit: a registry may hold further DVC data."""
    shown = git.text("log", "--all", "-m", "-p", "--format=", "--", "*.dvc", "*dvc.lock")
    names = set(re.findall(r"^[+-].*\bmd5: ([0-9a-f]{32}(?:\.dir)?)\s*$", shown, re.MULTILINE))
    folders = [name for name in names if name.endswith(".dir")]
    for name in sorted(set(folders) - remote.missing(folders)):
        names |= set(remote.read_folder(name).values())
    return names
