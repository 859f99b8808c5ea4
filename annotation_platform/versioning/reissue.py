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
from annotation_platform.policy import parse_policy
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
from annotation_platform.versioning.sharing import record_registry

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
        objects: remote and name of every object of an old version that held one.
    """

    versions: dict[str, int]
    withdrawn: tuple[str, ...]
    moves: tuple[Move, ...]
    commits: dict[str, str]
    folders: dict[str, str]
    objects: tuple[tuple[str, str], ...]


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
        files = remote.read_folder(info.manifest.folder_md5)
        inside = _held(files, images)
        grouped = bool(inside) or _in_groups(remote, files, images, info.tag)
        if inside:
            held[info.tag] = len(inside)
        if grouped:
            folders.append(info.manifest.folder_md5)
        manifest = info.manifest.to_json().decode()
        if grouped or commits or text(manifest) != manifest:
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
        _complete_last(git, leaving.at)
        infos = list_versions(git)
        commits: dict[str, str] = {}
        folders: dict[str, str] = {}
        held: dict[str, int] = {}
        withdrawn: list[str] = []
        objects: set[tuple[str, str]] = set()
        last: VersionInfo | None = None
        for number, info in enumerate(infos, start=1):
            remote = remote_of(git, info.commit, remote_url)
            files = remote.read_folder(info.manifest.folder_md5)
            inside = _held(files, leaving.images)
            grouped = bool(inside) or _in_groups(remote, files, leaving.images, info.tag)
            named = {*files.values(), info.manifest.folder_md5}
            if inside:
                held[info.tag] = len(inside)
            if grouped:
                objects |= {(remote.url, name) for name in named}
            leaves = len(inside) if grouped else None
            new = _written(git, info, leaving, image_path, remote, files, commits, leaves, last)
            if new is None:
                withdrawn.append(info.tag)
            else:
                last = info
                folders[info.manifest.folder_md5] = new
            progress(number, len(infos))
        gone = {info.commit for info in infos if info.tag in withdrawn}
        head = git.value(BRANCH)
        moves = []
        if head in commits:
            # First, so that who publishes meanwhile is seen before anything has moved.
            left = len(gone) < len(infos)
            moves.append(Move(BRANCH, head, commits[head] if left else ""))
        moves += [
            _move_of(git, f"refs/tags/{tag}", commit, commits, gone)
            for tag, commit in sorted(git.tags("*").items())
            if commit in commits
        ]
    return Reissue(
        versions=held,
        withdrawn=tuple(withdrawn),
        moves=tuple(move for move in moves if move.old != move.new),
        commits={old: new for old, new in commits.items() if old != new},
        folders={old: new for old, new in folders.items() if old != new},
        objects=tuple(sorted(objects)),
    )


def _complete_last(git: Git, at: datetime) -> None:
    """Give the last version its tag, if who published it was killed before."""
    head = git.resolve(BRANCH)
    data = git.read(head, MANIFEST_PATH) if head else None
    if head and data is not None:
        manifest = Manifest.from_json(data, where=f"{git.where}: {BRANCH}")
        message = f"{manifest.images} images, {manifest.boxes} boxes"
        git.create_tag(manifest.tag, head, message, at)


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
            record_registry(remote, git, versions[-1].commit)


def _written(
    git: Git,
    info: VersionInfo,
    leaving: Leaving,
    image_path: ImagePath,
    remote: DvcRemote,
    files: Mapping[str, str],
    commits: dict[str, str],
    gone: int | None,
    last: VersionInfo | None,
) -> str | None:
    """Write one version anew where it has to be, and note its commit; None if nothing is left.

    ``gone`` is how many images leave it, 0 if it only names one as a group, or None. ``last`` is
    the version before of those that stay. Returns DVC's name of the folder.
    """
    manifest, parents = info.manifest, _parents(git, info.commit)
    now_parents = list(dict.fromkeys(commits.get(each, each) for each in parents))
    text = manifest.to_json().decode()
    told = leaving.text(text)
    if gone is None and told == text and now_parents == parents:
        commits[info.commit] = info.commit
        return manifest.folder_md5
    new = Manifest.from_json(told.encode(), where=info.tag)
    if gone is not None:
        folder = _folder_without(git, info, leaving, image_path, remote, files)
        if folder is None:
            commits[info.commit] = now_parents[0]
            return None
        _upload(remote, folder, set(files.values()))
        new = _with_folder(new, folder, gone, leaving)
    new = replace(
        new,
        parent_version=last.version if last else "",
        parent_commit=commits[last.commit] if last else "",
    )
    tree = git.write_tree(
        git.tree_of(info.commit),
        {
            MANIFEST_PATH: new.to_json(),
            f"datasets/{new.dataset}.dvc": pointer_text(new).encode(),
        },
    )
    message = git.text("show", "--no-patch", "--format=%B", info.commit)
    commits[info.commit] = git.commit_tree(tree, now_parents, f"{message}\n", leaving.at)
    return new.folder_md5


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
    policy = parse_policy(params.decode(), where=f"{info.tag}: params.yaml")
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
    manifest: Manifest, folder: FolderObjects, gone: int, leaving: Leaving
) -> Manifest:
    facts = folder.facts
    said = ErasedImages(gone, leaving.reason, leaving.at.isoformat(timespec="seconds"))
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
        erased=(*manifest.erased, said) if gone else manifest.erased,
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


def _in_groups(
    remote: DvcRemote, files: Mapping[str, str], images: Collection[str], tag: str
) -> bool:
    """Return whether a version names one of the images as that of a group of others."""
    if not images:
        return False
    labels = version_labels(remote, dict(files), where=tag)
    return bool(labels["group_id"].isin(images).any())


def _parents(git: Git, commit: str) -> list[str]:
    return git.text("rev-list", "--parents", "--max-count=1", commit).split()[1:]


def _move_of(
    git: Git, name: str, commit: str, commits: Mapping[str, str], gone: Collection[str]
) -> Move:
    """Return where a tag on a version goes: that of the version, or of a stage it is in."""
    old, new = git.value(name), commits[commit]
    if commit in gone:
        # A stage of it goes with it: nobody approved of another version for that.
        return Move(name, old, "")
    if new == commit:
        return Move(name, old, old)
    # One without a message is the commit itself.
    return Move(name, old, new if old == commit else git.retag(old, new))
