"""The classes people choose from. A class keeps its id for ever; ids are never used twice."""

import colorsys
import hashlib
import json
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_GOLDEN_RATIO = 0.618033988749895


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


def class_colors(ontology: Ontology) -> dict[str, str]:
    """Return a colour (``#rrggbb``) for each class name, no two of them equal.

    A colour of the ontology is used as it is. The others are spread around the colour circle by
    class id, so a class keeps its colour when others are added. Two classes to which the
    ontology gives the same colour keep it.
    """
    colors = {c.name: c.color.lower() for c in ontology.classes if c.color}
    used = set(colors.values())
    for label_class in ontology.classes:
        if label_class.color:
            continue
        step = label_class.id
        while (color := _spread_color(step)) in used:
            step += len(ontology.classes)
        colors[label_class.name] = color
        used.add(color)
    return colors


def _spread_color(step: int) -> str:
    # Golden-ratio steps never come back to the same hue; two brightnesses tell neighbours apart.
    hue = (0.58 + step * _GOLDEN_RATIO) % 1.0
    lightness = 0.45 if step % 2 == 0 else 0.6
    rgb = colorsys.hls_to_rgb(hue, lightness, 0.8)
    return "#" + "".join(f"{round(channel * 255):02x}" for channel in rgb)
