"""Registries: make one, list and read its versions, and restore a version as a stranger would."""

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
from annotation_platform.versioning.git import Git, Registry, as_git, clean_environment, run_git
from annotation_platform.versioning.manifest import MANIFEST_PATH, Manifest, version_key
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
    """Make a git repository in ``folder`` with one commit: source tree, policy and DVC remote.

    The remote is in it because `dvc artifacts get` reads the default branch's configuration, not
    the version's. A repository that has a commit already is left as it is. Where git was never
    told who commits, the new one gets an identity of its own, so that a demo needs no set-up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / ".git").exists():
        _started(["init", "--quiet", "--initial-branch=main", str(folder)], "git init")
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
    """Raise a SettingsError unless it is a git repository that can be committed to."""
    as_git(registry).identity()


def list_versions(registry: Registry, *, dataset: str = _DATASET) -> list[VersionInfo]:
    """Return the published versions, oldest first. A version counts once it has its tag."""
    git = as_git(registry)
    tags = git.tags(f"{dataset}@v*")
    form = re.compile(re.escape(dataset) + r"@v(\d+\.\d+\.\d+)")
    found = [(match[1], tag) for tag in tags if (match := form.fullmatch(tag))]
    return [
        VersionInfo(version, tag, tags[tag], read_manifest(git, tag))
        for version, tag in sorted(found, key=lambda pair: version_key(pair[0]))
    ]


def read_manifest(registry: Registry, tag: str) -> Manifest:
    """Return the manifest of a version; an unknown tag is a PublishError that lists the known."""
    git = as_git(registry)
    data = git.read(tag, MANIFEST_PATH)
    if data is None:
        raise unknown_version(git, tag)
    return Manifest.from_json(data, where=f"{git.where}: {tag}")


def unknown_version(git: Git, tag: str, *, where: str = "") -> PublishError:
    """Return the error for a version that is not there, with those that are."""
    known = ", ".join(git.tags("*@v*")) or "none"
    return PublishError(f"{where or git.where}: no version {tag!r}. Published: {known}.")


def open_remote(registry: Registry, remote_url: str = "") -> DvcRemote:
    """Return the remote at an address, with what the newest version's configuration says of it.

    Without an address it is the one that the newest version names.
    """
    git = as_git(registry)
    versions = list_versions(git)
    if versions:
        return remote_of(git, versions[-1].commit, remote_url)
    if not remote_url:
        raise PublishError(f"{git.where}: no version was published yet.")
    return DvcRemote(remote_url)


def remote_of(git: Git, tag: str, remote_url: str = "") -> DvcRemote:
    """Return the remote that a version names, or the one at ``remote_url`` with its options."""
    url = remote_url or default_remote(git, tag)
    _, options = version_config(git, tag, url)
    return DvcRemote(url, options)


def checkout_as_stranger(
    registry: Path | str, tag: str, into: Path, *, environment: Mapping[str, str] | None = None
) -> Path:
    """Clone a registry into ``into``, check out ``tag`` and ``dvc pull``, as on a new machine.

    Git and DVC see an empty home, an empty cache and nothing of this process's environment but
    PATH; ``environment`` adds what a remote's credentials need. Returns ``into``; whatever fails
    is a PublishError with the program's last words.
    """
    with tempfile.TemporaryDirectory(prefix="annotation-home-") as home:
        known = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": home,
            "DVC_SITE_CACHE_DIR": str(Path(home) / "dvc"),
            "DVC_NO_ANALYTICS": "1",
            "LC_ALL": "C.UTF-8",
            **(environment or {}),
        }
        _started(
            ["clone", "--quiet", "--no-checkout", str(registry), str(into)], "git clone", known
        )
        _started(["-C", str(into), "checkout", "--quiet", "--detach", tag], "git checkout", known)
        result = subprocess.run(
            [sys.executable, "-m", "dvc", "pull"],
            cwd=into, env=known, capture_output=True, check=False,
        )  # fmt: skip
    if result.returncode != 0:
        raise PublishError(
            f"{registry}: dvc pull of {tag} failed: {_words(result.stderr)} "
            "Check that the remote can be reached and is whole (`annotation-platform version "
            "verify`)."
        )
    return into


def _started(arguments: list[str], what: str, environment: dict[str, str] | None = None) -> None:
    result = run_git(arguments, environment=environment or clean_environment())
    if result.returncode != 0:
        raise PublishError(f"{what} {arguments[-1]} failed: {_words(result.stderr)}")


def _words(stderr: bytes) -> str:
    text = " ".join(stderr.decode(errors="replace").split())
    return text[-300:] or "no reason given."
