"""What a version is used for, in the tags that `gto` reads: ``training-set#production#2``.

A stage names one version at a time, the last that was put into it; but for ``deprecated``, which a
version keeps until another stage takes it up again.
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
    """A stage that a version is in, since when, and why."""

    name: str
    at: datetime
    reason: str


def assign_stage(registry: Registry, tag: str, stage: str, *, reason: str, now: datetime) -> None:
    """Put a version into a stage; the tag stays for ever, with the reason in its message.

    Args:
        registry: the git repository; for one behind an address, its mirror, up to date.
        tag: the version's, such as ``training-set@v1.2.0``.
        stage: a word in small letters, such as ``production``; or ``deprecated``.
        reason: for whoever reads it later.
        now: the time.

    Raises:
        PublishError: the version is not known, the stage's name is none, or a reason is missing.
    """
    git = as_git(registry)
    commit = git.resolve(f"refs/tags/{tag}")
    if commit is None:
        raise unknown_version(git, tag)
    if not _NAME.fullmatch(stage):
        raise PublishError(f"{stage!r} is no stage. Give a word in small letters: production.")
    text = " ".join(reason.split())
    if not text:
        raise PublishError(f"{tag}: say why it is {stage}: --reason TEXT")
    dataset = tag.partition("@")[0]
    for _ in range(_ATTEMPTS):
        matches = map(_TAG.fullmatch, git.tags(f"{dataset}#*"))
        number = max((int(match["number"]) for match in matches if match), default=0) + 1
        if git.add_tag(f"{dataset}#{stage}#{number}", commit, text, now):
            return
    raise PublishError(f"{git.where}: others set stages {_ATTEMPTS} times. Run again.")


def stages_of_versions(registry: Registry) -> dict[str, list[Stage]]:
    """Return the stages of every version's commit, by commit, in the order of assignment."""
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
        # What is put to use again is deprecated no more.
        kept = [each for each in found.get(commit, []) if each.name not in {stage, DEPRECATED}]
        found[commit] = [*kept, Stage(stage, at, reason)]
        before = holders.get((dataset, stage))
        if stage != DEPRECATED and before not in {None, commit}:
            found[before or ""] = [each for each in found[before or ""] if each.name != stage]
        holders[dataset, stage] = commit
    return {commit: stages for commit, stages in found.items() if stages}
