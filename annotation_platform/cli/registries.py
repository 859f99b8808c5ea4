"""What a command works on: the settings, policy and lake of this home; a registry, a version."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from annotation_platform.cli.options import Registry

if TYPE_CHECKING:
    from annotation_platform.ingestion.lake import LandingLake
    from annotation_platform.policy import Policy
    from annotation_platform.provenance.state import VersionState
    from annotation_platform.settings import Settings
    from annotation_platform.storage.lake import Lake
    from annotation_platform.versioning.git import Git
    from annotation_platform.versioning.git import Registry as RegistryPlace
    from annotation_platform.versioning.remote import DvcRemote

OWN = Registry()
"""The platform's own registry, with its recorded remote."""


def own_settings() -> "Settings":
    """Return the settings of this home."""
    from annotation_platform.settings import read_settings

    return read_settings()


def own_policy(settings: "Settings | None" = None) -> "Policy":
    """Return the policy of this home."""
    from annotation_platform.policy import read_policy

    return read_policy((settings or own_settings()).policy_path)


def own_lake(settings: "Settings | None" = None, *, audited: bool = True) -> "LandingLake":
    """Return the lake of this home; accesses are logged unless ``audited`` is false."""
    from annotation_platform.ingestion.lake import lake_of

    return lake_of(settings or own_settings(), audited=audited)


def registry_place(settings: "Settings", registry: str) -> str:
    """Return path or address of the registry that ``--registry`` names; own by default."""
    return registry or settings.registry_place


def open_git(
    settings: "Settings", registry: str = "", *, warn: Callable[[str], None] | None = None
) -> "Git":
    """Return the registry that ``--registry`` names, own by default; see ``open_registry``."""
    from annotation_platform.versioning.mirror import open_registry

    return open_registry(registry_place(settings, registry), settings.mirrors_path, say=warn)


def own_registry(settings: "Settings") -> "RegistryPlace":
    """Return the own registry: a folder as it is, present or not; one with an address opened."""
    from annotation_platform.registry_address import is_address

    return open_git(settings) if is_address(settings.registry) else settings.registry_path


def remote_url(settings: "Settings", where: Registry = OWN) -> str:
    """Return the location of a registry's files; empty: the location that its versions record.

    The remote in the settings belongs to the own registry only. The default remote, a folder of
    this home, holds the own versions only if they were published from this home, which is not
    known for a registry with an address.
    """
    from annotation_platform.registry_address import is_address

    if where.remote or where.registry:
        return where.remote
    if settings.remote or not is_address(settings.registry):
        return settings.remote_url
    return ""


def open_files(settings: "Settings", git: "Git", where: Registry) -> "DvcRemote":
    """Return the remote with the files of an opened registry."""
    from annotation_platform.versioning.registry import open_remote

    return open_remote(git, remote_url(settings, where))


def published_tags(lake: "Lake") -> set[str]:
    """Return the tags of the versions that were published from a lake."""
    from annotation_platform.schema.tables import DatasetVersions

    return set(lake.tables.read_all(DatasetVersions)[DatasetVersions.tag])


def read_version(settings: "Settings", version: str, where: Registry) -> "VersionState":
    """Return a version by tag or number, with its inputs if the lake of this home has them."""
    from annotation_platform.provenance.state import read_state
    from annotation_platform.schema.version_names import typed_tag

    return read_state(
        open_git(settings, where.registry),
        typed_tag(version),
        remote_url=remote_url(settings, where),
        lake=own_lake(settings),
    )


def tag_of(git: "Git", version: str) -> str:
    """Return the tag of a version by tag or number; of the newest version if it is empty.

    Raises:
        PublishError: the registry has no version.
    """
    from annotation_platform.errors import PublishError
    from annotation_platform.schema.version_names import typed_tag
    from annotation_platform.versioning.registry import list_versions

    if version:
        return typed_tag(version)
    infos = list_versions(git)
    if not infos:
        raise PublishError(f"{git.where}: no version was published yet.")
    return infos[-1].tag
