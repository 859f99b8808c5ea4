"""The classes people choose from. A class keeps its id for ever; ids are never used twice."""

import hashlib
import json
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class LabelClass(BaseModel):
    """One class: a stable id, the name people see, and the key that chooses it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=0)
    name: str = Field(min_length=1, max_length=100)
    color: str = Field(default="", pattern=r"^(#[0-9a-fA-F]{6})?$")


class Ontology(BaseModel):
    """The classes in the order in which they are shown, and the guidelines for using them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[LabelClass, ...] = Field(min_length=1)
    guidelines: str = "Draw a tight box around every object and choose its class."

    @model_validator(mode="after")
    def _ids_and_names_are_unique(self) -> Self:
        for field in ("id", "name"):
            values = [getattr(label_class, field) for label_class in self.classes]
            twice = sorted({str(value) for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"class {field} used twice: {', '.join(twice)}")
        return self

    @property
    def names(self) -> list[str]:
        """The class names, in the order of the ontology."""
        return [label_class.name for label_class in self.classes]

    @property
    def id_of(self) -> dict[str, int]:
        """The id of each class, by name."""
        return {label_class.name: label_class.id for label_class in self.classes}

    @property
    def digest(self) -> str:
        """SHA-256 of ids and names: what must not change without a new major version."""
        pairs = sorted((label_class.id, label_class.name) for label_class in self.classes)
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    @classmethod
    def from_names(cls, names: list[str]) -> Self:
        """Return an ontology of these names, numbered from zero in the order given."""
        return cls(classes=tuple(LabelClass(id=n, name=name) for n, name in enumerate(names)))
