"""Whether the remote still holds what versions say, byte for byte, and mending what it does not.

DVC takes an object for whole if one of its name is there: what was truncated or changed since, it
delivers. So every object that a version names is read and hashed here.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
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

Mend = Callable[[str, str], Source | None]
"""Given path and MD5 of a file of a version, where its content can be had; None if nowhere."""


@dataclass(frozen=True)
class Problem:
    """An object that a version needs and the remote does not hold whole."""

    kind: Literal["missing", "damaged"]
    name: str  # its MD5
    path: str  # of the file in the version, the first of several
    tags: tuple[str, ...]  # of the versions that need it, oldest first


@dataclass(frozen=True)
class Verification:
    """What was found.

    ``problems`` are those that are left, ``repaired`` those that were mended. ``orphans`` are
    objects of the remote that no version names: left by a publisher that was killed, or of one
    that is at work at this moment. They do no harm, and ``gc`` takes them away.
    """

    tags: tuple[str, ...]
    objects: int
    byte_size: int
    problems: tuple[Problem, ...]
    repaired: tuple[Problem, ...] = ()
    orphans: tuple[str, ...] = ()


@dataclass
class _Named:
    """An object that versions name: where it lies in them, and which they are."""

    path: str
    tags: list[str] = field(default_factory=list)


def verify_versions(
    registry: Registry,
    remote: DvcRemote,
    tags: Iterable[str] | None = None,
    *,
    mend: Mend | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Read and hash every object of some versions, or of all, and mend what is not whole.

    With all versions the orphans are named too. An object is mended by what ``mend`` gives for
    it, or, where its version's tables are whole, by rendering it again from them; only content of
    the very MD5 is ever put there.

    Args:
        registry: where the versions are.
        remote: where their files are.
        tags: the versions; None is all of them.
        mend: where lost files can be had, the lake for instance; None mends nothing.
        progress: told the objects read and those to read.

    Raises:
        PublishError: a version is not known, or the remote cannot be used.
    """
    infos = _wanted(registry, tags)
    named, problems = _named_objects(remote, infos)
    bad, byte_size = _hash_all(remote, named, progress)
    problems += bad
    repaired: list[Problem] = []
    if mend is not None and problems:
        problems, repaired = _mended(registry, remote, infos, problems, mend)
        if any(each.path == _FOLDER_OBJECT for each in repaired):
            # Only now is it known what else those versions hold.
            again = verify_versions(registry, remote, tags, mend=mend, progress=progress)
            return Verification(
                again.tags,
                again.objects,
                again.byte_size,
                again.problems,
                (*repaired, *again.repaired),
                again.orphans,
            )
    orphans: set[str] = set()
    # What an unreadable list of files names is not known, and no orphan.
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
    """Return what is wrong with the content of versions: by tag, name of the audit and count.

    All that is no image is read back and compared: COCO, YOLO and tables must say the same, and
    no group, content or value that policy keeps together may be in two splits. A version of which
    all is well is there without any count.

    Raises:
        PublishError: a version is not known, or a file of it is not whole.
    """
    return {info.tag: _audit(as_git(registry), remote, info) for info in _wanted(registry, tags)}


def _audit(git: Git, remote: DvcRemote, info: VersionInfo) -> dict[str, int]:
    files = remote.read_folder(info.manifest.folder_md5)
    paths = [path for path in files if not path.startswith("images/")]
    with ThreadPoolExecutor(max_workers=16) as pool:
        contents = pool.map(
            lambda path: remote.read_whole(files[path], f"{path} of {info.tag}"), paths
        )
        texts = dict(zip(paths, contents, strict=True))
    params = git.read(info.tag, "params.yaml") or b""
    policy = parse_policy(params.decode(), where=f"{info.tag}: params.yaml").splits
    counts = audit_files(files, texts, keep_together=policy.keep_together)
    return {name: count for name, count in counts.items() if count}


def names_of_untagged(
    registry: Registry, remote: DvcRemote, infos: Iterable[VersionInfo]
) -> set[str]:
    """Return the objects of the last version if it is committed and has no tag yet."""
    git = as_git(registry)
    head = git.resolve(BRANCH)
    data = git.read(head, MANIFEST_PATH) if head else None
    if data is None or head in {info.commit for info in infos}:
        return set()
    manifest = Manifest.from_json(data, where=f"{git.where}: {BRANCH}")
    return {manifest.folder_md5, *remote.read_folder(manifest.folder_md5).values()}


def render_again(registry: Registry, remote: DvcRemote, info: VersionInfo) -> dict[str, Source]:
    """Return what can be rendered of a version from its own tables, by MD5; nothing if they fail.

    This code may render otherwise than that which published: who asks compares digests.
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
        # A damaged table is no table.
        return {}
    return {files[path]: Source(data, path) for path, data in folder.texts.items() if path in files}


def _wanted(registry: Registry, tags: Iterable[str] | None) -> list[VersionInfo]:
    infos = list_versions(registry)
    if tags is None:
        return infos
    wanted = set(tags)
    unknown = sorted(wanted - {info.tag for info in infos})
    if unknown:
        raise unknown_version(as_git(registry), unknown[0])
    return [info for info in infos if info.tag in wanted]


def _named_objects(
    remote: DvcRemote, infos: Iterable[VersionInfo]
) -> tuple[dict[str, _Named], list[Problem]]:
    """Return what the versions name, and the lists of files that cannot be read."""
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


def _mended(
    registry: Registry,
    remote: DvcRemote,
    infos: list[VersionInfo],
    problems: list[Problem],
    mend: Mend,
) -> tuple[list[Problem], list[Problem]]:
    """Return what is left, and what was put back."""
    rendered: dict[str, dict[str, Source]] = {}
    by_tag = {info.tag: info for info in infos}
    left, repaired = [], []
    for problem in problems:
        source = mend(problem.path, problem.name)
        if source is None and problem.path != _FOLDER_OBJECT:
            tag = problem.tags[0]
            if tag not in rendered:
                rendered[tag] = render_again(registry, remote, by_tag[tag])
            source = rendered[tag].get(problem.name)
        if source is not None and remote.replace(problem.name, source):
            repaired.append(problem)
        else:
            left.append(problem)
    return left, repaired
