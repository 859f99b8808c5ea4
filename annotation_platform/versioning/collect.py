"""Taking away objects of the remote that no version names: what killed publishers left behind."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from annotation_platform.errors import PublishError
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.registry import list_versions
from annotation_platform.versioning.remote import DvcRemote, registry_lock
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


def collect_garbage(
    registry: Path,
    remote: DvcRemote,
    *,
    expected: Collection[str],
    now: datetime,
    dry_run: bool = True,
) -> Collected:
    """Take away the objects of the remote that no version of the registry names.

    Publishers of this registry wait meanwhile. Objects younger than ``YOUNG`` stay.

    Args:
        registry: it must hold every version that was ever published to this remote.
        remote: where the objects are.
        expected: tags that are known to have been published, by the lake for instance.
        now: the time.
        dry_run: whether to take nothing away, and only say what would be.

    Raises:
        PublishError: the registry is a shallow clone, has no version, lacks an expected one, or
            the list of a version's files cannot be read: then it is not known what is needed.
    """
    git = Git(registry)
    if git.text("rev-parse", "--is-shallow-repository") == "true":
        raise PublishError(
            f"{registry}: a shallow clone does not know every version. Run `git fetch --unshallow "
            "--tags` there and try again."
        )
    with registry_lock(registry):
        infos = list_versions(registry)
        missing = sorted(set(expected) - {info.tag for info in infos})
        if missing or not infos:
            lacks = f"lacks {missing[0]}, which was published" if missing else "has no version"
            raise PublishError(
                f"{registry}: {lacks}, so nobody can tell what is needed. Run `git fetch --tags` "
                "there, or set ANNOTATION_REGISTRY to the repository that has all of them."
            )
        named = names_of_untagged(registry, remote, infos)
        for info in infos:
            named |= {info.manifest.folder_md5}
            named |= set(remote.read_folder(info.manifest.folder_md5).values())
        named |= _named_by_dvc(git, remote)
        present = set(remote.all())
        unnamed = sorted(present - named)
        young = {name for name in unnamed if now - remote.written_at(name) < YOUNG}
        removed = tuple(name for name in unnamed if name not in young)
        if not dry_run:
            remote.remove(removed)
    return Collected(len(infos), len(named & present), removed, tuple(sorted(young)))


def _named_by_dvc(git: Git, remote: DvcRemote) -> set[str]:
    """Return what any commit names in DVC's files: a registry may hold other data than versions."""
    shown = git.text("log", "--all", "-m", "-p", "--format=", "--", "*.dvc", "*dvc.lock")
    names = set(re.findall(r"^[+-].*\bmd5: ([0-9a-f]{32}(?:\.dir)?)\s*$", shown, re.MULTILINE))
    folders = [name for name in names if name.endswith(".dir")]
    for name in sorted(set(folders) - remote.missing(folders)):
        names |= set(remote.read_folder(name).values())
    return names
