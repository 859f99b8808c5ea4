"""Publish a training set as a dataset version that ``git checkout`` and ``dvc pull`` restore.

Order: new objects, read back and hashed → the folder's object → git commit → tag, last. A reader
sees the old version or the new one. Whatever a killed publisher leaves is either an orphan or a
commit without its tag, and the next one completes it.
"""

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from annotation_platform.errors import PublishError
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.files import disk_full
from annotation_platform.versioning.folder import (
    Folder,
    FolderFacts,
    ImageFile,
    build_folder,
)
from annotation_platform.versioning.git import Git, Registry, as_git
from annotation_platform.versioning.manifest import (
    BRANCH,
    MANIFEST_PATH,
    CodeState,
    LabelError,
    Manifest,
    version_key,
)
from annotation_platform.versioning.remote import (
    DvcRemote,
    Progress,
    folder_object,
    registry_lock,
)
from annotation_platform.versioning.reuse import LastVersion, last_version, rendering_digest
from annotation_platform.versioning.sharing import record_registry
from annotation_platform.versioning.source import find_code, version_config
from annotation_platform.versioning.uploading import InBucket, Source

_ATTEMPTS = 50
IMAGE_PATH = re.compile(r"images/(?P<split>[^/]+)/(?P<image>.+)\.(?P<extension>[^./]+)")
"""The path of an image in a version."""

ImagePath = Callable[[str, str], Path | InBucket]
"""Where the stored image with an id and extension lies."""


@dataclass(frozen=True)
class Published:
    """The version that holds the training set, new or found."""

    version: str
    tag: str
    commit: str
    parent: str  # commit of the version before; empty for the first
    folder_md5: str
    new_version: bool  # False: the content was published before
    uploaded_files: int
    manifest: Manifest


@dataclass(frozen=True)
class FolderObjects:
    """A folder as DVC knows it, and where the content of each of its objects comes from."""

    md5: str  # name of DVC's folder object
    files: dict[str, str]  # path to MD5
    byte_size: int
    facts: FolderFacts
    labels_root: str
    audits: dict[str, int]
    texts: dict[str, Source] = field(repr=False)  # by MD5, the folder object among them
    images: dict[str, ImageFile] = field(repr=False)  # by MD5
    image_path: ImagePath = field(repr=False)

    @property
    def names(self) -> set[str]:
        """The MD5 of every object that is not taken over, that of the folder among them."""
        return {*self.texts, *self.images}

    def source(self, name: str) -> Source:
        """Return where the content of an object comes from."""
        if name in self.texts:
            return self.texts[name]
        image = self.images[name]
        stored = self.image_path(image.image_id, image.extension)
        return Source(stored, f"image {image.image_id}")


@dataclass(frozen=True)
class _Job:
    registry: Git
    remote: DvcRemote
    dataset: str
    code: CodeState
    ontology_digest: str
    policy_digest: str
    rounds: dict[str, str]
    weights: list[str]
    inputs: str
    label_errors: tuple[LabelError, ...]
    params_text: str
    dvc_files: dict[str, bytes]  # DVC's configuration, for the commit's tree
    now: datetime


def publish_version(
    registry: Registry,
    *,
    remote_url: str,
    training_set: pd.DataFrame,
    ontology: Ontology,
    params_text: str,
    rounds: dict[str, str],
    policy_digest: str,
    weights: list[str],
    source_root: Path,
    image_path: ImagePath,
    now: datetime,
    dataset: str = "training-set",
    inputs: str = "",
    label_errors: Sequence[LabelError] = (),
    keep_together: Sequence[str] = (),
    progress: Progress | None = None,
) -> Published:
    """Publish ``training_set`` as the next version, or return the last if that holds it.

    The first version is 1.0.0. Major goes up when the ontology's digest changed, minor when images
    were added, patch otherwise. Only objects that the remote lacks are uploaded. The registry's
    working tree, index and current branch are never touched.

    Args:
        registry: a git repository, bare or not, with or without ``.dvc``; for one behind an
            address, its mirror, up to date.
        remote_url: absolute path of a folder, or a URL that DVC knows.
        training_set: a ``training_set`` table; the order of rows does not matter.
        params_text: the ``params.yaml`` that was used; it goes into the version.
        rounds: each round in it and its digest.
        policy_digest: SHA-256 of the policy.
        weights: digests of the models whose proposals people saw.
        source_root: the code that made it.
        image_path: image id and extension to the stored file.
        dataset: name of folder, pointer and tags.
        inputs: digest of the lake's list of what the training set was made of, if it was kept.
        label_errors: how many of its labels are wrong, where that was measured.
        keep_together: metadata whose equal values are to be in one split; the audit looks.
        progress: told the files uploaded and those to upload.
    """
    git = as_git(registry)
    git.identity()
    with _file_errors(git), registry_lock(git.folder):
        code = find_code(git, source_root, params_text, remote_url, now=now)
        dvc_files, options = version_config(git, code.commit, remote_url)
        job = _Job(
            registry=git,
            remote=DvcRemote(remote_url, options),
            dataset=dataset,
            code=code,
            ontology_digest=ontology.digest,
            policy_digest=policy_digest,
            rounds=rounds,
            weights=weights,
            inputs=inputs,
            label_errors=tuple(label_errors),
            params_text=params_text,
            dvc_files=dvc_files,
            now=now,
        )
        last = _last(job)
        before, held = _taken_over(job, last)
        content = build_folder(
            training_set, ontology, name=dataset, last=before, keep_together=keep_together
        )
        return _publish(job, last, name_objects(content, image_path), held, progress)


