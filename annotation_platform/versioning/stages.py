"""Stages of versions, as tags in the form of `gto`: ``training-set#production#2``.

A stage holds one version at a time, the last that was assigned to it. The exception is
``deprecated``, which any number of versions hold until they are assigned to another stage.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from annotation_platform.errors import PublishError
from annotation_platform.versioning.git import Registry, as_git
from annotation_platform.versioning.registry import unknown_version

DEPRECATED = "deprecated"
_ATTEMPTS = 20
_NAME = re.compile(r"[a-z][a-z0-9-]{0,49}")
_TAG = re.compile(r"(?P<dataset>[^@#]+)#(?P<stage>[a-z][a-z0-9-]*)#(?P<number>\d+)")
_LAYOUT = "--format=%(refname:strip=2)%00%(*objectname)%00%(taggerdate:unix)%00%(contents:subject)"


@dataclass(frozen=True)
class Stage:
    """The assignment of a version to a stage, with its time (UTC) and reason."""

    name: str
    at: datetime
    reason: str


def assign_stage(registry: Registry, tag: str, stage: str, *, reason: str, now: datetime) -> None:
    """Assign a version to a stage by a permanent tag with the reason in its message.

    Args:
        registry: the git repository; for one behind an address, its refreshed mirror.
        tag: the tag of the version, such as ``training-set@v1.2.0``.
        stage: lower-case letters, digits and hyphens, such as ``production``; or ``deprecated``.
        reason: why the version gets the stage; not empty.
        now: the time of the assignment.

    Raises:
        PublishError: the version is unknown, the name of the stage is invalid, or the reason is
            missing.
    """
    git = as_git(registry)
    commit = git.resolve(f"refs/tags/{tag}")
    if commit is None:
        raise unknown_version(git, tag)
    if not _NAME.fullmatch(stage):
        raise PublishError(
            f"{stage!r} is no stage. Give a lower-case word such as production, at most 50 letters."
        )
    text = " ".join(reason.split())
    if not text:
        raise PublishError(f"{tag}: the stage {stage} needs a reason. Give one with --reason TEXT.")
    dataset = tag.partition("@")[0]
    for _ in range(_ATTEMPTS):
        matches = map(_TAG.fullmatch, git.tags(f"{dataset}#*"))
        number = max((int(match["number"]) for match in matches if match), default=0) + 1
        if git.add_tag(f"{dataset}#{stage}#{number}", commit, text, now):
            return
    raise PublishError(
        f"{git.where}: {_ATTEMPTS} attempts met concurrent assignments of stages. Run again."
    )


def stages_of_versions(registry: Registry) -> dict[str, list[Stage]]:
    """Return the current stages by the commit of their version, in the order of assignment."""
    git = as_git(registry)
    assigned = []
    for line in git.text("for-each-ref", _LAYOUT, "refs/tags/").split("\n"):
        if not line:
            continue
        name, commit, seconds, reason = line.split("\0")
        match = _TAG.fullmatch(name)
        if match and commit:
            at = datetime.fromtimestamp(int(seconds), UTC)
            assigned.append((match["dataset"], int(match["number"]), match["stage"], commit, at,
                             reason))  # fmt: skip
    holders: dict[tuple[str, str], str] = {}
    found: dict[str, list[Stage]] = {}
    for dataset, _, stage, commit, at, reason in sorted(assigned):
        # Any new assignment ends the deprecation of a version.
        others = [each for each in found.get(commit, []) if each.name not in {stage, DEPRECATED}]
        found[commit] = [*others, Stage(stage, at, reason)]
        before = holders.get((dataset, stage))
        if stage != DEPRECATED and before not in {None, commit}:
            found[before or ""] = [each for each in found[before or ""] if each.name != stage]
        holders[dataset, stage] = commit
    return {commit: stages for commit, stages in found.items() if stages}
