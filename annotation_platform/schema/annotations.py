"""The content of an annotation, whatever its back end: labels, problems, and a decision.

A back end stores annotations in a form of its own. The ledger stores that form unchanged, as a
``Payload`` with the name of the codec that reads it (``labeling/backends/registry.py`` lists them).
All other code works with the ``DecodedAnnotation`` that the codec returns, so a better codec reads
old annotations again.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, SHAPES, UNSURE, Label

FIRST_CODEC = "label-studio/1"
"""The codec of payloads that were stored before codecs had names (release 0.1.0)."""


@dataclass(frozen=True)
class Payload:
    """JSON content of one annotation, unchanged from the back end, and its codec's name."""

    codec: str
    content: Any


@dataclass(frozen=True)
class Canvas:
    """The stored image that regions are on, in pixels, and the classes that they may name."""

    width: int
    height: int
    ontology: Ontology


@dataclass(frozen=True)
class Region:
    """One usable label of an annotation; ``region_id`` is the back end's name for it, or empty."""

    label: Label
    region_id: str = ""


@dataclass(frozen=True)
class DecodedAnnotation:
    """The regions of one annotation, in the order drawn, and its problems.

    Each problem is a sentence that begins with the name of its region. A problem accompanies a
    region (a clipped box) or replaces it; no region disappears without one. ``refused`` counts the
    regions without a usable label: if it is above 0, no labels does not mean "nothing here".

    ``decision`` and ``comment`` belong to a review: empty unless the annotation makes exactly one
    decision, and empty for annotations that are not decoded as reviews.
    """

    regions: list[Region]
    problems: list[str]
    refused: int = 0
    decision: Literal["accept", "reject", ""] = ""
    comment: str = ""

    @property
    def labels(self) -> list[Label]:
        """The labels of all regions, in pixels of the stored image."""
        return [region.label for region in self.regions]


@dataclass(frozen=True)
class PreAnnotation:
    """A label shown to the annotator; ``score`` is the model's, None if no model made the label."""

    label: Label
    score: float | None = None


class Codec(ABC):
    """Reads the payloads of one form. Payloads are kept for ever, and so are codecs.

    A codec with a new meaning gets a new name; the old codec still reads what it wrote.
    """

    @abstractmethod
    def decode(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the regions of an annotation; unusable content becomes a problem."""

    @abstractmethod
    def values(self, content: Any) -> list[str]:
        """Return a text for each region, equal for equal values, for any content."""

    def decode_review(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return a reviewer's annotation with its decision; by default no annotation has one."""
        return self.decode(content, canvas)


@dataclass(frozen=True)
class Review:
    """The decision of a reviewer about labels in dispute.

    ``accepted`` labels are as they were shown, ``fixed`` ones were changed, by value, and with
    ``rejected`` no label is valid. The annotator sees the comment.
    """

    decision: Literal["accepted", "fixed", "rejected"]
    labels: list[Label]
    comment: str
    problems: list[str]


def review_of(annotation: DecodedAnnotation, shown: Iterable[Label]) -> Review | None:
    """Return the decision in a reviewer's annotation; None if it has none.

    It has none if it does not make exactly one decision, if it is ``unsure``, or if a region of an
    accepted one is refused, as the reviewer's intention is then unknown. A rejection without a
    reason is a problem, and is valid.

    Args:
        annotation: decoded as a review.
        shown: the labels that the reviewer was shown.
    """
    accepted = annotation.decision == "accept" and annotation.refused == 0
    if annotation.labels == [UNSURE] or not (accepted or annotation.decision == "reject"):
        return None
    labels, comment, problems = annotation.labels, annotation.comment, annotation.problems
    if not accepted:
        reasonless = [] if comment else ["decision: rejected without a reason"]
        return Review("rejected", labels, comment, problems + reasonless)
    is_fixed = not same_labels(labels, shown)
    return Review("fixed" if is_fixed else "accepted", labels, comment, problems)


@dataclass(frozen=True)
class NamedLabel:
    """A decoded label with the name of its region in problems."""

    name: str
    label: Label
    region_id: str = ""


T = TypeVar("T", bound=NamedLabel)


def only_choice(found: list[T]) -> tuple[list[T], list[str]]:
    """Return ``found`` without its choices if there are several, and a problem for each of them.

    The intended choice is then unknown.
    """
    chosen = {each.label.class_name: each for each in found if each.label.shape in CLASSIFICATIONS}
    if len(chosen) < 2:
        return found, []
    names = " and ".join(repr(name) for name in chosen)
    regions = dict.fromkeys(each.name for each in chosen.values())
    others = [each for each in found if each.label.shape not in CLASSIFICATIONS]
    return others, [f"{name}: {names} are chosen, where one is asked" for name in regions]


def same_labels(one: Iterable[Label], other: Iterable[Label], *, pixels: float = 0.01) -> bool:
    """Return whether two annotations hold labels of equal value, in any order.

    Args:
        one: labels on an image.
        other: labels on the same image.
        pixels: allowed difference of coordinates; masks must be equal.
    """
    left = list(other)
    for label in one:
        equal = next((each for each in left if _same(label, each, pixels)), None)
        if equal is None:
            return False
        left.remove(equal)
    return not left


def _same(one: Label, other: Label, pixels: float) -> bool:
    if (one.shape, one.class_name) != (other.shape, other.class_name):
        return False
    shape = SHAPES[one.shape]
    if shape.is_raster:
        return one.geometry == other.geometry
    left, right = shape.places(one), shape.places(other)
    return [len(each) for each in left] == [len(each) for each in right] and all(
        abs(a - b) <= pixels
        for one_outline, other_outline in zip(left, right, strict=True)
        for a, b in zip(one_outline, other_outline, strict=True)
    )