@contextmanager
def _file_errors(registry: Git) -> Iterator[None]:
    """Say in one line what the registry's or the temporary folder refused."""
    try:
        yield
    except OSError as error:
        place = error.filename or registry.where
        if error.errno == errno.ENOSPC:
            raise disk_full(place) from error
        raise PublishError(
            f"{place}: {error.strerror}. Nothing was lost: see to it and run again."
        ) from error


def name_objects(content: Folder, image_path: ImagePath) -> FolderObjects:
    """Return the objects of a folder; ``image_path`` gives the stored file of id and extension."""
    files = content.kept | content.md5s
    files |= {image.path: image.md5 for image in content.images}
    texts = {content.md5s[path]: Source(data, path) for path, data in content.texts.items()}
    name, data = folder_object(files)
    texts[name] = Source(data, "the folder object")
    return FolderObjects(
        md5=name,
        files=files,
        byte_size=content.byte_size,
        facts=content.facts,
        labels_root=content.labels_root,
        audits=content.audits,
        texts=texts,
        images={image.md5: image for image in content.images},
        image_path=image_path,
    )


@dataclass(frozen=True)
class _Last:
    """The last version of the line, its commit and files; before the first there is none."""

    commit: str | None
    manifest: Manifest | None
    files: Mapping[str, str]  # path to MD5


def _last(job: _Job) -> _Last:
    commit, manifest = _head(job)
    return _Last(commit, manifest, job.remote.read_folder(manifest.folder_md5) if manifest else {})


def _taken_over(job: _Job, last: _Last) -> tuple[LastVersion | None, set[str]]:
    """Return what files can be taken over from, and the objects that need not be looked for."""
    held = set(last.files.values())
    if last.manifest is None:
        return None, held
    try:
        return last_version(job.remote, last.manifest, last.files, job.ontology_digest), held
    except PublishError:
        # The remote has lost a file. That must not stop who publishes: all is rendered, and
        # whatever is missing is put back; `verify` names what is damaged.
        return None, set()


def _publish(
    job: _Job, last: _Last, folder: FolderObjects, held: set[str], progress: Progress | None
) -> Published:
    uploaded: int | None = None
    for _ in range(_ATTEMPTS):
        if last.manifest and _same_content(job, folder, last.manifest):
            record_registry(job.remote, job.registry, last.commit or "")
            return _published(last.manifest, last.commit or "", new=False, uploaded=uploaded or 0)
        manifest = _manifest(job, folder, last)
        if uploaded is None:
            # What is there already may be nobody's, and another registry's gc about to take it.
            record_registry(job.remote, job.registry, "")
            uploaded = _upload(job, folder, held, progress)
        commit = _commit(job, manifest, last.commit)
        expected, summary = _branch_value(job, last.commit), _summary(manifest)
        if job.registry.add_version(commit, expected, manifest.tag, summary, job.now):
            record_registry(job.remote, job.registry, commit)
            return _published(manifest, commit, new=True, uploaded=uploaded)
        last = _last(job)
    raise PublishError(
        f"{job.registry.where}: other publishers moved {BRANCH} {_ATTEMPTS} times. Run again."
    )


