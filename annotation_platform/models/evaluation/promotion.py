"""The decision whether a new detector is promoted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from annotation_platform.errors import DataError
from annotation_platform.models.evaluation.evaluation import Evaluation
from annotation_platform.models.evaluation.matches import (
    Interval,
    draw_images,
    drawn_figures,
    interval,
    mean_over_classes,
)

MARGIN = 0.01
"""Loss of mAP that may be chance if it is inside the interval: seeds differ by more."""
_SEED = 20_140_501
_BOUNDS = (-1.0, 1.0)


@dataclass(frozen=True)
class Comparison:
    """Differences of two models' figures on the same images, -1 to 1, with intervals."""

    map: Interval
    map50: Interval
    images: int


@dataclass(frozen=True)
class Promotion:
    """Whether the new model is promoted, and the reason as a sentence."""

    promoted: bool
    reason: str
    comparison: Comparison | None = None  # with the decisive model; None: there is no other


def compare(new: Evaluation, old: Evaluation) -> Comparison:
    """Return the differences of ``new`` and ``old``, with intervals from draws of their images.

    Both are evaluated on the same draws, so that the difficulty of an image for both cancels out.

    Raises:
        DataError: the two come from different test images.
    """
    ours, theirs = new.coco.matches, old.coco.matches
    if new.images != old.images or ours.image_ids != theirs.image_ids:
        raise DataError(
            f"the new model was tested on {new.images} images, the promoted one on {old.images} "
            "or on others. Evaluate both on the test split of the same version."
        )
    weights = draw_images(new.images, np.random.default_rng(_SEED))
    drawn, other = drawn_figures(ours, weights), drawn_figures(theirs, weights)
    maps = mean_over_classes(drawn.ap) - mean_over_classes(other.ap)
    halves = mean_over_classes(drawn.ap50) - mean_over_classes(other.ap50)
    return Comparison(
        map=interval(new.map - old.map, maps, images=new.images, bounds=_BOUNDS),
        map50=interval(new.map50 - old.map50, halves, images=new.images, bounds=_BOUNDS),
        images=new.images,
    )


def decide_promotion(
    new: Evaluation,
    before: Mapping[str, Evaluation],
    *,
    later: str = "",
    margin: float = MARGIN,
) -> Promotion:
    """Return whether ``new`` is promoted: it is not worse than any of those ``before`` it.

    Worse means that the mAP is lower beyond the interval of the difference, or lower by more than
    ``margin`` whatever the interval: on few images the interval excludes hardly anything.

    A comparison with the last model alone is not enough: a small loss in every round stays within
    each round's interval, and the losses add up unnoticed. So ``before`` holds the promoted model
    and the best ever promoted (``best_of``), and the loss against the best stays within one margin
    and one interval over any number of rounds.

    A round that runs again after later ones has fewer labels and a smaller test split, so that not
    being worse on it means little. The model of a ``later`` version is replaced only by one that is
    better beyond the interval of the difference.

    Args:
        new: the candidate.
        before: the other models by their names in the reason, e.g. "the promoted model"; empty:
            there is none yet. All are evaluated on the test images of ``new``.
        later: which of ``before`` was trained on a later version than ``new``; empty: none.
        margin: mAP, 0 to 1.
    """
    images = f"the same {new.images} test images"
    if not before:
        figures = f"mAP {new.map:.3f}, mAP@0.5 {new.map50:.3f} on {new.images} test images"
        return Promotion(True, f"Promoted: the first model, {figures}.")
    comparisons = {name: compare(new, other) for name, other in before.items()}
    name = min(comparisons, key=lambda each: comparisons[each].map.value)
    beyond = [each for each in comparisons.values() if each.map.high < 0]
    worse = comparisons[name].map.value < -margin
    not_better = bool(later) and comparisons[later].map.low <= 0
    if not_better and not (worse or beyond):
        name = later
    found, other = comparisons[name].map, before[name]
    figures = (
        f"mAP {new.map:.3f} against {other.map:.3f} of {name} on {images} "
        f"(difference {found.value:+.3f}, {found.low:+.3f} to {found.high:+.3f}; "
        f"mAP@0.5 {new.map50:.3f} against {other.map50:.3f})"
    )
    if worse:
        reason = f"Kept the promoted model: the new one is worse by more than {margin}: {figures}."
    elif beyond:
        reason = f"Kept the promoted model: the new one is worse beyond chance: {figures}."
    elif not_better:
        reason = (
            "Kept the promoted model, which was trained on a later version: the new one is not "
            f"better beyond chance: {figures}."
        )
    else:
        return Promotion(True, f"Promoted: {figures}.", comparisons[name])
    return Promotion(False, reason, comparisons[name])


def best_of(evaluations: Mapping[str, Evaluation]) -> str:
    """Return the key of the highest mAP on the same images; of equal ones, the last."""
    return max(reversed(list(evaluations)), key=lambda key: evaluations[key].map)
