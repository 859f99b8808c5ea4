"""One region fused from the regions that several annotators drew of one object.

``docs/algorithms/fusion.md`` compares the rule of each shape with rules that did worse.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import SHAPES, Label, Numbered
from annotation_platform.schema.shapes.overlap import pairs_of

_ENOUGH = 20
"""Least number of pairs of annotators' values that gives an estimate of the deviation."""


@dataclass(frozen=True)
class Spread:
    """The deviation of annotators' values from the truth, for each number of a shape."""

    of_shape: dict[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def among(cls, objects: Iterable[Sequence[Label]]) -> "Spread":
        """Return the deviations, estimated from the annotators' differences over these objects.

        The median difference of a pair, divided by 0.954, is the deviation of a normal
        distribution. Shapes with too few pairs have none.
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
    """Return one label fused from all of ``labels``, with this class.

    Each shape documents how it is fused: ``schema/shapes``.

    Args:
        labels: one or more, all of one shape.
        weights: one per label, above zero: the precision of its annotator.
        overlap: ``(n, n)`` of the labels.
        class_name: class of the result.
        spread: annotators' deviations; without it plain medians replace the rule that uses them.
    """
    middle = labels[_medoid(weights, overlap)]
    fused = middle
    if len(labels) > 1:
        deviation = (spread or Spread()).of_shape.get(middle.shape)
        shape = SHAPES[middle.shape]
        fused = shape.fuse(labels, weights, middle=middle, deviation=deviation)
    return replace(fused, class_name=class_name)


def clip_region(label: Label, size: tuple[float, float] | None) -> Label | None:
    """Return the part of a region that is in its image; None if it is empty or has no area.

    A rotated box keeps its corners as long as its centre is inside: an object at the edge of an
    image cannot be boxed otherwise. Masks, and labels that are no region, are left unchanged.

    Args:
        label: any label.
        size: width and height of the image, pixels; None if unknown: then nothing is outside.
    """
    return SHAPES[label.shape].clip(label, size)


def _medoid(weights: Sequence[float], overlap: FloatArray) -> int:
    """Return the position of the label with the largest weighted overlap with the others."""
    others = overlap - np.diag(np.diag(overlap))
    return int(np.argmax(others @ np.asarray(weights)))
