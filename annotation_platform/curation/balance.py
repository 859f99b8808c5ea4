"""A training split drawn so that classes, sources or other values have the shares wanted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.schema.shapes import NOTHING

_SAMPLE = 512
"""Kinds of images that one step looks at."""

_EQUAL = 1e-12


@dataclass(frozen=True)
class Balance:
    """The images to train on, and how near to the target they come.

    ``image_ids`` names an image as often as it is to be seen, sorted. ``shares`` are those of the
    labels of the named values in it; ``shortfall`` says by how much each one stays below its
    target, and only those that miss it by more than the tolerance are in it.
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
    """Return images of the training split in which values of ``by`` have the shares wanted.

    Image by image, the one is taken that leaves the shares nearest to the target; among equals,
    one that was taken least, then by chance. Where there are many kinds of images, each step
    looks at a random sample of them (Mirzasoleiman et al., "Lazier Than Lazy Greedy", 2015).
    Images without any of the named values come last, and only to fill ``size``. Validation and
    test are never drawn from: resampled, they would no longer say how good a model is.

    Args:
        labels: a ``training_set`` table; only its training split is looked at.
        targets: value to its share; above 0, and 1 in all.
        by: a column of the table: ``class_name``, ``source``, ``round_id``, …
        size: how many images, repeats counted; by default as many as the split has.
        most_repeats: how often one image may be taken.
        tolerance: a share that lies this far below its target is no shortfall.
        rng: breaks ties.

    Raises:
        DataError: the targets are no shares, no training image has one of the values, or the
            split cannot give so many images.
    """
    rows = labels[labels["split"] == "train"]
    wanted = np.array(list(targets.values()), dtype=float)
    if not len(wanted) or (wanted <= 0).any() or abs(wanted.sum() - 1) > 1e-6:
        raise DataError(f"the shares {dict(targets)} are to be above 0 and 1 in all. Correct them.")
    image_ids = np.array(sorted(rows["image_id"].unique()))
    counts = _counts(rows[rows["shape"] != NOTHING.shape], image_ids, list(targets), by)
    missing = [name for name, count in zip(targets, counts.sum(axis=0), strict=True) if not count]
    if missing:
        raise DataError(f"no training image has {by} {missing[0]!r}. Leave it out of the shares.")
    size = len(image_ids) if size is None else size
    if size > most_repeats * len(image_ids):
        raise DataError(
            f"{size} images are wanted, and {len(image_ids)} taken {most_repeats} times are "
            "fewer. Ask for fewer, or allow more repeats."
        )
    taken = _take(counts, wanted, size, most_repeats, rng)
    total = taken @ counts
    shares = total / max(1, total.sum())
    short = {
        name: float(target - share)
        for (name, target), share in zip(targets.items(), shares, strict=True)
        if target - share > tolerance
    }
    return Balance(
        image_ids=np.repeat(image_ids, taken).tolist(),
        shares=dict(zip(targets, map(float, shares), strict=True)),
        shortfall=short,
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
    # Images with the same counts are as good as each other, so kinds of them are chosen from.
    kinds, kind_of = np.unique(counts, axis=0, return_inverse=True)
    members = [rng.permutation(np.flatnonzero(kind_of == kind)) for kind in range(len(kinds))]
    number = np.array([len(each) for each in members])
    picked = np.zeros(len(kinds), dtype=np.int64)
    total = np.zeros(len(wanted))
    useful = np.flatnonzero(kinds.sum(axis=1))
    open_ = useful
    steps = min(size, int(number[useful].sum()) * most_repeats)
    for _ in range(steps):
        looked_at = open_
        if len(open_) > _SAMPLE:
            looked_at = open_[rng.integers(len(open_), size=_SAMPLE)]
        sums = total + kinds[looked_at]
        off = np.abs(sums / sums.sum(axis=1, keepdims=True) - wanted).sum(axis=1)
        best = looked_at[off <= off.min() + _EQUAL]
        repeats = picked[best] / number[best]
        kind = int(rng.choice(best[repeats == repeats.min()]))
        picked[kind] += 1
        total = total + kinds[kind]
        if picked[kind] == number[kind] * most_repeats:
            open_ = open_[open_ != kind]
    if steps < size:
        # All that is left has none of the named values, and is of one kind.
        picked[np.setdiff1d(np.arange(len(kinds)), useful)] = size - steps
    taken = np.zeros(len(counts), dtype=np.int64)
    for each, times in zip(members, picked.tolist(), strict=True):
        rounds, rest = divmod(times, len(each))
        taken[each] = rounds
        taken[each[:rest]] += 1
    return taken
