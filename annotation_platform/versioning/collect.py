"""Taking away objects of the remote that no version names: what killed publishers left behind."""

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
    notes_named,
    other_registries,
    recorded_registries,
)
from annotation_platform.versioning.source import default_remote
from annotation_platform.versioning.verify import names_of_untagged

YOUNG = timedelta(days=1)
"""Objects as new as this may be those of a publisher at work, and stay."""


@dataclass(frozen=True)
class Collected:
    """What no version names: what was (or would be) taken away, and what is too new for that."""

    versions: int
    kept: int  # objects that versions name
    removed: tuple[str, ...]
    young: tuple[str, ...]


def _at_path(place: str) -> Git:
    return Git(Path(place))


def collect_garbage(
    registry: Registry,
    remote: DvcRemote,
    *,
    expected: Collection[str],
    now: datetime,
    dry_run: bool = True,
    others: Sequence[Git] = (),
    reach: Callable[[str], Git] = _at_path,
    forget: Sequence[str] = (),
) -> Collected:
    """Take away the objects of the remote that no version of the registry names.

    Publishers of this registry wait meanwhile: all of them where it is a folder, for one behind
    an address those of this home. Objects younger than ``YOUNG`` stay, and so does what versions
    of other registries need that have published to the remote.

    Args:
        registry: it must hold every version that was ever published to this remote.
        remote: where the objects are.
        expected: tags that are known to have been published, by the lake for instance.
        now: the time.
        dry_run: whether to take nothing away, and only say what would be.
        others: further registries whose versions are in the remote.
        reach: opens the other registries that are noted in the remote, by path or address.
        forget: registries noted there whose versions are no more; their notes go too, unless it
            is a dry run.

    Raises:
        PublishError: the registry is a shallow clone, has no version, lacks an expected one, or
            the list of a version's files cannot be read, or another registry cannot: then it is
            not known what is needed. Or it changed meanwhile.
    """
    git = as_git(registry)
    with registry_lock(git.folder):
        git.refresh()
        _refuse_shallow(git)
        infos = list_versions(git)
        missing = sorted(set(expected) - {info.tag for info in infos})
        if missing or not infos:
            lacks = f"lacks {missing[0]}, which was published" if missing else "has no version"
            raise PublishError(
                f"{git.where}: {lacks}, so nobody can tell what is needed. Run `git fetch --tags` "
                "there, or set ANNOTATION_REGISTRY to the repository that has all of them."
            )
        forgotten, notes = notes_named(remote, forget), recorded_registries(remote)
        registries = [git, *other_registries(remote, git, others, reach, forgotten=forgotten)]
        seen = [each.text("for-each-ref") for each in registries]
        named: set[str] = set()
        for each in registries:
            named |= _named_by(each, remote, own=each is git)
        present = set(remote.all())
        unnamed = sorted(present - named)
        young = {name for name in unnamed if now - remote.written_at(name) < YOUNG}
        removed = tuple(name for name in unnamed if name not in young)
        if not dry_run and removed:
            for each, before in zip(registries, seen, strict=True):
                each.refresh()
                if each.text("for-each-ref") != before:
                    raise PublishError(
                        f"{each.where}: it changed while objects were counted, and nothing was "
                        "taken away. Run again."
                    )
            if recorded_registries(remote) != notes:
                raise PublishError(
                    f"{remote.url}: another registry began to publish there, and nothing was taken "
                    "away. Run again."
                )
            remote.remove(removed)
        if not dry_run:
            delete_registries(remote, forgotten)
    return Collected(len(infos), len(named & present), removed, tuple(sorted(young)))


def unneeded(
    git: Git, remote: DvcRemote, names: Collection[str], *, reach: Callable[[str], Git]
) -> set[str]:
    """Return those objects of a remote that no version of any registry names.

    Args:
        git: the registry, whose publishers wait meanwhile.
        remote: where the objects are.
        names: the objects.
        reach: as for ``collect_garbage``.

    Raises:
        PublishError: a registry that publishes there, too, cannot be read.
    """
    registries = [git, *other_registries(remote, git, (), reach)]
    named = (_named_by(each, remote, own=each is git) for each in registries)
    return set(names).difference(*named)


def _refuse_shallow(git: Git) -> None:
    if git.text("rev-parse", "--is-shallow-repository") == "true":
        raise PublishError(
            f"{git.where}: a shallow clone does not know every version. Run `git fetch --unshallow "
            "--tags` there and try again."
        )


def _named_by(git: Git, remote: DvcRemote, *, own: bool) -> set[str]:
    """Return the objects that a registry needs of a remote."""
    _refuse_shallow(git)
    infos = list_versions(git)
    named = names_of_untagged(git, remote, infos) | _named_by_dvc(git, remote)
    for info in infos:
        if own or not _is_elsewhere(git, remote, info):
            named |= {info.manifest.folder_md5}
            named |= set(remote.read_folder(info.manifest.folder_md5).values())
    return named


def _is_elsewhere(git: Git, remote: DvcRemote, info: VersionInfo) -> bool:
    """Return whether a version's files are in another remote, by what it says and what is here."""
    return default_remote(git, info.tag) != remote.url and bool(
        remote.missing([info.manifest.folder_md5])
    )


def _named_by_dvc(git: Git, remote: DvcRemote) -> set[str]:
    """Return what any commit names in DVC's files: a registry may hold other data than versions."""
    shown = git.text("log", "--all", "-m", "-p", "--format=", "--", "*.dvc", "*dvc.lock")
    names = set(re.findall(r"^[+-].*\bmd5: ([0-9a-f]{32}(?:\.dir)?)\s*$", shown, re.MULTILINE))
    folders = [name for name in names if name.endswith(".dir")]
    for name in sorted(set(folders) - remote.missing(folders)):
        names |= set(remote.read_folder(name).values())
    return names
