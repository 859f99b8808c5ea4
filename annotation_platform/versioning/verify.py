"""Verify that the remote holds every object of versions byte for byte, and repair the others.

DVC treats an object as intact if it exists, and delivers truncated or changed content. Therefore
every object that a version names is read and hashed here.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.policy import parse_policy
from annotation_platform.versioning.audit import audit_files
from annotation_platform.versioning.contents import version_labels
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.git import Git, Registry, as_git
from annotation_platform.versioning.manifest import BRANCH, MANIFEST_PATH, Manifest
from annotation_platform.versioning.registry import VersionInfo, list_versions, unknown_version
from annotation_platform.versioning.remote import DvcRemote, Progress
from annotation_platform.versioning.uploading import Source

_FOLDER_OBJECT = "(the list of its files)"

FindSource = Callable[[str, str], Source | None]
"""Returns the source of a version's file, given its path and MD5; None if there is none."""


@dataclass(frozen=True)
class Problem:
    """An object of a version that is missing or damaged in the remote."""

    kind: Literal["missing", "damaged"]
    name: str  # its MD5
    path: str  # of the file in the version; the first one if there are several
    tags: tuple[str, ...]  # of the versions that need it, oldest first


@dataclass(frozen=True)
class Verification:
    """The result of a verification.

    ``problems`` are the remaining ones, ``repaired`` the ones that were repaired. ``orphans`` are
    objects of the remote that no version names: a killed publisher left them, or a running one is
    uploading them. They are harmless, and ``gc`` removes them.
    """

    tags: tuple[str, ...]
    objects: int  # number of objects that were read
    byte_size: int  # their total size
    problems: tuple[Problem, ...]
    repaired: tuple[Problem, ...] = ()
    orphans: tuple[str, ...] = ()


@dataclass
class _Named:
    """An object that versions name: its first path in them, and the tags of the versions."""

    path: str
    tags: list[str] = field(default_factory=list)


