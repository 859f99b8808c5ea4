"""The classes people choose from. A class keeps its id for ever; ids are never used twice."""

import colorsys
import hashlib
import json
from collections import Counter
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from annotation_platform.schema.shapes import AREAS, CLASSIFICATIONS, ShapeName

_GOLDEN_RATIO = 0.618033988749895


class _Named(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=0)
    name: str = Field(min_length=1, max_length=100)
    was: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Its name and its earlier ones."""
        return (self.name, *self.was)


class LabelClass(_Named):
    """One class: a stable id, the name people see, its earlier names, what it is drawn as."""

    shape: ShapeName = "box"
    color: str = Field(default="", pattern=r"^(#[0-9a-fA-F]{6})?$")


class RetiredClass(_Named):
    """A class that is no longer offered, and its successors.

    ``into`` names the ids of the classes that replace it. With one, its labels get that class; with
    several, its images are annotated again; with none, its labels are left out.
    """

    into: tuple[int, ...] = ()


class Ontology(BaseModel):
    """The classes in the order in which they are shown, and the guidelines for using them.

    Of the classes that are choices, ``choose`` says whether one or many can hold for an image.
    An id, and a name, belongs to one class for ever, retired ones and earlier names included: so
    every label ever made can be read under the classes of today.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[LabelClass, ...] = Field(min_length=1)
    choose: Literal["one", "many"] = "one"
    guidelines: str = "Draw a tight box around every object and choose its class."
    retired: tuple[RetiredClass, ...] = ()

    @model_validator(mode="after")
    def _ids_and_names_are_unique(self) -> Self:
        everyone = self.ever
        ids = [each.id for each in everyone]
        names = [name for each in everyone for name in each.names]
        counted: list[tuple[str, Counter[Any]]] = [("id", Counter(ids)), ("name", Counter(names))]
        for what, times in counted:
            twice = sorted(str(value) for value, number in times.items() if number > 1)
            if twice:
                raise ValueError(f"class {what} used twice: {', '.join(twice)}")
        for each in self.retired:
            unknown = set(each.into) - {label_class.id for label_class in self.classes}
            if unknown:
                raise ValueError(
                    f"retired class {each.name} goes into {min(unknown)}, which is no class"
                )
        return self

    @property
    def ever(self) -> tuple[_Named, ...]:
        """Every class there ever was."""
        return (*self.classes, *self.retired)

    @property
    def names(self) -> list[str]:
        """The class names, in the order of the ontology."""
        return [label_class.name for label_class in self.classes]

    @property
    def id_of(self) -> dict[str, int]:
        """The id of each class, by name."""
        return {label_class.name: label_class.id for label_class in self.classes}

    @property
    def shape_of(self) -> dict[str, str]:
        """What each class is drawn as, by name."""
        return {label_class.name: label_class.shape for label_class in self.classes}

    @property
    def areas(self) -> list[str]:
        """The names of the classes that are drawn as areas, in the order of the ontology."""
        return [each.name for each in self.classes if each.shape in AREAS]

    @property
    def choices(self) -> list[str]:
        """The names of the classes of whole images, in the same order."""
        return [each.name for each in self.classes if each.shape in CLASSIFICATIONS]

    @property
    def successors(self) -> dict[str, tuple[str, ...]]:
        """For every name a class ever had, the names of the classes that it means today.

        One name: the label gets that class. None: the label is left out. Several: an annotator
        has to choose again.
        """
        names = {label_class.id: label_class.name for label_class in self.classes}
        today: dict[str, tuple[str, ...]] = {}
        for each in self.classes:
            today |= dict.fromkeys(each.names, (each.name,))
        for gone in self.retired:
            today |= dict.fromkeys(gone.names, tuple(names[class_id] for class_id in gone.into))
        return today

    @property
    def digest(self) -> str:
        """SHA-256 of ids and names: what must not change without a new major version."""
        pairs = sorted((label_class.id, label_class.name) for label_class in self.classes)
        return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()

    @property
    def guideline(self) -> str:
        """SHA-256 of all that people see: every label carries that of the day it was made."""
        shown = self.model_dump(mode="json", exclude={"retired"})
        for label_class in shown["classes"]:
            # Neither changes what is asked of people.
            del label_class["color"], label_class["was"]
        return hashlib.sha256(json.dumps(shown, sort_keys=True).encode()).hexdigest()

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
