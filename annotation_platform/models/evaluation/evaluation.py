"""Evaluation of a detector on test images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.models.evaluation.coco_metrics import CocoFigures, coco_figures
from annotation_platform.models.evaluation.matches import (
    Interval,
    Matches,
    draw_images,
    drawn_figures,
    interval,
    mean_over_classes,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, box_areas

_SEED = 20_140_501


@dataclass(frozen=True)
class Evaluation:
    """Mean average precision as COCO defines it: 101 recall points, at most 100 boxes an image."""

    map50: float  # at IoU 0.5, mean over the classes that occur in the truth, 0 to 1
    map: float  # the same, mean over IoU 0.50, 0.55, …, 0.95
    per_class: dict[str, float]  # average precision at IoU 0.5 of the classes with truth
    images: int  # test images, those without boxes included
    coco: CocoFigures = field(repr=False, compare=False)  # category ids number classes from 1


@dataclass(frozen=True)
class FigureIntervals:
    """Intervals by figure, ``ap`` and ``ap50``, over all classes and for each."""

    overall: dict[str, Interval]
    per_class: dict[int, dict[str, Interval]]  # by category id


def evaluate(truth: Dataset, predictions: pd.DataFrame) -> Evaluation:
    """Return the mean average precision of ``predictions`` on the boxes of ``truth``.

    Boxes of the truth without an area are left out, and classes without truth do not count. No
    predictions, or no truth, give 0.

    Args:
        truth: the test images and their boxes.
        predictions: one row per box, ``image_id, class_name, x1, y1, x2, y2, score``, absolute
            pixels; images without a row have no detections. The order matters only between equal
            scores, as in COCO: image by image, then as given.

    Raises:
        DataError: a prediction is of an image that is not in ``truth``, or is not of numbers.
    """
    _check(truth, predictions)
    labels = truth.labels[box_areas(truth.labels[BOX_COLUMNS].to_numpy(dtype=float)) > 0]
    names = [name for name in truth.ontology.names if (labels["class_name"] == name).any()]
    image_ids = {
        image_id: n for n, image_id in enumerate(sorted(truth.images["image_id"]), start=1)
    }
    class_ids = {name: n for n, name in enumerate(names, start=1)}
    found = predictions[predictions["class_name"].isin(names)]
    figures = coco_figures(
        {
            "images": [{"id": number} for number in image_ids.values()],
            "categories": [{"id": number, "name": name} for name, number in class_ids.items()],
            "annotations": _records(labels, image_ids, class_ids),
        },
        _records(found, image_ids, class_ids),
    )
    return Evaluation(
        map50=figures.overall["ap50"] if names else 0.0,
        map=figures.overall["ap"] if names else 0.0,
        per_class={name: figures.per_class[number]["ap50"] for name, number in class_ids.items()},
        images=len(image_ids),
        coco=figures,
    )


def figure_intervals(figures: CocoFigures, *, seed: int = _SEED) -> FigureIntervals:
    """Return intervals of ``ap`` and ``ap50`` from draws of images, see ``matches.interval``.

    An interval covers the variation of a figure over other images of the same kind; that of a
    class depends on the number of images that show it. A missing figure has no interval.
    """
    matches = figures.matches
    images = len(matches.image_ids)
    drawn = drawn_figures(matches, draw_images(images, np.random.default_rng(seed)))
    values = {"ap": drawn.ap, "ap50": drawn.ap50}
    overall = {
        name: interval(figures.overall[name], mean_over_classes(columns), images=images)
        for name, columns in values.items()
    }
    per_class = {
        int(str(category)): {
            name: interval(
                figures.per_class[int(str(category))][name],
                columns[:, number],
                images=_showing(matches, number),
            )
            for name, columns in values.items()
        }
        for number, category in enumerate(matches.class_ids)
        if category in figures.per_class
    }
    return FigureIntervals(overall, per_class)


def _showing(matches: Matches, number: int) -> int:
    """Return how many images show a class."""
    return int((matches.truth[:, number] > 0).sum())


def _records(
    boxes: pd.DataFrame, image_ids: Mapping[str, int], class_ids: Mapping[str, int]
) -> list[dict[str, Any]]:
    corners = boxes[BOX_COLUMNS].to_numpy(dtype=float)
    sides = corners[:, 2:] - corners[:, :2]
    scores = boxes["score"].tolist() if "score" in boxes else [1.0] * len(boxes)
    rows = zip(boxes["image_id"], boxes["class_name"], corners, sides, scores, strict=True)
    return [
        {
            "id": number,
            "image_id": image_ids[image_id],
            "category_id": class_ids[name],
            "bbox": [*corner[:2].tolist(), *side.tolist()],
            "area": float(side[0] * side[1]),
            "iscrowd": 0,
            "score": score,
        }
        for number, (image_id, name, corner, side, score) in enumerate(rows, start=1)
    ]


def _check(truth: Dataset, predictions: pd.DataFrame) -> None:
    unknown = sorted(set(predictions["image_id"]) - set(truth.images["image_id"]))
    if unknown:
        raise DataError(
            f"{len(unknown)} predicted images are not in the test set, first {unknown[0]}. "
            "Predict on the images of the version that the truth is from."
        )
    numbers = predictions[[*BOX_COLUMNS, "score"]].to_numpy(dtype=float)
    if not np.isfinite(numbers).all():
        raise DataError("a prediction's box or score is not a number. Predict again.")