def _head(job: _Job) -> tuple[str | None, Manifest | None]:
    """Return commit and manifest of the last version, having given it its tag if that is missing.

    A clone has the tags but not the branch; there the highest tag is the last version.
    """
    head = job.registry.resolve(BRANCH)
    if head is None:
        tags = job.registry.tags(f"{job.dataset}@v*")
        if not tags:
            return None, None
        head = tags[max(tags, key=lambda tag: version_key(tag.rpartition("@v")[2]))]
    data = job.registry.read(head, MANIFEST_PATH)
    where = f"{job.registry.where}: {head[:12]}:{MANIFEST_PATH}"
    if data is None:
        raise PublishError(
            f"{where}: missing, so {BRANCH} is not a line of versions. Rename that branch."
        )
    manifest = Manifest.from_json(data, where=where)
    _tag(job, manifest, head)
    return head, manifest


def _branch_value(job: _Job, head: str | None) -> str | None:
    return head if job.registry.resolve(BRANCH) else None


def _same_content(job: _Job, folder: FolderObjects, before: Manifest) -> bool:
    return (before.folder_md5, before.ontology_digest) == (folder.md5, job.ontology_digest)


def _next_version(job: _Job, last: _Last, *, more_images: bool) -> str:
    if last.manifest is None:
        return "1.0.0"
    major, minor, patch = version_key(last.manifest.version)
    if last.manifest.ontology_digest != job.ontology_digest:
        return f"{major + 1}.0.0"
    if more_images:
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + 1}"


def _other_places(
    before: Mapping[str, str], now: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Return the split of each image whose path is only in one version: before, and now."""
    different = before.keys() - now.keys(), now.keys() - before.keys()
    found = [map(IMAGE_PATH.fullmatch, paths) for paths in different]
    there, here = ({each["image"]: each["split"] for each in matches if each} for matches in found)
    return there, here


def _manifest(job: _Job, folder: FolderObjects, last: _Last) -> Manifest:
    facts = folder.facts
    there, here = _other_places(last.files, folder.files)
    moved = sum(there[image] != here[image] for image in there.keys() & here.keys())
    return Manifest(
        dataset=job.dataset,
        version=_next_version(job, last, more_images=bool(here.keys() - there.keys())),
        parent_version=last.manifest.version if last.manifest else "",
        parent_commit=last.commit or "",
        published_at=job.now.astimezone(UTC).isoformat(timespec="seconds"),
        code=job.code,
        folder_md5=folder.md5,
        folder_bytes=folder.byte_size,
        folder_files=len(folder.files),
        rounds=job.rounds,
        policy_digest=job.policy_digest,
        ontology_digest=job.ontology_digest,
        weights=tuple(sorted(set(job.weights))),
        images=sum(facts.images.values()),
        boxes=sum(facts.boxes.values()),
        images_by_split=facts.images,
        boxes_by_split={
            split: {one.name: one.boxes[split] for one in facts.classes} for split in facts.images
        },
        audits={**folder.audits, "images_that_changed_split": moved},
        rendering=rendering_digest(),
        inputs=job.inputs,
        label_errors=job.label_errors,
        labels_root=folder.labels_root,
    )


def _upload(job: _Job, folder: FolderObjects, held: set[str], progress: Progress | None) -> int:
    """Put what the remote lacks there; what the last version holds was read back when new."""
    missing = job.remote.missing(folder.names - held)
    files = {name: folder.source(name) for name in missing if name != folder.md5}
    job.remote.upload(files, progress=progress)
    # The folder's object says that all its files are there, so it comes after them.
    if folder.md5 in missing:
        job.remote.upload({folder.md5: folder.source(folder.md5)})
    return len(files)


def _commit(job: _Job, manifest: Manifest, head: str | None) -> str:
    tree = job.registry.write_tree(
        job.registry.tree_of(job.code.commit),
        {
            **job.dvc_files,
            "params.yaml": job.params_text.encode(),
            "datasets/.gitignore": f"/{job.dataset}\n".encode(),
            MANIFEST_PATH: manifest.to_json(),
            f"datasets/{job.dataset}.dvc": pointer_text(manifest).encode(),
        },
    )
    parents = [head, job.code.commit] if head else [job.code.commit]
    message = f"{job.dataset} v{manifest.version}: {_summary(manifest)}\n"
    return job.registry.commit_tree(tree, parents, message, job.now)


def pointer_text(manifest: Manifest) -> str:
    """Return the file by which DVC knows a version's folder."""
    return (
        f"outs:\n- md5: {manifest.folder_md5}\n  size: {manifest.folder_bytes}\n"
        f"  nfiles: {manifest.folder_files}\n  hash: md5\n  path: {manifest.dataset}\n"
    )


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
