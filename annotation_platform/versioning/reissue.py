"""Issue published versions again without what was erased, under the tags they have.

First everything that is to be there is written, beside what is there. Then references move, one
after the other, and at last the objects go that only the old versions named. Whoever is stopped
begins again where the plan says.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import pandas as pd

from annotation_platform.errors import PublishError
from annotation_platform.params import parse_params
from annotation_platform.versioning.contents import version_labels
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.manifest import (
    BRANCH,
    MANIFEST_PATH,
    ErasedImages,
    Manifest,
)
from annotation_platform.versioning.publisher import (
    IMAGE_PATH,
    FolderObjects,
    ImagePath,
    name_objects,
    pointer_text,
)
from annotation_platform.versioning.registry import (
    VersionInfo,
    list_versions,
    remote_of,
    unknown_version,
)
from annotation_platform.versioning.remote import DvcRemote, registry_lock
from annotation_platform.versioning.reuse import last_version, rendering_digest
from annotation_platform.versioning.sharing import note_registry

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Leaving:
    """What leaves the versions.

    Attributes:
        images: their ids.
        labels: returns a ``training_set`` without them.
        text: returns a manifest's text with every digest replaced that is another one now.
        reason: why.
        at: when, in UTC.
    """

    images: frozenset[str]
    labels: Callable[[pd.DataFrame], pd.DataFrame]
    text: Callable[[str], str]
    reason: str
    at: datetime


@dataclass(frozen=True)
class Move:
    """A reference, where it points, and where it is to point; empty: it is to go."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Reissue:
    """What is left to be done once the new versions are written.

    Attributes:
        versions: the tags of the versions that held an erased image, and how many each.
        withdrawn: those of which nothing is left.
        moves: the references.
        commits: by old commit the new one, for whoever has noted it.
        folders: by DVC's old name of a folder the new one.
        objects: the objects that only old versions named.
    """

    versions: dict[str, int]
    withdrawn: tuple[str, ...]
    moves: tuple[Move, ...]
    commits: dict[str, str]
    folders: dict[str, str]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Changing:
    """What an erasure does to versions: how many images each loses, and which names change.

    ``commits`` and ``folders`` are those of now; every version after one that changes has another
    commit, too.
    """

    held: dict[str, int]
    commits: tuple[str, ...]
    folders: tuple[str, ...]


def which_change(
    git: Git, images: Collection[str], text: Callable[[str], str], *, remote_url: str
) -> Changing:
    """Return which versions would be written anew.

    Args:
        git: the registry.
        images: what would go.
        text: as that of ``Leaving``.
        remote_url: where the files are, if not where the versions say.
    """
    held: dict[str, int] = {}
    commits: list[str] = []
    folders: list[str] = []
    for info in list_versions(git):
        remote = remote_of(git, info.commit, remote_url)
        inside = _held(remote.read_folder(info.manifest.folder_md5), images)
        if inside:
            held[info.tag] = len(inside)
            folders.append(info.manifest.folder_md5)
        manifest = info.manifest.to_json().decode()
        if inside or commits or text(manifest) != manifest:
            commits.append(info.commit)
    return Changing(held, tuple(commits), tuple(folders))


def write_versions(
    git: Git,
    leaving: Leaving,
    image_path: ImagePath,
    *,
    remote_url: str,
    progress: Progress,
) -> Reissue:
    """Write every version anew that holds what leaves, or follows one; no reference moves.

    Args:
        git: the registry, up to date.
        leaving: what leaves.
        image_path: image id and extension to the stored file.
        remote_url: where the files are, if not where the versions say.
        progress: told the versions done, and all of them.

    Raises:
        PublishError: the remote has lost something of a version, or cannot be written.
    """
    git.identity()
    with registry_lock(git.folder):
        infos = list_versions(git)
        commits: dict[str, str] = {}
        folders: dict[str, str] = {}
        held: dict[str, int] = {}
        withdrawn: list[str] = []
        before: set[str] = set()
        after: set[str] = set()
        for number, info in enumerate(infos, start=1):
            remote = remote_of(git, info.commit, remote_url)
            files = remote.read_folder(info.manifest.folder_md5)
            inside = _held(files, leaving.images)
            named = {*files.values(), info.manifest.folder_md5}
            if inside:
                held[info.tag] = len(inside)
                before |= named
            new = _written(git, info, leaving, image_path, remote, files, commits, len(inside))
            if new is None:
                withdrawn.append(info.tag)
            else:
                folders[info.manifest.folder_md5] = new.folder_md5
                after |= new.names
            progress(number, len(infos))
        gone = {f"refs/tags/{tag}" for tag in withdrawn}
        moves = [
            _move_of(git, f"refs/tags/{tag}", commit, commits, gone)
            for tag, commit in sorted(git.tags("*").items())
            if commit in commits
        ]
        head = git.value(BRANCH)
        if head in commits:
            moves.append(Move(BRANCH, head, commits[head]))
    return Reissue(
        versions=held,
        withdrawn=tuple(withdrawn),
        moves=tuple(move for move in moves if move.old != move.new),
        commits={old: new for old, new in commits.items() if old != new},
        folders={old: new for old, new in folders.items() if old != new},
        objects=tuple(sorted(before - after)),
    )


