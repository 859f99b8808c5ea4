"""A class of the whole image: no geometry, no box. Its stored name is ``choice``."""

from typing import Any, ClassVar

from annotation_platform.schema.shapes.shape import Kind, Label, Shape


class Classification(Shape):
    """A class of the whole image."""

    name: ClassVar = "choice"
    kind: ClassVar = Kind.CLASSIFICATION
    noun: ClassVar = ("choice", "choices")

    def label(self, class_name: str, *drawn: Any) -> Label:
        """Return the label of a class; nothing is drawn.

        Raises:
            ValueError: something is drawn.
        """
        if drawn:
            raise ValueError("a class of the whole image has no location")
        return Label(self.name, class_name)
