"""Registries: create one, list and read its versions, and restore a version on a new machine."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from annotation_platform.errors import PublishError
from annotation_platform.schema.version_names import version_key
from annotation_platform.versioning.git import Git, Registry, as_git, clean_environment, run_git
from annotation_platform.versioning.manifest import MANIFEST_PATH, Manifest
from annotation_platform.versioning.remote import DvcRemote
from annotation_platform.versioning.source import default_remote, snapshot_tree, version_config

_DATASET = "training-set"


@dataclass(frozen=True)
class VersionInfo:
    """One published version."""

    version: str
    tag: str
    commit: str
    manifest: Manifest


def make_registry(folder: Path, source_root: Path, params_text: str, *, remote_url: str) -> None:
    """Create a git repository in ``folder`` with one commit: source tree, policy and DVC remote.

    The commit contains the remote because `dvc artifacts get` reads the configuration of the
    default branch, not of the version. A repository that already has a commit does not change. If
    git has no committer identity, the repository gets one, so that a demo needs no set-up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        _run_checked(["init", "--quiet", "--initial-branch=main", str(folder)], "git init")
    git = Git(folder)
    if git.resolve("HEAD"):
        return
    if not git.has_identity():
        git.run("config", "user.name", "annotation-platform")
        git.run("config", "user.email", "annotation-platform@localhost")
    tree = snapshot_tree(git, source_root, params_text, remote_url)
    commit = git.commit_tree(tree, [], "The platform's source tree\n", datetime.now(UTC))
    git.update_ref("refs/heads/main", commit, None)
    git.run("read-tree", "--reset", "-u", "HEAD")


def check_registry(registry: Registry) -> None:
    """Raise a SettingsError unless ``registry`` is a git repository with a committer identity."""
    as_git(registry).identity()


def list_versions(registry: Registry) -> list[VersionInfo]:
    """Return the published versions, oldest first. A version is published once it has its tag."""
    git = as_git(registry)
    tags = git.tags(f"{_DATASET}@v*")
    pattern = re.compile(re.escape(_DATASET) + r"@v(\d+\.\d+\.\d+)")
    versions = [(match[1], tag) for tag in tags if (match := pattern.fullmatch(tag))]
    return [
        VersionInfo(version, tag, tags[tag], read_manifest(git, tag))
        for version, tag in sorted(versions, key=lambda pair: version_key(pair[0]))
    ]


def read_manifest(registry: Registry, tag: str) -> Manifest:
    """Return the manifest of a version; a PublishError lists the known tags if it is unknown."""
    git = as_git(registry)
    data = git.read(tag, MANIFEST_PATH)
    if data is None:
        raise unknown_version(git, tag)
    return Manifest.from_json(data, where=f"{git.where}: {tag}")


def unknown_version(git: Git, tag: str, *, where: str = "") -> PublishError:
    """Return the error for an unknown version, with a list of the published ones."""
    published = ", ".join(git.tags("*@v*")) or "none"
    return PublishError(f"{where or git.where}: no version {tag!r}. Published: {published}.")


def open_remote(registry: Registry, remote_url: str = "") -> DvcRemote:
    """Return the remote at an address, with its options from the newest version's configuration.

    Without an address, return the default remote of the newest version.

    Raises:
        PublishError: there is neither an address nor a version.
    """
    git = as_git(registry)
    versions = list_versions(git)
    if versions:
        return remote_of(git, versions[-1].commit, remote_url)
    if not remote_url:
        raise PublishError(
            f"{git.where}: no version was published yet. Publish one or set ANNOTATION_REMOTE."
        )
    return DvcRemote(remote_url)


def remote_of(git: Git, tag: str, remote_url: str = "") -> DvcRemote:
    """Return the remote at ``remote_url``, by default the version's, with the version's options."""
    url = remote_url or default_remote(git, tag)
    _, options = version_config(git, tag, url)
    return DvcRemote(url, options)


def checkout_on_new_machine(
    registry: Path | str, tag: str, into: Path, *, environment: Mapping[str, str] | None = None
) -> Path:
    """Clone a registry into ``into``, check out ``tag`` and ``dvc pull``, as on a new machine.

    Git and DVC run with an empty home, an empty cache and no variable of this process's environment
    except PATH; ``environment`` adds the credentials of a remote. Returns ``into``.

    Raises:
        PublishError: git or DVC failed; the message has the end of the program's output.
    """
    with tempfile.TemporaryDirectory(prefix="annotation-home-") as home:
        isolated = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": home,
            "DVC_SITE_CACHE_DIR": str(Path(home) / "dvc"),
            "DVC_NO_ANALYTICS": "1",
            "LC_ALL": "C.UTF-8",
            **(environment or {}),
        }
        clone = ["clone", "--quiet", "--no-checkout", str(registry), str(into)]
        _run_checked(clone, "git clone", isolated)
        checkout = ["-C", str(into), "checkout", "--quiet", "--detach", tag]
        _run_checked(checkout, "git checkout", isolated)
        result = subprocess.run(
            [sys.executable, "-m", "dvc", "pull"],
            cwd=into, env=isolated, capture_output=True, check=False,
        )  # fmt: skip
    if result.returncode != 0:
        raise PublishError(
            f"{registry}: dvc pull of {tag} failed: {_reason(result.stderr)} Check that the "
            "remote can be reached and that its objects are intact "
            "(`annotation-platform version verify`)."
        )
    return into


def _run_checked(
    arguments: list[str], command: str, environment: dict[str, str] | None = None
) -> None:
    result = run_git(arguments, environment=environment or clean_environment())
    if result.returncode != 0:
        raise PublishError(f"{command} {arguments[-1]} failed: {_reason(result.stderr)}")


def _reason(stderr: bytes) -> str:
    text = " ".join(stderr.decode(errors="replace").split())
    return text[-300:] or "no reason given."
