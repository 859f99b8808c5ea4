"""Publish versions again without erased content, under the tags that they have.

All new objects and commits are written first, next to the old ones. Then the references move one by
one, and finally the objects that only the old versions named are removed. An interrupted erasure
continues at the step recorded in its plan.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from annotation_platform.errors import PublishError
from annotation_platform.policy import parse_policy
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.versioning.contents import version_labels
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.git import Git
from annotation_platform.versioning.manifest import (
    BRANCH,
    MANIFEST_PATH,
    ErasedImages,
    Manifest,
)
from annotation_platform.versioning.objects import (
    IMAGE_PATH,
    FolderObjects,
    ImagePath,
    name_objects,
    pointer_text,
    upload_objects,
)
from annotation_platform.versioning.registry import (
    VersionInfo,
    list_versions,
    remote_of,
    unknown_version,
)
from annotation_platform.versioning.remote import DvcRemote, Progress, registry_lock
from annotation_platform.versioning.reuse import last_version, rendering_digest
from annotation_platform.versioning.sharing import record_registry


@dataclass(frozen=True)
class ErasedContent:
    """The content that is erased from the versions.

    Attributes:
        images: ids of the erased images.
        labels: returns a training set without the erased content.
        text: returns the text of a manifest with every outdated digest replaced by the new one.
        reason: the reason for the erasure.
        at: the time of the erasure, in UTC.
    """

    images: frozenset[str]
    labels: Callable[[Frame[TrainingSet]], Frame[TrainingSet]]
    text: Callable[[str], str]
    reason: str
    at: datetime


@dataclass(frozen=True)
class Move:
    """The move of a reference from one value to another; an empty new value deletes it."""

    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Reissue:
    """The remaining work once the new versions are written.

    Attributes:
        versions: tag to number of erased images, for the versions that held any.
        withdrawn: tags of the versions that would be empty.
        moves: the moves of references.
        commits: old commit to new commit, for tables and logs that name it.
        folders: old name to new name of DVC's folder objects.
        objects: remote and name of every object of an old version that held erased content.
    """

    versions: dict[str, int]
    withdrawn: tuple[str, ...]
    moves: tuple[Move, ...]
    commits: dict[str, str]
    folders: dict[str, str]
    objects: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class AffectedVersions:
    """The effect of an erasure on versions.

    Attributes:
        held: tag to number of erased images, for the versions that hold any.
        commits: today's commits of the versions that change. Every version after a changed one
            gets another commit, too.
        folders: today's names of the folder objects that change.
    """

    held: dict[str, int]
    commits: tuple[str, ...]
    folders: tuple[str, ...]


def find_affected_versions(
    git: Git, images: Collection[str], text: Callable[[str], str], *, remote_url: str
) -> AffectedVersions:
    """Return which versions an erasure would rewrite.

    Args:
        git: the registry.
        images: ids of the images to erase.
        text: as in ``ErasedContent``.
        remote_url: the remote with the files; empty: the versions' own.
    """
    held: dict[str, int] = {}
    commits: list[str] = []
    folders: list[str] = []
    for info in list_versions(git):
        remote = remote_of(git, info.commit, remote_url)
        files = remote.read_folder(info.manifest.folder_md5)
        erased = _erased_images(remote, files, images, info.tag)
        if erased:
            held[info.tag] = erased
        if erased is not None:
            folders.append(info.manifest.folder_md5)
        manifest = info.manifest.to_json().decode()
        if erased is not None or commits or text(manifest) != manifest:
            commits.append(info.commit)
    return AffectedVersions(held, tuple(commits), tuple(folders))


def write_versions(
    git: Git,
    leaving: ErasedContent,
    image_path: ImagePath,
    *,
    remote_url: str,
    progress: Progress,
) -> Reissue:
    """Rewrite every version that holds erased content or follows such a version.

    No reference moves.

    Args:
        git: the registry; a mirror must be refreshed.
        leaving: the erased content.
        image_path: returns the stored file of an image.
        remote_url: the remote with the files; empty: the versions' own.
        progress: called with the numbers of versions done and of all versions.

    Raises:
        PublishError: an object of a version is missing in the remote, or the remote cannot be
            written.
    """
    git.identity()
    with registry_lock(git.folder):
        _tag_head(git, leaving.at)
        infos = list_versions(git)
        rewriter = _Rewriter(git, leaving, image_path)
        for number, info in enumerate(infos, start=1):
            rewriter.add(info, remote_of(git, info.commit, remote_url))
            progress(number, len(infos))
        commits, folders = rewriter.commits, rewriter.folders
        withdrawn = {info.commit for info in infos if info.tag in rewriter.withdrawn}
        head = git.value(BRANCH)
        moves = []
        if head in commits:
            # The branch moves first, so that a concurrent publication is detected before any
            # reference has moved.
            moves.append(Move(BRANCH, head, commits[head] if len(withdrawn) < len(infos) else ""))
        moves += [
            _move_of(git, f"refs/tags/{tag}", commit, commits, withdrawn)
            for tag, commit in sorted(git.tags("*").items())
            if commit in commits
        ]
    return Reissue(
        versions=rewriter.held,
        withdrawn=tuple(rewriter.withdrawn),
        moves=tuple(move for move in moves if move.old != move.new),
        commits={old: new for old, new in commits.items() if old != new},
        folders={old: new for old, new in folders.items() if old != new},
        objects=tuple(sorted(rewriter.objects)),
    )


def _tag_head(git: Git, at: datetime) -> None:
    """Add the missing tag of the last version, whose publisher was killed before."""
    head = git.resolve(BRANCH)
    data = git.read(head, MANIFEST_PATH) if head else None
    if head and data is not None:
        manifest = Manifest.from_json(data, where=f"{git.where}: {BRANCH}")
        message = f"{manifest.images} images, {manifest.boxes} boxes"
        git.create_tag(manifest.tag, head, message, at)


def move_references(git: Git, reissue: Reissue, *, remote_url: str) -> None:
    """Move every reference to the new versions, except those that are there already.

    Raises:
        PublishError: a version was published meanwhile, so that a reference has another value.
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
                    f"{git.where}: {move.name} was moved by another publisher. Run the erasure "
                    "again: it then covers the new version, too."
                )
        versions = list_versions(git)
        if versions:
            remote = remote_of(git, versions[-1].commit, remote_url)
            record_registry(remote, git, versions[-1].commit)