def move_references(git: Git, reissue: Reissue, *, remote_url: str) -> None:
    """Let every reference point at the new versions; those that do already stay.

    Raises:
        PublishError: somebody published meanwhile, so a reference is elsewhere: erase again.
    """
    with registry_lock(git.folder):
        for move in reissue.moves:
            if git.value(move.name) == move.new:
                continue
            done = (
                git.update_ref(move.name, move.new, move.old)
                if move.new
                else git.delete_ref(move.name, move.old)
            )
            if not done:
                raise PublishError(
                    f"{git.where}: {move.name} was moved by somebody else meanwhile. Run this "
                    "again: what they published is looked at, too."
                )
        versions = list_versions(git)
        if versions:
            remote = remote_of(git, versions[-1].commit, remote_url)
            note_registry(remote, git, versions[-1].commit)


@dataclass(frozen=True)
class _Written:
    folder_md5: str
    names: set[str]


def _written(
    git: Git,
    info: VersionInfo,
    leaving: Leaving,
    image_path: ImagePath,
    remote: DvcRemote,
    files: Mapping[str, str],
    commits: dict[str, str],
    inside: int,
) -> _Written | None:
    """Write one version anew where it has to be, and note its commit; None if nothing is left."""
    manifest, parents = info.manifest, _parents(git, info.commit)
    now_parents = list(dict.fromkeys(commits.get(each, each) for each in parents))
    text = manifest.to_json().decode()
    told = leaving.text(text)
    if not inside and told == text and now_parents == parents:
        commits[info.commit] = info.commit
        return _Written(manifest.folder_md5, {*files.values(), manifest.folder_md5})
    new = Manifest.from_json(told.encode(), where=info.tag)
    written = _Written(manifest.folder_md5, {*files.values(), manifest.folder_md5})
    if inside:
        folder = _folder_without(git, info, leaving, image_path, remote, files)
        if folder is None:
            commits[info.commit] = now_parents[0]
            return None
        _upload(remote, folder, set(files.values()))
        written = _Written(folder.md5, {*folder.files.values(), folder.md5})
        new = _with_folder(new, folder, inside, leaving)
    new = replace(new, parent_commit=commits.get(manifest.parent_commit, manifest.parent_commit))
    tree = git.write_tree(
        git.tree_of(info.commit),
        {
            MANIFEST_PATH: new.to_json(),
            f"datasets/{new.dataset}.dvc": pointer_text(new).encode(),
        },
    )
    message = git.text("show", "--no-patch", "--format=%B", info.commit)
    commits[info.commit] = git.commit_tree(tree, now_parents, f"{message}\n", leaving.at)
    return written


def _folder_without(
    git: Git,
    info: VersionInfo,
    leaving: Leaving,
    image_path: ImagePath,
    remote: DvcRemote,
    files: Mapping[str, str],
) -> FolderObjects | None:
    """Return a version's folder without what leaves; None if it would be empty."""
    params = git.read(info.commit, "params.yaml")
    if params is None:
        raise unknown_version(git, info.tag)
    policy = parse_params(params.decode(), where=f"{info.tag}: params.yaml")
    before = last_version(remote, info.manifest, files, policy.ontology.digest)
    if before is not None:
        known = before.training_set
    else:
        known = version_labels(remote, dict(files), where=info.tag)
    labels = leaving.labels(known)
    if labels.empty:
        return None
    content = build_folder(
        labels,
        policy.ontology,
        name=info.manifest.dataset,
        last=before,
        keep_together=policy.splits.keep_together,
    )
    return name_objects(content, image_path)


def _with_folder(
    manifest: Manifest, folder: FolderObjects, inside: int, leaving: Leaving
) -> Manifest:
    facts = folder.facts
    gone = ErasedImages(inside, leaving.reason, leaving.at.isoformat(timespec="seconds"))
    return replace(
        manifest,
        folder_md5=folder.md5,
        folder_bytes=folder.byte_size,
        folder_files=len(folder.files),
        images=sum(facts.images.values()),
        boxes=sum(facts.boxes.values()),
        images_by_split=facts.images,
        boxes_by_split={
            split: {one.name: one.boxes[split] for one in facts.classes} for split in facts.images
        },
        audits=manifest.audits | folder.audits,
        rendering=rendering_digest(),
        labels_root=folder.labels_root,
        erased=(*manifest.erased, gone),
    )


def _upload(remote: DvcRemote, folder: FolderObjects, held: set[str]) -> None:
    missing = remote.missing(folder.names - held)
    files = {name: folder.source(name) for name in missing if name != folder.md5}
    remote.upload(files)
    if folder.md5 in missing:
        remote.upload({folder.md5: folder.source(folder.md5)})


def _held(files: Mapping[str, str], images: Collection[str]) -> set[str]:
    """Return those of the images that are among a version's files."""
    matches = (IMAGE_PATH.fullmatch(path) for path in files)
    return {match["image"] for match in matches if match and match["image"] in images}


def _parents(git: Git, commit: str) -> list[str]:
    return git.text("rev-list", "--parents", "--max-count=1", commit).split()[1:]


def _move_of(
    git: Git, name: str, commit: str, commits: Mapping[str, str], gone: Collection[str]
) -> Move:
    """Return where a tag on a version goes: that of the version, or of a stage it is in."""
    old, new = git.value(name), commits[commit]
    if name in gone:
        return Move(name, old, "")
    if new == commit:
        return Move(name, old, old)
    # One without a message is the commit itself.
    return Move(name, old, new if old == commit else git.retag(old, new))
