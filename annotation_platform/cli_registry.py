"""Which registry and remote a command about versions means: options that all of them share."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from annotation_platform.settings import Settings

if TYPE_CHECKING:
    from annotation_platform.versioning.git import Git, Registry
    from annotation_platform.versioning.remote import DvcRemote

RegistryOption = Annotated[
    str, typer.Option("--registry", help="Path or address; by default your own.")
]
RemoteOption = Annotated[
    str, typer.Option("--remote", help="Where its files are, if not where it says.")
]


def place_of(settings: Settings, registry: str) -> str:
    """Return path or address of the registry that ``--registry`` names, or of one's own."""
    return registry or settings.registry_place


def opened(settings: Settings, registry: str, *, say: Callable[[str], None] | None = None) -> "Git":
    """Return the registry that ``--registry`` names, or one's own; see ``open_registry``."""
    from annotation_platform.versioning.mirror import open_registry

    return open_registry(place_of(settings, registry), settings.mirrors_path, say=say)


def own_registry(settings: Settings) -> "Registry":
    """Return one's own registry: a folder as it is, there or not, one behind an address opened."""
    from annotation_platform.versioning.address import is_address

    return opened(settings, "") if is_address(settings.registry) else settings.registry_path


def remote_url_of(settings: Settings, registry: str, remote: str = "") -> str:
    """Return where the files of a registry's versions are; empty: where the versions say.

    What is set for one's own registry says nothing of another. And the default, a folder of this
    home, is where one's own versions are only if they were published from it: those of a registry
    that is behind an address may not have been.
    """
    from annotation_platform.versioning.address import is_address

    if remote or registry:
        return remote
    if settings.remote or not is_address(settings.registry):
        return settings.remote_url
    return ""


def remote_at(settings: Settings, git: "Git", registry: str, remote: str) -> "DvcRemote":
    """Return the remote with the files of an opened registry."""
    from annotation_platform.versioning.registry import open_remote

    return open_remote(git, remote_url_of(settings, registry, remote))
