"""Publish a training set as a dataset version that ``git checkout`` and ``dvc pull`` restore.

Order: new objects, read back and hashed → the folder object → git commit → tag, last. A reader
sees the old version or the new one. A killed publisher leaves orphaned objects or a commit without
its tag; the next publisher completes the latter.
"""

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from annotation_platform.errors import PublishError
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.schema.version_names import version_key
from annotation_platform.storage.files import disk_full
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.git import Git, Registry, as_git
from annotation_platform.versioning.manifest import (
    BRANCH,
    MANIFEST_PATH,
    CodeState,
    LabelError,
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
from annotation_platform.versioning.remote import DvcRemote, registry_lock
from annotation_platform.versioning.reuse import LastVersion, last_version, rendering_digest
from annotation_platform.versioning.sharing import record_registry
from annotation_platform.versioning.source import find_code, version_config

_ATTEMPTS = 50


@dataclass(frozen=True)
class VersionInputs:
    """The inputs of a version.

    Attributes:
        training_set: its labels; the order of rows has no effect.
        ontology: its classes.
        params_text: the ``params.yaml`` in effect; it becomes a part of the version.
        policy_digest: SHA-256 of the policy.
        rounds: id to digest of each included round.
        weights: digests of the models whose predictions were pre-annotations or auto-accepted.
        dataset: name of folder, pointer and tags.
        inputs_digest: digest of the lake's list of the training set's inputs, if it is stored.
        label_errors: estimated shares of wrong labels, if they were measured.
        keep_together: metadata whose equal values belong in one split; the audit counts the others.
    """

    training_set: Frame[TrainingSet]
    ontology: Ontology
    params_text: str
    policy_digest: str
    rounds: dict[str, str]
    weights: Sequence[str] = ()
    dataset: str = "training-set"
    inputs_digest: str = ""
    label_errors: Sequence[LabelError] = ()
    keep_together: Sequence[str] = ()


@dataclass(frozen=True)
class Published:
    """The version that contains the training set, new or already published."""

    version: str
    tag: str
    commit: str
    parent: str  # commit of the previous version; empty for the first
    folder_md5: str
    new_version: bool  # False: the content was published before
    uploaded_files: int
    manifest: Manifest


@dataclass(frozen=True)
class _Job:
    registry: Git
    remote: DvcRemote
    inputs: VersionInputs
    code: CodeState
    dvc_files: dict[str, bytes]  # DVC's configuration, for the tree of the commit
    now: datetime


def publish_version(
    registry: Registry,
    inputs: VersionInputs,
    *,
    remote_url: str,
    source_root: Path,
    image_path: ImagePath,
    now: datetime,
) -> Published:
    """Publish a training set as the next version, or return the last one if it has this content.

    The first version is 1.0.0. Major increases when the digest of the ontology changed, minor when
    images were added, patch otherwise. Only objects that the remote lacks are uploaded. The working
    tree, index and current branch of the registry do not change.

    Args:
        registry: a git repository, bare or not, with or without ``.dvc``; for one behind an
            address, its refreshed mirror.
        inputs: the training set and its provenance.
        remote_url: absolute path of a folder, or a URL that DVC supports.
        source_root: the source tree of the code in use.
        image_path: returns the stored file of an image.
        now: the time of publication.

    Raises:
        PublishError: the training set cannot be published, the remote cannot be used, or other
            publishers moved the branch again and again.
        SettingsError: the registry has no committer identity, or the remote's address is wrong.
    """
    git = as_git(registry)
    git.identity()
    with _file_errors(git), registry_lock(git.folder):
        code = find_code(git, source_root, inputs.params_text, remote_url, now=now)
        dvc_files, options = version_config(git, code.commit, remote_url)
        job = _Job(
            registry=git,
            remote=DvcRemote(remote_url, options),
            inputs=inputs,
            code=code,
            dvc_files=dvc_files,
            now=now,
        )
        last = _last(job)
        reusable, present = _reusable_version(job, last)
        content = build_folder(
            inputs.training_set,
            inputs.ontology,
            name=inputs.dataset,
            last=reusable,
            keep_together=inputs.keep_together,
        )
        return _publish(job, last, name_objects(content, image_path), present)


@contextmanager
def _file_errors(registry: Git) -> Iterator[None]:
    """Translate errors of the registry's and of the temporary folder to a PublishError."""
    try:
        yield
    except OSError as error:
        path = error.filename or registry.where
        if error.errno == errno.ENOSPC:
            raise disk_full(path) from error
        raise PublishError(
            f"{path}: {error.strerror}. Nothing was lost: correct the cause and run again."
        ) from error


@dataclass(frozen=True)
class _Last:
    """The last version: its commit, manifest and files; None and empty before the first one."""

    commit: str | None
    manifest: Manifest | None
    files: Mapping[str, str]  # path to MD5


def _last(job: _Job) -> _Last:
    commit, manifest = _head(job)
    return _Last(commit, manifest, job.remote.read_folder(manifest.folder_md5) if manifest else {})


def _reusable_version(job: _Job, last: _Last) -> tuple[LastVersion | None, set[str]]:
    """Return the last version if its files can be reused, and the objects known to be present."""
    present = set(last.files.values())
    if last.manifest is None:
        return None, present
    try:
        digest = job.inputs.ontology.digest
        return last_version(job.remote, last.manifest, last.files, digest), present
    except PublishError:
        # The remote has lost a file. Publishing goes on: everything is rendered and every missing
        # object is uploaded. `verify` reports damaged objects.
        return None, set()


def _publish(job: _Job, last: _Last, folder: FolderObjects, present: set[str]) -> Published:
    uploaded: int | None = None
    for _ in range(_ATTEMPTS):
        if last.manifest and _same_content(job, folder, last.manifest):
            record_registry(job.remote, job.registry, last.commit or "")
            return _published(last.manifest, last.commit or "", new=False, uploaded=uploaded or 0)
        manifest = _manifest(job, folder, last)
        if uploaded is None:
            # An object that is already in the remote may be an orphan. This record keeps the
            # garbage collection of another registry from removing it.
            record_registry(job.remote, job.registry, "")
            uploaded = upload_objects(job.remote, folder, present)
        commit = _commit(job, manifest, last.commit)
        expected = last.commit if job.registry.resolve(BRANCH) else None
        summary = _summary(manifest)
        if job.registry.add_version(commit, expected, manifest.tag, summary, job.now):
            record_registry(job.remote, job.registry, commit)
            return _published(manifest, commit, new=True, uploaded=uploaded)
        last = _last(job)
    raise PublishError(
        f"{job.registry.where}: other publishers moved {BRANCH} {_ATTEMPTS} times. Run again."
    )


def _head(job: _Job) -> tuple[str | None, Manifest | None]:
    """Return commit and manifest of the last version, after adding its tag if that is missing.

    A clone has the tags but not the branch; there the highest tag is the last version.
    """
    head = job.registry.resolve(BRANCH)
    if head is None:
        tags = job.registry.tags(f"{job.inputs.dataset}@v*")
        if not tags:
            return None, None
        head = tags[max(tags, key=lambda tag: version_key(tag.rpartition("@v")[2]))]
    data = job.registry.read(head, MANIFEST_PATH)
    where = f"{job.registry.where}: {head[:12]}:{MANIFEST_PATH}"
    if data is None:
        raise PublishError(
            f"{where}: missing, so {BRANCH} is not a branch of versions. Rename that branch."
        )
    manifest = Manifest.from_json(data, where=where)
    _tag(job, manifest, head)
    return head, manifest


def _same_content(job: _Job, folder: FolderObjects, last: Manifest) -> bool:
    digest = job.inputs.ontology.digest
    return (last.folder_md5, last.ontology_digest) == (folder.md5, digest)


def _next_version(job: _Job, last: _Last, *, more_images: bool) -> str:
    if last.manifest is None:
        return "1.0.0"
    major, minor, patch = version_key(last.manifest.version)
    if last.manifest.ontology_digest != job.inputs.ontology.digest:
        return f"{major + 1}.0.0"
    if more_images:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def _changed_splits(
    before: Mapping[str, str], now: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return image id to split for image paths that are only in the old, and only in the new."""
    different = before.keys() - now.keys(), now.keys() - before.keys()
    matched = [map(IMAGE_PATH.fullmatch, paths) for paths in different]
    old, new = ({each["image"]: each["split"] for each in matches if each} for matches in matched)
    return old, new


def _manifest(job: _Job, folder: FolderObjects, last: _Last) -> Manifest:
    facts, inputs = folder.facts, job.inputs
    old, new = _changed_splits(last.files, folder.files)
    moved = sum(old[image] != new[image] for image in old.keys() & new.keys())
    return Manifest(
        dataset=inputs.dataset,
        version=_next_version(job, last, more_images=bool(new.keys() - old.keys())),
        parent_version=last.manifest.version if last.manifest else "",
        parent_commit=last.commit or "",
        published_at=job.now.astimezone(UTC).isoformat(timespec="seconds"),
        code=job.code,
        folder_md5=folder.md5,
        folder_bytes=folder.byte_size,
        folder_files=len(folder.files),
        rounds=inputs.rounds,
        policy_digest=inputs.policy_digest,
        ontology_digest=inputs.ontology.digest,
        weights=tuple(sorted(set(inputs.weights))),
        images=sum(facts.images.values()),
        boxes=sum(facts.boxes.values()),
        images_by_split=facts.images,
        boxes_by_split=folder.boxes_by_split,
        audits={**folder.audits, "images_that_changed_split": moved},
        rendering=rendering_digest(),
        inputs=inputs.inputs_digest,
        label_errors=tuple(inputs.label_errors),
        labels_root=folder.labels_root,
    )


def _commit(job: _Job, manifest: Manifest, head: str | None) -> str:
    dataset = job.inputs.dataset
    tree = job.registry.write_tree(
        job.registry.tree_of(job.code.commit),
        {
            **job.dvc_files,
            "params.yaml": job.inputs.params_text.encode(),
            "datasets/.gitignore": f"/{dataset}\n".encode(),
            MANIFEST_PATH: manifest.to_json(),
            f"datasets/{dataset}.dvc": pointer_text(manifest).encode(),
        },
    )
    parents = [head, job.code.commit] if head else [job.code.commit]
    message = f"{dataset} v{manifest.version}: {_summary(manifest)}\n"
    return job.registry.commit_tree(tree, parents, message, job.now)


def _tag(job: _Job, manifest: Manifest, commit: str) -> None:
    if job.registry.resolve(f"refs/tags/{manifest.tag}") != commit:
        job.registry.create_tag(manifest.tag, commit, _summary(manifest), job.now)


def _summary(manifest: Manifest) -> str:
    return f"{manifest.images} images, {manifest.boxes} boxes"


def _published(manifest: Manifest, commit: str, *, new: bool, uploaded: int) -> Published:
    return Published(
        version=manifest.version,
        tag=manifest.tag,
        commit=commit,
        parent=manifest.parent_commit,
        folder_md5=manifest.folder_md5,
        new_version=new,
        uploaded_files=uploaded,
        manifest=manifest,
    )