def verify_versions(
    registry: Registry,
    remote: DvcRemote,
    tags: Iterable[str] | None = None,
    *,
    find_source: FindSource | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read and hash every object of some versions, or of all, and repair missing or damaged ones.

    Orphans are listed only if all versions are verified. An object is repaired from the source that
    ``find_source`` returns, or, if the Parquet files of its version are intact, by rendering it
    again; only content with the right MD5 is ever written.

    Args:
        registry: the registry of the versions.
        remote: the remote with their files.
        tags: the versions; None: all.
        find_source: returns a source of lost files, such as the lake; None: repair nothing.
        progress: called with the numbers of objects read and to read.

    Raises:
        PublishError: a version is unknown, or the remote cannot be used.
    """
    infos = _select_versions(registry, tags)
    named, problems = _named_objects(remote, infos)
    bad, byte_size = _hash_all(remote, named, progress)
    problems += bad
    repaired: list[Problem] = []
    if find_source is not None and problems:
        problems, repaired = _repair(registry, remote, infos, problems, find_source)
        if any(each.path == _FOLDER_OBJECT for each in repaired):
            # The other objects of these versions are known only now.
            again = verify_versions(
                registry, remote, tags, find_source=find_source, progress=progress
            )
            return replace(again, repaired=(*repaired, *again.repaired))
    orphans: set[str] = set()
    # An unreadable folder object may name objects that would otherwise seem to be orphans.
    unknown = any(each.path == _FOLDER_OBJECT for each in problems)
    if tags is None and not unknown:
        orphans = set(remote.all()) - set(named) - names_of_untagged(registry, remote, infos)
    return Verification(
        tuple(info.tag for info in infos),
        len(named),
        byte_size,
        tuple(problems),
        tuple(repaired),
        tuple(sorted(orphans)),
    )


def audit_versions(
    registry: Registry, remote: DvcRemote, tags: Iterable[str] | None = None
) -> dict[str, dict[str, int]]:
    """Return the defects in the content of versions: tag to name to count, see ``audit.py``.

    All files except images are read and compared: COCO, YOLO and tables must agree, and no
    duplicate group, content or value that the policy keeps together may be in two splits. A sound
    version has an empty entry.

    Raises:
        PublishError: a version is unknown, or a file of it is missing or damaged.
    """
    infos = _select_versions(registry, tags)
    return {info.tag: _audit(as_git(registry), remote, info) for info in infos}


def _audit(git: Git, remote: DvcRemote, info: VersionInfo) -> dict[str, int]:
    files = remote.read_folder(info.manifest.folder_md5)
    paths = [path for path in files if not path.startswith("images/")]
    with ThreadPoolExecutor(max_workers=16) as pool:
        contents = pool.map(
            lambda path: remote.read_intact(files[path], f"{path} of {info.tag}"), paths
        )
        texts = dict(zip(paths, contents, strict=True))
    params = git.read(info.tag, "params.yaml") or b""
    policy = parse_policy(params.decode(), where=f"{info.tag}: params.yaml").splits
    counts = audit_files(files, texts, keep_together=policy.keep_together)
    return {name: count for name, count in counts.items() if count}


def names_of_untagged(
    registry: Registry, remote: DvcRemote, infos: Iterable[VersionInfo]
) -> set[str]:
    """Return the objects of the last version if it is committed but not tagged yet."""
    git = as_git(registry)
    head = git.resolve(BRANCH)
    data = git.read(head, MANIFEST_PATH) if head else None
    if data is None or head in {info.commit for info in infos}:
        return set()
    manifest = Manifest.from_json(data, where=f"{git.where}: {BRANCH}")
    return {manifest.folder_md5, *remote.read_folder(manifest.folder_md5).values()}


def _render_again(registry: Registry, remote: DvcRemote, info: VersionInfo) -> dict[str, Source]:
    """Return the text files of a version, rendered again from its Parquet files, by MD5.

    It is empty if a Parquet file is damaged. Today's code may render other content than the code
    that published the version, so the caller compares digests.
    """
    files = remote.read_folder(info.manifest.folder_md5)
    params = as_git(registry).read(info.tag, "params.yaml")
    if params is None:
        return {}
    try:
        frame = version_labels(remote, files, where=info.tag)
        ontology = parse_policy(params.decode(), where=f"{info.tag}: params.yaml").ontology
        folder = build_folder(frame, ontology, name=info.manifest.dataset)
    except AnnotationPlatformError:
        # Without intact Parquet files, nothing can be rendered.
        return {}
    return {files[path]: Source(data, path) for path, data in folder.texts.items() if path in files}


def _select_versions(registry: Registry, tags: Iterable[str] | None) -> list[VersionInfo]:
    infos = list_versions(registry)
    if tags is None:
        return infos
    selected = set(tags)
    unknown = sorted(selected - {info.tag for info in infos})
    if unknown:
        raise unknown_version(as_git(registry), unknown[0])
    return [info for info in infos if info.tag in selected]


def _named_objects(
    remote: DvcRemote, infos: Iterable[VersionInfo]
) -> tuple[dict[str, _Named], list[Problem]]:
    """Return the objects that the versions name, and the problems of their folder objects."""
    named: dict[str, _Named] = {}
    problems: dict[str, Problem] = {}
    for info in infos:
        name = info.manifest.folder_md5
        found = remote.check(name)
        if found.problem:
            tags = (*(problems[name].tags if name in problems else ()), info.tag)
            problems[name] = Problem(found.problem, name, _FOLDER_OBJECT, tags)
            continue
        for path, md5 in {_FOLDER_OBJECT: name, **remote.read_folder(name)}.items():
            each = named.setdefault(md5, _Named(path))
            if info.tag not in each.tags[-1:]:
                each.tags.append(info.tag)
    return named, list(problems.values())


def _hash_all(
    remote: DvcRemote, named: Mapping[str, _Named], progress: Progress | None
) -> tuple[list[Problem], int]:
    problems, byte_size = [], 0
    with ThreadPoolExecutor(max_workers=16) as pool:
        checked = zip(sorted(named), pool.map(remote.check, sorted(named)), strict=True)
        for number, (name, found) in enumerate(checked, start=1):
            byte_size += found.byte_size
            if found.problem:
                each = named[name]
                problems.append(Problem(found.problem, name, each.path, tuple(each.tags)))
            if progress is not None:
                progress(number, len(named))
    return problems, byte_size


def _repair(
    registry: Registry,
    remote: DvcRemote,
    infos: list[VersionInfo],
    problems: list[Problem],
    find_source: FindSource,
) -> tuple[list[Problem], list[Problem]]:
    """Return the remaining and the repaired problems."""
    rendered: dict[str, dict[str, Source]] = {}
    by_tag = {info.tag: info for info in infos}
    remaining, repaired = [], []
    for problem in problems:
        source = find_source(problem.path, problem.name)
        if source is None and problem.path != _FOLDER_OBJECT:
            tag = problem.tags[0]
            if tag not in rendered:
                rendered[tag] = _render_again(registry, remote, by_tag[tag])
            source = rendered[tag].get(problem.name)
        if source is not None and remote.replace(problem.name, source):
            repaired.append(problem)
        else:
            remaining.append(problem)
    return remaining, repaired
