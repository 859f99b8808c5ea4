"""What ``datasets/manifest.json`` says of a version: where it came from and what is in it."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from annotation_platform.errors import PublishError

BRANCH = "refs/heads/datasets"
"""The line of versions."""

MANIFEST_PATH = "datasets/manifest.json"


@dataclass(frozen=True)
class CodeState:
    """The code that made a version.

    ``commit`` is in the registry. ``source_commit`` is the commit the source tree itself was at,
    empty if it was no git checkout. ``dirty_paths`` are the files that differed from
    ``source_commit``; a snapshot holds them as they were, a plain code commit does not.
    """

    commit: str
    source_commit: str
    snapshot: bool
    dirty: bool
    dirty_paths: tuple[str, ...]


@dataclass(frozen=True)
class LabelError:
    """The estimated share of wrong labels, 0 to 1, and the interval it lies in at ``level``.

    ``origin`` is whose labels it speaks of, ``class_name`` a class or empty for all together.
    ``rate`` is what was found in the ``audited`` labels that were looked at again, None where none
    was.
    """

    origin: str
    class_name: str
    labels: int
    audited: int
    rate: float | None
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class ErasedImages:
    """How many images were taken out of a version after it was published, why and when (UTC)."""

    images: int
    reason: str
    at: str


@dataclass(frozen=True)
class Manifest:
    """One version. Counts are images and boxes; digests are SHA-256, ``folder_md5`` is DVC's."""

    dataset: str
    version: str
    parent_version: str  # empty for the first
    parent_commit: str
    published_at: str  # UTC, ISO 8601
    code: CodeState
    folder_md5: str
    folder_bytes: int
    folder_files: int
    rounds: dict[str, str]  # round to digest
    policy_digest: str
    ontology_digest: str
    weights: tuple[str, ...]  # models whose proposals people saw, or that were accepted
    images: int
    boxes: int
    images_by_split: dict[str, int]
    boxes_by_split: dict[str, dict[str, int]]  # split to class to boxes
    audits: dict[str, int]  # what was counted, 0 where all is well
    rendering: str = ""  # the code and packages that rendered its files
    inputs: str = ""  # SHA-256 of the lake's list of what it was made of; empty: not kept
    label_errors: tuple[LabelError, ...] = ()  # empty: not measured
    labels_root: str = ""  # SHA-256 over all labels, see label_tree.py; empty: older than that
    erased: tuple[ErasedImages, ...] = ()  # what it held once and holds no more

    @property
    def tag(self) -> str:
        """The git tag of the version: ``training-set@v1.0.0``."""
        return version_tag(self.dataset, self.version)

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON with sorted keys."""
        content = asdict(self)
        if not self.erased:
            # Versions of which nothing was erased stay readable for earlier code.
            del content["erased"]
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        return text.encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> "Manifest":
        """Return the manifest in ``data``; anything else is a PublishError naming ``where``."""
        try:
            values: Any = json.loads(data)
        except ValueError as error:
            raise _unreadable(where, "it is not JSON") from error
        names = {field.name for field in fields(cls)}
        # What came later has a default: versions are never written again.
        needed = {field.name for field in fields(cls) if field.default is MISSING}
        if not isinstance(values, dict) or not needed <= set(values) <= names:
            raise _unreadable(where, "its fields are not those of a manifest")
        code = values["code"]
        if not isinstance(code, dict) or set(code) != {field.name for field in fields(CodeState)}:
            raise _unreadable(where, "`code` is not as expected")
        code = {**code, "dirty_paths": tuple(code["dirty_paths"])}
        try:
            bars = tuple(LabelError(**bar) for bar in values.get("label_errors", ()))
            erased = tuple(ErasedImages(**each) for each in values.get("erased", ()))
        except TypeError as error:
            problem = "`label_errors` or `erased` is not as expected"
            raise _unreadable(where, problem) from error
        read = {
            "code": CodeState(**code),
            "weights": tuple(values["weights"]),
            "label_errors": bars,
            "erased": erased,
        }
        return cls(**{**values, **read})


def version_tag(dataset: str, version: str) -> str:
    """Return the git tag of a version."""
    return f"{dataset}@v{version}"


def typed_tag(version: str, *, dataset: str = "training-set") -> str:
    """Return the tag of a version as people type it: the tag itself, ``1.2.0`` or ``v1.2.0``."""
    return version if "@" in version else version_tag(dataset, version.removeprefix("v"))


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers of ``MAJOR.MINOR.PATCH``; anything else sorts before them."""
    parts = version.split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def _unreadable(where: str, reason: str) -> PublishError:
    return PublishError(
        f"{where}: the manifest cannot be read: {reason}. "
        "Was the version published by another program?"
    )
