"""A toy shape as a module of ``schema/shapes`` defines one: ``[centre x, centre y, radius]``."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from annotation_platform.formats.label_studio.region_codecs import (
    RegionCanvas,
    RegionCodec,
    Value,
)
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import Area, Label, Numbered, are_numbers

CORNERS = 360
"""Corners of its outline."""


class Circle(Numbered, Area):
    name: ClassVar = "circle"
    noun: ClassVar = ("circle", "circles")

    def label(self, class_name: str, *drawn: Any) -> Label:
        x, y, radius = drawn
        around = np.array([[x - radius, y - radius], [x + radius, y + radius]])
        return Label.around(self.name, class_name, [x, y, radius], around)

    def geometry_fits(self, value: Any) -> bool:
        return are_numbers(value, count=3)

    def outlines(self, label: Label) -> list[list[float]]:
        x, y, radius = label.values
        turns = np.arange(CORNERS) * 2 * np.pi / CORNERS
        points = np.stack([x + radius * np.cos(turns), y + radius * np.sin(turns)], axis=1)
        outline: list[float] = points.ravel().tolist()
        return [outline]

    def numbers(self, labels: Sequence[Label], *, first: int) -> FloatArray:
        del first
        return np.array([label.values for label in labels], dtype=np.float64)

    def from_numbers(self, numbers: FloatArray, values: FloatArray) -> Label:
        del values
        return self.label("", *numbers.tolist())


def read_circle(name: str, value: Value, image: RegionCanvas) -> tuple[Label, list[str]]:
    x, y = value["x"] * image.width / 100, value["y"] * image.height / 100
    return Circle().label(name, x, y, value["radiusX"] * image.width / 100), []


def write_circle(label: Label, width: int, height: int) -> list[Value]:
    x, y, radius = (float(number) for number in label.values)
    sides = {"radiusX": radius * 100 / width, "radiusY": radius * 100 / height}
    return [{"x": x * 100 / width, "y": y * 100 / height, **sides, "rotation": 0}]


CODEC = RegionCodec(
    "circle",
    control="circle",
    phrase="a circle",
    tag="EllipseLabels",
    heading="Circle",
    returned="a circle: type ellipselabels; value x, y, radiusX, radiusY",
    read=read_circle,
    write=write_circle,
)
"""How Label Studio stores it."""
