"""A rotated box: ``[centre x, centre y, width, height, degrees clockwise]``."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes.area import Area
from annotation_platform.schema.shapes.numbers import Numbered, are_numbers
from annotation_platform.schema.shapes.shape import Label


class RotatedBox(Numbered, Area):
    """A box turned about its centre.

    Fused number by number; angles are modulo 180°, and sides are swapped if that needs less turn.
    """

    name: ClassVar = "rotated_box"
    noun: ClassVar = ("rotated box", "rotated boxes")

    def label(self, class_name: str, *drawn: Any) -> Label:
        """Return the box of ``centre x, centre y, width, height, degrees clockwise``."""
        x, y, width, height, degrees = drawn
        corners = rotated_corners(x, y, width, height, degrees)
        return Label.around(self.name, class_name, [x, y, width, height, degrees], corners)

    def geometry_fits(self, value: Any) -> bool:
        """Return whether parsed JSON is five numbers."""
        return are_numbers(value, count=5)

    def outlines(self, label: Label) -> list[list[float]]:
        """Return the four corners, clockwise from the top left one before the rotation."""
        corners: list[float] = rotated_corners(*label.values).ravel().tolist()
        return [corners]

    def centre(self, label: Label) -> tuple[float, float]:
        """Return the centre."""
        x, y = label.values[:2]
        return x, y

    def numbers(self, labels: Sequence[Label], *, first: int) -> FloatArray:
        """Return centre, sides and angle of each box, the angles near that of the first."""
        values = np.array([label.values for label in labels], dtype=np.float64)
        angle = values[first, 4]
        turn = (values[:, 4] - angle + 90.0) % 180.0 - 90.0
        # A quarter turn with swapped sides gives the same box.
        swap = np.abs(turn) > 45.0
        values[swap, 2:4] = values[swap, 3:1:-1]
        values[:, 4] = angle + np.where(swap, turn - 90.0 * np.sign(turn), turn)
        return values

    def from_numbers(self, numbers: FloatArray, values: FloatArray) -> Label:
        """Return the box of centre, sides and angle."""
        del values
        x, y, width, height, angle = numbers.tolist()
        return self.label("", x, y, width, height, angle % 180.0)


def rotated_corners(
    x: float, y: float, width: float, height: float, degrees: float
) -> npt.NDArray[np.float64]:
    """Return the ``(4, 2)`` corners of a rotated box, clockwise from its unrotated top left one."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    half = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * (width / 2, height / 2)
    turned = half @ np.array([[cos, sin], [-sin, cos]])
    return np.asarray(turned + np.array([x, y]), dtype=np.float64)
