"""The policy: the checked content of ``params.yaml``, which is versioned with the data.

Locations and secrets are in ``settings.py``.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError, model_validator

from annotation_platform.errors import SettingsError
from annotation_platform.policy.sections import (
    AutoAcceptPolicy,
    CleaningPolicy,
    ConsensusPolicy,
    DriftPolicy,
    ErasurePolicy,
    LabelingPolicy,
    LabelIssuePolicy,
    MaskingPolicy,
    MetadataField,
    PolicySection,
    PredictionPolicy,
    ProfilePolicy,
    ReleasePolicy,
    ReviewPolicy,
    RoundPolicy,
    SelectionPolicy,
    SplitPolicy,
    TrainingPolicy,
)
from annotation_platform.schema.ontology import Ontology

__all__ = [
    "AutoAcceptPolicy",
    "CleaningPolicy",
    "ConsensusPolicy",
    "DriftPolicy",
    "ErasurePolicy",
    "LabelIssuePolicy",
    "LabelingPolicy",
    "MaskingPolicy",
    "MetadataField",
    "Policy",
    "PredictionPolicy",
    "ProfilePolicy",
    "ReleasePolicy",
    "ReviewPolicy",
    "RoundPolicy",
    "SelectionPolicy",
    "SplitPolicy",
    "TrainingPolicy",
    "parse_policy",
    "read_policy",
]


class Policy(PolicySection):
    """The whole policy."""

    ontology: Ontology
    seed: int = 0
    rounds: RoundPolicy = RoundPolicy()
    cleaning: CleaningPolicy = CleaningPolicy()
    selection: SelectionPolicy = SelectionPolicy()
    labeling: LabelingPolicy = LabelingPolicy()
    masking: MaskingPolicy = MaskingPolicy()
    review: ReviewPolicy = ReviewPolicy()
    drift: DriftPolicy = DriftPolicy()
    consensus: ConsensusPolicy = ConsensusPolicy()
    auto_accept: AutoAcceptPolicy = AutoAcceptPolicy()
    label_issues: LabelIssuePolicy = LabelIssuePolicy()
    release: ReleasePolicy = ReleasePolicy()
    splits: SplitPolicy = SplitPolicy()
    training: TrainingPolicy = TrainingPolicy()
    prediction: PredictionPolicy = PredictionPolicy()
    erasure: ErasurePolicy = ErasurePolicy()

    @model_validator(mode="after")
    def _classes_are_known(self) -> "Policy":
        known = set(self.ontology.names)
        for field in ("annotations_by_class", "expertise_by_class"):
            unknown = sorted(set(getattr(self.labeling, field)) - known)
            if unknown:
                raise ValueError(f"labeling.{field}: {unknown[0]} is no class of the ontology")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the policy's content; comments and the order of keys do not matter."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def to_yaml(self) -> str:
        """Return the policy as the text of a ``params.yaml`` that reads back equal."""
        data = self.model_dump(mode="json")
        return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def read_policy(path: Path) -> Policy:
    """Return the policy in ``path``; a missing or wrong one is a SettingsError naming the field."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path}: the policy cannot be read ({error.strerror}). "
            "Set ANNOTATION_PARAMS to a params.yaml."
        ) from error
    return parse_policy(text, where=str(path))


# Every run and every tick of a sensor reads the policy, which seldom changes.
@lru_cache(maxsize=32)
def parse_policy(text: str, *, where: str) -> Policy:
    """Return the policy written in ``text``; ``where`` names its source in errors."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SettingsError(f"{where}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise SettingsError(f"{where}: a policy is a mapping with at least `ontology:`.")
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "policy"
        remedy = "Correct it and try again."
        if first["type"] == "extra_forbidden":
            remedy = f"There are: {_known_keys(first['loc'])}."
        raise SettingsError(f"{where}: {field}: {first['msg']}. {remedy}") from error


def _known_keys(place: Sequence[int | str]) -> str:
    """Return the keys that exist where an unknown one was given."""
    model: Any = Policy
    for part in place[:-1]:
        model = model.model_fields[part].annotation if isinstance(part, str) else get_args(model)[0]
    return ", ".join(model.model_fields)
