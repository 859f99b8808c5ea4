"""How well a model does on pictures it has not seen, and whether it takes over."""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, box_areas


@dataclass(frozen=True)
class Evaluation:
    """Mean average precision as COCO defines it: 101 recall points, at most 100 boxes a picture."""

    map50: float  # at IoU 0.5, mean over the classes that occur in the truth, 0 to 1
    map: float  # the same, mean over IoU 0.50, 0.55, …, 0.95
    per_class: dict[str, float]  # average precision at IoU 0.5; a class without truth is not in it
    images: int  # test pictures, those without boxes included


@dataclass(frozen=True)
class Promotion:
    """Whether the new model makes the proposals from now on, and why, as a sentence."""

    promoted: bool
    reason: str


@dataclass(frozen=True)
class AveragePrecision:
    """COCO's figures for one class or for all, 0 to 1."""

    at_half: float
    over_thresholds: float


def evaluate(truth: Dataset, predictions: pd.DataFrame) -> Evaluation:
    """Return how well ``predictions`` find the boxes of ``truth``.

    Boxes of the truth without an area are left out, and classes without truth count neither for
    nor against. No predictions, or no truth, give 0.

    Args:
        truth: the test pictures and their boxes.
        predictions: one row per box, ``image_id, class_name, x1, y1, x2, y2, score``, absolute
            pixels; pictures without a row are pictures in which nothing was found. Their order
            matters between equal scores only, as in COCO: image by image, then as given.

    Raises:
        DataError: a prediction is of a picture that is not in ``truth``, or is not of numbers.
    """
    _check(truth, predictions)
    labels = truth.labels[box_areas(truth.labels[BOX_COLUMNS].to_numpy(dtype=float)) > 0]
    names = [name for name in truth.ontology.names if (labels["class_name"] == name).any()]
    image_ids = {
        image_id: n for n, image_id in enumerate(sorted(truth.images["image_id"]), start=1)
    }
    class_ids = {name: n for n, name in enumerate(names, start=1)}
    found = predictions[predictions["class_name"].isin(names)]
    if found.empty:
        return Evaluation(0.0, 0.0, dict.fromkeys(names, 0.0), len(image_ids))
    precisions = average_precisions(
        {
            "images": [{"id": number} for number in image_ids.values()],
            "categories": [{"id": number, "name": name} for name, number in class_ids.items()],
            "annotations": _records(labels, image_ids, class_ids),
        },
        _records(found, image_ids, class_ids),
    )
    return Evaluation(
        map50=float(np.mean([one.at_half for one in precisions.values()])),
        map=float(np.mean([one.over_thresholds for one in precisions.values()])),
        per_class={name: precisions[class_ids[name]].at_half for name in names},
        images=len(image_ids),
    )


def average_precisions(
    truth: dict[str, Any], results: list[dict[str, Any]]
) -> dict[int, AveragePrecision]:
    """Return pycocotools' box figures by category id; categories without truth are left out.

    Args:
        truth: the content of a COCO ground-truth file; crowds are ignored as COCO ignores them.
        results: the content of a COCO results file, at least one record.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    # pycocotools tells its progress on standard output, which belongs to the caller.
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        run = COCOeval(coco, coco.loadRes(results), "bbox")
        run.evaluate()
        run.accumulate()
    # Threshold × recall × class × area × most boxes; all areas, 100 boxes; -1 is "no truth".
    precision = run.eval["precision"][:, :, :, 0, -1]
    figures = {}
    for index, category in enumerate(run.params.catIds):
        curve = precision[:, :, index]
        if (curve > -1).any():
            figures[int(category)] = AveragePrecision(float(curve[0].mean()), float(curve.mean()))
    return figures


def decide_promotion(new: Evaluation, old: Evaluation | None) -> Promotion:
    """Return whether ``new`` takes over: there is no ``old``, or it does at least as well.

    Both must come from the same test pictures; different numbers of them are a DataError.
    """
    if old is None:
        return Promotion(
            True,
            f"Promoted: the first model, mAP@0.5 {new.map50:.3f} on {new.images} test images.",
        )
    if new.images != old.images:
        raise DataError(
            f"the new model was tested on {new.images} images, the promoted one on {old.images}. "
            "Evaluate both on the test split of the same version."
        )
    figures = (
        f"mAP@0.5 {new.map50:.3f} against {old.map50:.3f} on the same {new.images} test images"
    )
    if new.map50 >= old.map50:
        return Promotion(True, f"Promoted: {figures}.")
    return Promotion(False, f"Kept the promoted model: the new one has {figures}.")


def _records(
    boxes: pd.DataFrame, image_ids: dict[str, int], class_ids: dict[str, int]
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
            "Predict on the images of the version that is the truth."
        )
    numbers = predictions[[*BOX_COLUMNS, "score"]].to_numpy(dtype=float)
    if not np.isfinite(numbers).all():
        raise DataError("a prediction's box or score is not a number. Predict again.")
