"""Two statements about an image, without class, geometry and box: "unsure" and "nothing here"."""

from collections.abc import Sequence
from typing import Any, ClassVar

from annotation_platform.schema.shapes.shape import Kind, Label, Shape


class _Statement(Shape):
    kind: ClassVar = Kind.STATEMENT

    def label(self, class_name: str, *drawn: Any) -> Label:
        """Return the statement, which takes no class and nothing drawn.

        Raises:
            ValueError: there is a class, or something is drawn.
        """
        if class_name or drawn:
            raise ValueError(f"the statement {self.name!r} has no class and no location")
        return Label(self.name)

    def problem(self, geometry: str, box: Sequence[float]) -> str:
        """Return that a dataset does not hold statements as labels."""
        del geometry, box
        return "is not a shape of a label"


class Unsure(_Statement):
    """The annotator could not decide."""

    name: ClassVar = "unsure"
    noun: ClassVar = ("unsure", "unsure")


class Nothing(_Statement):
    """There is nothing to label in the image."""

    name: ClassVar = "none"
    noun: ClassVar = ("empty image", "empty images")
