"""Average precision and recall as COCO defines them, and the matches that they count.

The figures equal pycocotools' to the last bit; hotcoco computes them some forty times as fast
(``benchmarks/evaluation.py``). Definition: Lin et al., "Microsoft COCO: Common Objects in Context",
2014, and https://cocodataset.org/#detection-eval.
"""

import contextlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from annotation_platform.errors import DataError
from annotation_platform.models.evaluation.matches import BoolArray, Matches
from annotation_platform.schema.geometry import FloatArray

Kind = Literal["bbox", "segm", "keypoints"]
Size = Literal["all", "small", "medium", "large"]
"""COCO's sizes: small is below 32² square pixels, large from 96²; keypoints have no small ones."""

_ALL, _SMALL, _MEDIUM, _LARGE = range(4)
_HALF, _THREE_QUARTERS = 0, 5
_ANY = slice(None)
# Figure: (precision?, IoU threshold, area, index of the limit of boxes an image).
_BOXES: dict[str, tuple[bool, int | slice, int, int]] = {
    "ap": (True, _ANY, _ALL, 2),
    "ap50": (True, _HALF, _ALL, 2),
    "ap75": (True, _THREE_QUARTERS, _ALL, 2),
    "ap_small": (True, _ANY, _SMALL, 2),
    "ap_medium": (True, _ANY, _MEDIUM, 2),
    "ap_large": (True, _ANY, _LARGE, 2),
    "ar1": (False, _ANY, _ALL, 0),
    "ar10": (False, _ANY, _ALL, 1),
    "ar100": (False, _ANY, _ALL, 2),
    "ar_small": (False, _ANY, _SMALL, 2),
    "ar_medium": (False, _ANY, _MEDIUM, 2),
    "ar_large": (False, _ANY, _LARGE, 2),
}
# Keypoints have no small objects, and 20 an image.
_POINTS: dict[str, tuple[bool, int | slice, int, int]] = {
    "ap": (True, _ANY, 0, 0),
    "ap50": (True, _HALF, 0, 0),
    "ap75": (True, _THREE_QUARTERS, 0, 0),
    "ap_medium": (True, _ANY, 1, 0),
    "ap_large": (True, _ANY, 2, 0),
    "ar": (False, _ANY, 0, 0),
    "ar50": (False, _HALF, 0, 0),
    "ar75": (False, _THREE_QUARTERS, 0, 0),
    "ar_medium": (False, _ANY, 1, 0),
    "ar_large": (False, _ANY, 2, 0),
}


@dataclass(frozen=True)
class CocoFigures:
    """COCO's figures, 0 to 1, by name: ``ap``, ``ap50``, …; missing (NaN) without any truth.

    ``per_class`` has them by category id for the classes that occur in the truth; those of a class
    that occurs only as crowds or objects that COCO ignores are missing.
    """

    overall: dict[str, float]
    per_class: dict[int, dict[str, float]]
    find_matches: Callable[[Size], Matches] = field(repr=False, compare=False)

    @cached_property
    def matches(self) -> Matches:
        """The match of each detection; computed at the first access, slower than the figures."""
        return self.find_matches("all")


def coco_figures(
    truth: dict[str, Any], results: list[dict[str, Any]], kind: Kind = "bbox"
) -> CocoFigures:
    """Return the figures that pycocotools returns for these records.

    Annotations are renumbered: pycocotools counts an object with the id 0 as not found, which is
    not part of the definition.

    Args:
        truth: content of a COCO ground-truth file; crowds are ignored as in COCO.
        results: content of a COCO results file; without results, figures of classes with truth
            are 0.
        kind: whether boxes, outlines or keypoints are compared.

    Raises:
        DataError: a record is not as COCO defines it.
    """
    from hotcoco import COCO, COCOeval

    objects = [{**one, "id": n} for n, one in enumerate(truth["annotations"], start=1)]
    # hotcoco prints its progress to standard output, which the caller may use for results.
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            coco = COCO({**truth, "annotations": objects})
            run = COCOeval(coco, coco.load_res(results), kind)
            run.evaluate()
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise DataError(f"the COCO records cannot be used: {reason}. Correct them.") from error
        run.accumulate()
        counted: dict[str, Any] = run.eval or {}
        precision, recall = counted["precision"], counted["recall"]
        category_ids = list(run.params.cat_ids)

    ranges = dict(zip(run.params.area_rng_lbl, run.params.area_rng, strict=True))

    def find_matches(size: Size) -> Matches:
        # One range at a time: converting matches to Python costs more than computing them.
        run.params.area_rng, run.params.area_rng_lbl = [ranges[size]], [size]
        run.evaluate()
        return _matches(run.eval_imgs, category_ids, list(run.params.img_ids))

    layout = _POINTS if kind == "keypoints" else _BOXES
    present = {int(one["category_id"]) for one in objects}
    return CocoFigures(
        overall=_summary(layout, precision, recall, _ANY),
        per_class={
            int(category): _summary(layout, precision, recall, slice(index, index + 1))
            for index, category in enumerate(category_ids)
            if category in present
        },
        find_matches=find_matches,
    )


def _summary(
    layout: dict[str, tuple[bool, int | slice, int, int]],
    precision: npt.NDArray[np.float64],
    recall: npt.NDArray[np.float64],
    classes: slice,
) -> dict[str, float]:
    """Return the figures of ``classes``.

    Axes of ``precision`` are threshold, recall point, class, area and number of boxes; ``recall``
    has no recall points.
    """

    summary = {}
    for name, (is_precision, thresholds, area, most) in layout.items():
        values = (
            precision[thresholds, ..., classes, area, most]
            if is_precision
            else recall[thresholds, ..., classes, area, most]
        )
        # COCO writes -1 where there is no truth.
        values = values[values > -1]
        summary[name] = float(values.mean()) if values.size else math.nan
    return summary


def _matches(
    pairs: list[dict[str, Any] | None], category_ids: list[int], image_ids: list[int]
) -> Matches:
    """Return the matches of every pair of class and image, in COCO's order between equal scores."""
    classes = {category: n for n, category in enumerate(category_ids)}
    images = {image: n for n, image in enumerate(image_ids)}
    truth = np.zeros((len(images), len(classes)), dtype=np.int64)
    scores, image_of, class_of = [], [], []
    right: list[BoolArray] = [np.zeros((10, 0), dtype=bool)]
    ignored: list[BoolArray] = [np.zeros((10, 0), dtype=bool)]
    for pair in pairs:
        if pair is None:
            continue
        image, category = images[pair["image_id"]], classes[pair["category_id"]]
        truth[image, category] = len(pair["gtIgnore"]) - sum(pair["gtIgnore"])
        number = len(pair["dtScores"])
        if number:
            scores.extend(pair["dtScores"])
            image_of.extend([image] * number)
            class_of.extend([category] * number)
            right.append(np.array(pair["dtMatched"], dtype=bool))
            ignored.append(np.array(pair["dtIgnore"], dtype=bool))
    set_aside = np.concatenate(ignored, axis=1)
    as_floats: FloatArray = np.array(scores, dtype=np.float64)
    return Matches(
        scores=as_floats,
        images=np.array(image_of, dtype=np.int64),
        classes=np.array(class_of, dtype=np.int64),
        right=np.concatenate(right, axis=1) & ~set_aside,
        wrong=~np.concatenate(right, axis=1) & ~set_aside,
        truth=truth,
        image_ids=image_ids,
        class_ids=category_ids,
    )
