"""Slices of images and objects on which a model is weak, corrected for multiple comparisons."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.models.evaluation.coco_metrics import CocoFigures, Size
from annotation_platform.models.evaluation.matches import (
    CONFIDENCE,
    DrawnFigures,
    Matches,
    draw_images,
    drawn_figures,
    interval,
    mean_over_classes,
)
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.tables import Frame, ModelSlices

FEWEST = 5
"""Smallest number of images of a slice that can be weak."""
TAIL = 0.2
"""Share of the images in a tail: the darkest, the most blurred …"""
_SEED = 20_140_501
_SIZES: tuple[Size, ...] = ("small", "medium", "large")
_TAILS = {
    "dark": ("brightness", True),
    "bright": ("brightness", False),
    "blurred": ("sharpness", True),
}
_VALUES = {"round": "round_id", "source": "source", "device": "device"}

Weights = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Slice:
    """Figures of a slice and of its comparison; the first draw is the images themselves."""

    kind: str
    name: str
    images: int
    boxes: int
    inside: DrawnFigures
    outside: FloatArray  # (draws, classes), ap
    paired: bool = True  # class by class; else the means are compared


def slice_members(images: pd.DataFrame) -> dict[tuple[str, str], list[str]]:
    """Return the image ids of every slice that the given columns define, by kind and name.

    Slices are by value (``round``, ``source``, ``device``) or tails (``dark``, ``bright``,
    ``blurred``: a fifth each, named by its limit). Left out are slices of all images, missing
    values, and tails of a value that hardly varies.

    Args:
        images: a row per image: ``image_id`` and any of ``round_id``, ``source``, ``device``,
            ``brightness`` (0 to 255) and ``sharpness``.
    """
    members: dict[tuple[str, str], list[str]] = {}
    for kind, column in _VALUES.items():
        for value, rows in images.groupby(column) if column in images else ():
            members[kind, str(value)] = sorted(rows["image_id"])
    for kind, (column, low) in _TAILS.items():
        if column in images and images[column].notna().any():
            edge = float(images[column].quantile(TAIL if low else 1 - TAIL))
            inside = images[column] <= edge if low else images[column] >= edge
            name = f"{column} {'at most' if low else 'at least'} {edge:.3g}"
            members[kind, name] = sorted(images.loc[inside, "image_id"])
    return {key: ids for key, ids in members.items() if 0 < len(ids) < len(images)}


def slice_figures(
    round_id: str,
    figures: CocoFigures,
    *,
    image_ids: list[str],
    class_names: Mapping[int, str],
    members: Mapping[tuple[str, str], list[str]],
    seed: int = _SEED,
) -> Frame[ModelSlices]:
    """Return the ``model_slices`` of a round: figures by class, size and slice, weakest first.

    A slice is compared with the images outside it class by class, over the classes that both
    show, so that a slice is not weak because it shows the harder classes; a class with the mean
    of the others; a size with all sizes.

    Slices are ordered by the *upper* end of the difference's interval, not by the difference:
    among many small slices some are bad by chance, and their interval is wide. The end is
    one-sided, by Student's distribution with one degree of freedom less than the slice has images,
    at 0.05 divided by the number of slices tested (Bonferroni). A few images that happen to fail
    in the same way would seem certain, so the standard error is at least that of the whole set
    scaled to the number of images. A slice is ``weak`` if its upper end is below 0. Slices of fewer
    than ``FEWEST`` images have no end and come last.

    Args:
        round_id: written in each row.
        figures: of a model.
        image_ids: the image at each position in ``figures.matches``.
        class_names: by category id.
        members: image ids by kind and name, see ``slice_members``.
        seed: of the draws.
    """
    matches = figures.matches
    number = len(image_ids)
    weights = draw_images(number, np.random.default_rng(seed))
    weights = np.concatenate([np.ones((1, number), dtype=np.int64), weights])
    whole = drawn_figures(matches, weights)
    spread = float(mean_over_classes(whole.ap)[1:].std())
    found = [
        *_by_class(matches, whole, class_names),
        *_by_size(figures, weights, whole),
        *_by_images(matches, weights, image_ids, members),
    ]
    tests = sum(each.images >= FEWEST for each in found)
    rows = [_row(round_id, each, spread * math.sqrt(number), tests) for each in found]
    rows.sort(key=_weakness)
    ranked = [{**row, "rank": rank} for rank, row in enumerate(rows)]
    return ModelSlices.from_rows(ranked)


def _by_class(
    matches: Matches, whole: DrawnFigures, class_names: Mapping[int, str]
) -> list[_Slice]:
    slices = []
    for column, category in enumerate(matches.class_ids):
        truth = matches.truth[:, column]
        if truth.any():
            one = DrawnFigures(whole.ap[:, [column]], whole.ap50[:, [column]])
            others = np.delete(whole.ap, column, axis=1)
            name = class_names[int(str(category))]
            shown = int((truth > 0).sum())
            slices.append(_Slice("class", name, shown, int(truth.sum()), one, others, False))
    return slices


def _by_size(figures: CocoFigures, weights: Weights, whole: DrawnFigures) -> list[_Slice]:
    slices = []
    for size in _SIZES:
        matches = figures.find_matches(size)
        shown, boxes = int((matches.truth.sum(axis=1) > 0).sum()), int(matches.truth.sum())
        if boxes:
            inside = drawn_figures(matches, weights)
            slices.append(_Slice("size", size, shown, boxes, inside, whole.ap))
    return slices


def _by_images(
    matches: Matches,
    weights: Weights,
    image_ids: list[str],
    members: Mapping[tuple[str, str], list[str]],
) -> list[_Slice]:
    slices = []
    for (kind, name), ids in members.items():
        member = np.isin(image_ids, ids)
        inside = drawn_figures(matches, weights * member)
        outside = drawn_figures(matches, weights * ~member).ap
        boxes = int(matches.truth[member].sum())
        slices.append(_Slice(kind, name, int(member.sum()), boxes, inside, outside))
    return slices


def _row(round_id: str, one: _Slice, image_spread: float, tests: int) -> dict[str, object]:
    from scipy.special import stdtrit

    drawn = _means(one.inside.ap)
    end = interval(float(drawn[0]), drawn[1:], images=one.images)
    if one.paired:
        outside = np.where(np.isnan(one.inside.ap), math.nan, one.outside)
        difference = _means(one.inside.ap - one.outside)
    else:
        outside = one.outside
        difference = drawn - _means(outside)
    upper = math.nan
    if one.images >= FEWEST and not math.isnan(difference[0]):
        known = difference[1:][~np.isnan(difference[1:])]
        error = image_spread / math.sqrt(one.images)
        error = max(error, float(known.std())) if known.size else error
        quantile = stdtrit(one.images - 1, 1 - (1 - CONFIDENCE) / max(tests, 1))
        upper = min(float(difference[0] + quantile * error), 1.0)
    return {
        "round_id": round_id,
        "kind": one.kind,
        "name": one.name,
        "images": one.images,
        "boxes": one.boxes,
        "map": end.value,
        "map_low": end.low,
        "map_high": end.high,
        "map50": float(_means(one.inside.ap50)[0]),
        "others_map": float(_means(outside)[0]),
        "difference": float(difference[0]),
        "upper": upper,
        "weak": bool(upper < 0),
    }


def _weakness(row: dict[str, object]) -> tuple[bool, float, str, str]:
    upper = float(str(row["upper"]))
    missing = math.isnan(upper)
    return missing, 0.0 if missing else upper, str(row["kind"]), str(row["name"])


def _means(figures: FloatArray) -> FloatArray:
    """Return the mean of each row over the classes that have a figure; NaN where none has."""
    there = ~np.isnan(figures)
    means = mean_over_classes(figures)
    return np.where(there.any(axis=1), means, math.nan)
