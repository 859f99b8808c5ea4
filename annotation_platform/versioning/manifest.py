"""The manifest of a version, ``datasets/manifest.json``: its inputs and its counts."""

import json
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from annotation_platform.errors import PublishError
from annotation_platform.schema.version_names import version_tag

BRANCH = "refs/heads/datasets"
"""The branch of versions."""

MANIFEST_PATH = "datasets/manifest.json"


@dataclass(frozen=True)
class CodeState:
    """The code that produced a version.

    ``commit`` is in the registry. ``source_commit`` is the HEAD of the source tree, empty if it was
    not a git checkout. ``dirty_paths`` are the files that differed from ``source_commit``; a
    snapshot contains them as they were, a plain code commit does not.
    """

    commit: str
    source_commit: str
    snapshot: bool
    dirty: bool
    dirty_paths: tuple[str, ...]


@dataclass(frozen=True)
class LabelError:
    """The estimated share of wrong labels, 0 to 1, with its confidence interval at ``level``.

    The estimate is for the labels of one ``origin`` and of the class ``class_name``, or of all
    classes if that is empty. ``rate`` was measured on the ``audited`` labels that were reviewed
    again; it is None if there were none.
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
    """Images erased from a version after it was published: number, reason and time (UTC)."""

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
    weights: tuple[str, ...]  # models whose predictions were pre-annotations or auto-accepted
    images: int
    boxes: int
    images_by_split: dict[str, int]
    boxes_by_split: dict[str, dict[str, int]]  # split to class to boxes
    audits: dict[str, int]  # defects by name, see audit.py; all 0 for a sound version
    rendering: str = ""  # digest of the code and packages that rendered its files
    inputs: str = ""  # SHA-256 of the lake's list of its inputs; empty: not stored
    label_errors: tuple[LabelError, ...] = ()  # empty: not measured
    labels_root: str = ""  # SHA-256 over all labels, see label_tree.py; empty in old versions
    erased: tuple[ErasedImages, ...] = ()  # erasures since it was first published

    @property
    def tag(self) -> str:
        """The git tag of the version: ``training-set@v1.0.0``."""
        return version_tag(self.dataset, self.version)

    def to_json(self) -> bytes:
        """Return the manifest as indented JSON with sorted keys."""
        content = asdict(self)
        if not self.erased:
            # Without the field, earlier code can read the manifest.
            del content["erased"]
        text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False)
        return text.encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> "Manifest":
        """Return the manifest in ``data``; if it is none, raise a PublishError with ``where``."""
        try:
            values: Any = json.loads(data)
        except ValueError as error:
            raise _unreadable(where, "it is not JSON") from error
        names = {field.name for field in fields(cls)}
        # Fields of later releases have a default, because published manifests are not rewritten.
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


def _unreadable(where: str, reason: str) -> PublishError:
    return PublishError(
        f"{where}: the manifest cannot be read: {reason}. "
        "Check whether another program published the version."
    )
