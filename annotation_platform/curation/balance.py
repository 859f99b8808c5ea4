"""Resampling of the training split so that classes, sources or other values have given shares."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.schema.tables.shared import Split

_SAMPLE = 512
"""Kinds of images that one step compares."""

_EQUAL = 1e-12


@dataclass(frozen=True)
class Balance:
    """The images to train on, and their distance from the target.

    Attributes:
        image_ids: sorted; an image is repeated as often as it is to be trained on.
        shares: the share of each named value in the labels of these images.
        shortfall: how far each value stays below its target, only where that is more than the
            tolerance.
    """

    image_ids: list[str]
    shares: dict[str, float]
    shortfall: dict[str, float]


def balance_images(
    labels: pd.DataFrame,
    targets: Mapping[str, float],
    *,
    by: str = "class_name",
    size: int | None = None,
    most_repeats: int = 4,
    tolerance: float = 0.02,
    rng: np.random.Generator,
) -> Balance:
    """Return images of the training split in which values of ``by`` have the target shares.

    Each step takes the image that brings the shares nearest to the target; ties go to an image
    that was taken least, then are broken at random. With many kinds of images each step compares a
    random sample of them (Mirzasoleiman et al., "Lazier Than Lazy Greedy", 2015). Images without
    any of the named values come last, and only to fill ``size``. Validation and test splits are
    never resampled: they would no longer measure the model.

    Args:
        labels: a ``training_set`` table; only its training split is used.
        targets: value to its share; each above 0, their sum 1.
        by: a column of the table: ``class_name``, ``source``, ``round_id``, …
        size: number of images with repeats; by default that of the training split.
        most_repeats: how often one image may be taken.
        tolerance: a share at most this far below its target is not a shortfall.
        rng: breaks ties.

    Raises:
        DataError: the targets are not shares, no training image has one of the values, or the
            split has too few images for ``size``.
    """
    rows = labels[labels[TrainingSet.split] == Split.TRAIN]
    wanted = np.array(list(targets.values()), dtype=float)
    if not len(wanted) or (wanted <= 0).any() or abs(wanted.sum() - 1) > 1e-6:
        raise DataError(f"the shares {dict(targets)} must be above 0 with the sum 1. Correct them.")
    image_ids = np.array(sorted(rows["image_id"].unique()))
    counts = _counts(rows[rows["shape"] != NOTHING.shape], image_ids, list(targets), by)
    missing = [name for name, count in zip(targets, counts.sum(axis=0), strict=True) if not count]
    if missing:
        raise DataError(f"no training image has {by} {missing[0]!r}. Leave it out of the shares.")
    size = len(image_ids) if size is None else size
    if size > most_repeats * len(image_ids):
        raise DataError(
            f"{size} images are requested, and {len(image_ids)} images taken {most_repeats} times "
            "are fewer. Request fewer images, or allow more repeats."
        )
    taken = _take(counts, wanted, size, most_repeats, rng)
    total = taken @ counts
    shares = total / max(1, total.sum())
    shortfall = {
        name: float(target - share)
        for (name, target), share in zip(targets.items(), shares, strict=True)
        if target - share > tolerance
    }
    return Balance(
        image_ids=np.repeat(image_ids, taken).tolist(),
        shares=dict(zip(targets, map(float, shares), strict=True)),
        shortfall=shortfall,
    )


def _counts(
    rows: pd.DataFrame, image_ids: npt.NDArray[np.str_], names: list[str], by: str
) -> npt.NDArray[np.int64]:
    """Return ``(N, K)``: how many labels of each named value an image has."""
    image = pd.Index(image_ids).get_indexer(pd.Index(rows["image_id"]))
    name = pd.Index(names).get_indexer(pd.Index(rows[by]))
    counts = np.zeros((len(image_ids), len(names)), dtype=np.int64)
    np.add.at(counts, (image[name >= 0], name[name >= 0]), 1)
    return counts


def _take(
    counts: npt.NDArray[np.int64],
    wanted: npt.NDArray[np.float64],
    size: int,
    most_repeats: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Return how often each image is taken."""
    # Images with the same counts are interchangeable, so each step chooses a kind of image.
    kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
    members = [rng.permutation(np.flatnonzero(kind_of == kind)) for kind in range(len(kinds))]
    number = np.array([len(each) for each in members])
    picked = np.zeros(len(kinds), dtype=np.int64)
    total = np.zeros(len(wanted))
    useful = np.flatnonzero(kinds.sum(axis=1))
    open_ = useful
    steps = min(size, int(number[useful].sum()) * most_repeats)
    for _ in range(steps):
        compared = open_
        if len(open_) > _SAMPLE:
            compared = open_[rng.integers(len(open_), size=_SAMPLE)]
        sums = total + kinds[compared]
        off = np.abs(sums / sums.sum(axis=1, keepdims=True) - wanted).sum(axis=1)
        best = compared[off <= off.min() + _EQUAL]
        repeats = picked[best] / number[best]
        kind = int(rng.choice(best[repeats == repeats.min()]))
        picked[kind] += 1
        total = total + kinds[kind]
        if picked[kind] == number[kind] * most_repeats:
            open_ = open_[open_ != kind]
    if steps < size:
        # The remaining images have none of the named values, and are of one kind.
        picked[np.setdiff1d(np.arange(len(kinds)), useful)] = size - steps
    taken = np.zeros(len(counts), dtype=np.int64)
    for each, times in zip(members, picked.tolist(), strict=True):
        rounds, rest = divmod(times, len(each))
        taken[each] = rounds
        taken[each[:rest]] += 1
    return taken
