"""Predictions and audits as the units of a certificate: an image with all its predicted labels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.matching import match_boxes
from annotation_platform.curation.certificates import Units
from annotation_platform.schema.geometry import BOX_COLUMNS, Boxes, FloatArray, as_boxes
from annotation_platform.schema.tables import ModelPredictions

_SAME = 0.5


@dataclass(frozen=True)
class Audit:
    """Images drawn at random from the pool, and their labels annotated without predictions.

    Attributes:
        images: image ids in the order in which they were drawn.
        labels: ``image_id``, ``class_name`` and a box for each label. An image in which annotators
            found no object has no row, or one row without a class.
    """

    images: Sequence[str]
    labels: pd.DataFrame


def expected_units(
    predictions: pd.DataFrame,
    images: Sequence[str],
    classes: Sequence[str],
    *,
    minimum_probability: float,
) -> Units:
    """Return images as units, with the errors that the probabilities of their predictions imply.

    A prediction of at least ``minimum_probability`` would become a label, and is wrong with one
    minus its probability. A prediction below it is a missed object with its probability. The
    confidence is one minus expected errors by labels: of all orders, this one accepts most labels
    at a given share of errors. An image without a label, or with a probability that is not a
    number, has no confidence and is never accepted.
    """
    own = predictions[predictions[ModelPredictions.image_id].isin(set(images))]
    probability = own[ModelPredictions.score].to_numpy(dtype=np.float64)
    is_label = probability >= minimum_probability
    labels = _counted(own, is_label.astype(np.float64), images, classes)
    errors = _counted(own, np.where(is_label, 1.0 - probability, probability), images, classes)
    size = labels.sum(axis=1)
    with np.errstate(invalid="ignore"):
        confidence = 1.0 - errors.sum(axis=1) / np.where(size > 0, size, np.nan)
    return Units(confidence, labels, errors)


def audited_units(
    predictions: pd.DataFrame, audit: Audit, classes: Sequence[str], *, minimum_probability: float
) -> Units:
    """Return the audited images as units, with the errors that the audit found.

    A predicted label is right if an audit label of its class overlaps it with an IoU of 0.5 or
    more, one predicted label for each object. Audit labels without a match are missed objects; an
    object with another class or location counts as a wrong label and as a missed object. Missed
    objects of a class that the model never predicts count with the first class.
    """
    images = list(dict.fromkeys(audit.images))
    units = expected_units(predictions, images, classes, minimum_probability=minimum_probability)
    likely = predictions[predictions[ModelPredictions.score] >= minimum_probability]
    truth = audit.labels[audit.labels[ModelPredictions.class_name].notna()]
    predicted, annotated = _boxes_by_class(likely), _boxes_by_class(truth)
    row = {image: number for number, image in enumerate(images)}
    column = {name: number for number, name in enumerate(classes)}
    errors = np.zeros((len(images), len(classes)))
    for image, name in sorted({*predicted, *annotated}):
        if image not in row or not classes:
            continue
        ours, theirs = (each.get((image, name), as_boxes([])) for each in (predicted, annotated))
        right = len(match_boxes(ours, theirs, iou_threshold=_SAME))
        errors[row[image], column.get(name, 0)] += len(ours) + len(theirs) - 2 * right
    return Units(units.confidence, units.labels, errors)


def _boxes_by_class(rows: pd.DataFrame) -> dict[tuple[str, str], Boxes]:
    groups = rows.groupby([ModelPredictions.image_id, ModelPredictions.class_name])
    return {(str(key[0]), str(key[1])): as_boxes(its[BOX_COLUMNS]) for key, its in groups}


def _counted(
    rows: pd.DataFrame, weights: FloatArray, images: Sequence[str], classes: Sequence[str]
) -> FloatArray:
    """Return ``(N, K)``: the sum of the weights by image and class."""
    table = np.zeros((len(images), len(classes)))
    image = pd.Index(images).get_indexer(pd.Index(rows[ModelPredictions.image_id]))
    class_ = pd.Index(classes).get_indexer(pd.Index(rows[ModelPredictions.class_name]))
    np.add.at(table, (image, class_), weights)
    return table