@dataclass
class _Rewriter:
    """Writes versions without erased content, oldest first, and collects the results.

    Attributes:
        commits: old commit to new commit, the same if it did not change. For a withdrawn version
            it is the new commit of its first parent.
        folders: old name to new name of the folder object, withdrawn versions excluded.
        held, withdrawn, objects: as in ``Reissue``.
        last: the last version that was not withdrawn.
    """

    git: Git
    leaving: ErasedContent
    image_path: ImagePath
    commits: dict[str, str] = field(default_factory=dict)
    folders: dict[str, str] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    withdrawn: list[str] = field(default_factory=list)
    objects: set[tuple[str, str]] = field(default_factory=set)
    last: VersionInfo | None = None

    def add(self, info: VersionInfo, remote: DvcRemote) -> None:
        """Rewrite a version if it changes, and collect the result."""
        files = remote.read_folder(info.manifest.folder_md5)
        erased = _erased_images(remote, files, self.leaving.images, info.tag)
        if erased:
            self.held[info.tag] = erased
        if erased is not None:
            names = {*files.values(), info.manifest.folder_md5}
            self.objects |= {(remote.url, name) for name in names}
        folder_md5 = self._write(info, remote, files, erased)
        if folder_md5 is None:
            self.withdrawn.append(info.tag)
        else:
            self.last = info
            self.folders[info.manifest.folder_md5] = folder_md5

    def _write(
        self, info: VersionInfo, remote: DvcRemote, files: Mapping[str, str], erased: int | None
    ) -> str | None:
        """Write a version if it changes, and return the name of its folder object.

        ``erased`` is the number of its erased images, 0 if one only names a duplicate group, or
        None. Returns None for a version that would be empty.
        """
        git, manifest, leaving = self.git, info.manifest, self.leaving
        parents = git.text("rev-list", "--parents", "--max-count=1", info.commit).split()[1:]
        new_parents = list(dict.fromkeys(self.commits.get(each, each) for each in parents))
        text = manifest.to_json().decode()
        new_text = leaving.text(text)
        if erased is None and new_text == text and new_parents == parents:
            self.commits[info.commit] = info.commit
            return manifest.folder_md5
        new = Manifest.from_json(new_text.encode(), where=info.tag)
        if erased is not None:
            folder = self._build_folder(info, remote, files)
            if folder is None:
                self.commits[info.commit] = new_parents[0]
                return None
            upload_objects(remote, folder, set(files.values()))
            new = _with_folder(new, folder, erased, leaving)
        new = replace(
            new,
            parent_version=self.last.version if self.last else "",
            parent_commit=self.commits[self.last.commit] if self.last else "",
        )
        tree = git.write_tree(
            git.tree_of(info.commit),
            {
                MANIFEST_PATH: new.to_json(),
                f"datasets/{new.dataset}.dvc": pointer_text(new).encode(),
            },
        )
        message = git.text("show", "--no-patch", "--format=%B", info.commit)
        commit = git.commit_tree(tree, new_parents, f"{message}\n", leaving.at)
        self.commits[info.commit] = commit
        return new.folder_md5

    def _build_folder(
        self, info: VersionInfo, remote: DvcRemote, files: Mapping[str, str]
    ) -> FolderObjects | None:
        """Return a version's folder without the erased content; None if it would be empty."""
        params = self.git.read(info.commit, "params.yaml")
        if params is None:
            raise unknown_version(self.git, info.tag)
        policy = parse_policy(params.decode(), where=f"{info.tag}: params.yaml")
        before = last_version(remote, info.manifest, files, policy.ontology.digest)
        if before is not None:
            labels = TrainingSet.conform(before.training_set)
        else:
            labels = version_labels(remote, files, where=info.tag)
        remaining = self.leaving.labels(labels)
        if remaining.empty:
            return None
        content = build_folder(
            remaining,
            policy.ontology,
            name=info.manifest.dataset,
            last=before,
            keep_together=policy.splits.keep_together,
        )
        return name_objects(content, self.image_path)


