"""One region from those that several people drew of one object.

``docs/algorithms/fusion.md`` has the rules for each shape beside those that did worse.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from annotation_platform.consensus.overlap import pairs_of
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import SHAPES, Label, Numbered

_ENOUGH = 20
"""Pairs of people's values from which on a deviation can be told."""


@dataclass(frozen=True)
class Spread:
    """By how much people's values part from the truth: a deviation for each number of a shape."""

    of_shape: dict[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def among(cls, objects: Iterable[Sequence[Label]]) -> "Spread":
        """Return the deviations from the differences between people over all these objects.

        The median difference of a pair, over 0.954, is the deviation of a normal distribution.
        Shapes of which too few were drawn twice have none.
        """
        gaps: dict[str, list[FloatArray]] = defaultdict(list)
        for labels in objects:
            shape = SHAPES[labels[0].shape] if len(labels) > 1 else None
            if isinstance(shape, Numbered):
                values = shape.numbers(labels, first=0)
                one, other = pairs_of(len(values))
                gaps[shape.name].append(np.abs(values[one] - values[other]))
        stacked = {name: np.concatenate(each) for name, each in gaps.items()}
        return cls(
            {
                name: np.median(each, axis=0) / 0.954
                for name, each in stacked.items()
                if len(each) >= _ENOUGH
            }
        )


def fuse(
    labels: Sequence[Label],
    weights: Sequence[float],
    overlap: FloatArray,
    *,
    class_name: str | None,
    spread: Spread | None = None,
) -> Label:
    """Return the label that stands for all of ``labels``, under this class.

    Each shape documents how it is fused: ``schema/shapes``.

    Args:
        labels: one or more, all of one shape.
        weights: as many, above zero: the precision of who drew each.
        overlap: ``(n, n)`` of the labels.
        class_name: what it is.
        spread: people's deviations; without it the plain median stands for near.
    """
    middle = labels[_medoid(weights, overlap)]
    fused = middle
    if len(labels) > 1:
        deviation = (spread or Spread()).of_shape.get(middle.shape)
        shape = SHAPES[middle.shape]
        fused = shape.fuse(labels, weights, middle=middle, deviation=deviation)
    return replace(fused, class_name=class_name)


def clip_region(label: Label, size: tuple[float, float] | None) -> Label | None:
    """Return what of a region lies in its image; None if nothing does or it has no area.

    A rotated box keeps its corners as long as its centre is inside: an object at the edge of a
    image cannot be boxed otherwise. Masks are left as they are, and so is what is no region.

    Args:
        label: any label.
        size: width and height of the image, pixels; None if unknown: then nothing is outside.
    """
    return SHAPES[label.shape].clip(label, size)


def _medoid(weights: Sequence[float], overlap: FloatArray) -> int:
    """Return the position of the label that overlaps the others most, by their weight."""
    others = overlap - np.diag(np.diag(overlap))
    return int(np.argmax(others @ np.asarray(weights)))