def _with_folder(
    manifest: Manifest, folder: FolderObjects, erased: int, leaving: ErasedContent
) -> Manifest:
    facts = folder.facts
    erasure = ErasedImages(erased, leaving.reason, leaving.at.isoformat(timespec="seconds"))
    return replace(
        manifest,
        folder_md5=folder.md5,
        folder_bytes=folder.byte_size,
        folder_files=len(folder.files),
        images=sum(facts.images.values()),
        boxes=sum(facts.boxes.values()),
        images_by_split=facts.images,
        boxes_by_split=folder.boxes_by_split,
        audits=manifest.audits | folder.audits,
        rendering=rendering_digest(),
        labels_root=folder.labels_root,
        erased=(*manifest.erased, erasure) if erased else manifest.erased,
    )


def _erased_images(
    remote: DvcRemote, files: Mapping[str, str], images: Collection[str], tag: str
) -> int | None:
    """Return how many of the images a version holds.

    It is 0 if one of them only names a duplicate group of other images, and None if the version has
    no trace of them.
    """
    matches = (IMAGE_PATH.fullmatch(path) for path in files)
    held = {match["image"] for match in matches if match and match["image"] in images}
    if held or not images:
        return len(held) or None
    labels = version_labels(remote, files, where=tag)
    return 0 if labels[TrainingSet.group_id].isin(images).any() else None


def _move_of(
    git: Git, name: str, commit: str, commits: Mapping[str, str], withdrawn: Collection[str]
) -> Move:
    """Return the move of a tag of a version, or of a stage that it is in."""
    old, new = git.value(name), commits[commit]
    if commit in withdrawn:
        # The stages of a withdrawn version are deleted: no other version was approved for them.
        return Move(name, old, "")
    if new == commit:
        return Move(name, old, old)
    # A lightweight tag is the commit itself.
    return Move(name, old, new if old == commit else git.retag(old, new))
