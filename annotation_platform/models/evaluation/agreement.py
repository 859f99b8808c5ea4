"""Agreement of a model's predictions with the later annotations of the same images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.models.evaluation.findings import matched_images
from annotation_platform.models.evaluation.matches import (
    CONFIDENCE,
    draw_images,
    f1_scores,
    interval,
)
from annotation_platform.models.shown_predictions import shown_predictions
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS, CLASSIFICATIONS, UPRIGHT_BOXES
from annotation_platform.schema.tables import (
    ConsensusLabels,
    Frame,
    HumanLabels,
    ModelAgreement,
    ModelPredictions,
)

ALL_CLASSES = ""
_SEED = 20_140_501
_EARLIER_ROUNDS = 3


@dataclass(frozen=True)
class AgreementDrop:
    """The last round's agreement compared with that of the rounds before it."""

    dropped: bool  # beyond chance
    difference: float  # last F1 less the mean of the earlier ones; NaN: nothing to compare
    sentence: str


def model_agreement(
    round_id: str,
    predictions: Frame[ModelPredictions],
    consensus_labels: Frame[ConsensusLabels],
    human_labels: Frame[HumanLabels],
    *,
    ontology: Ontology,
    minimum_score: float,
) -> Frame[ModelAgreement]:
    """Return the ``model_agreement`` of a round: F1 at IoU 0.5 by class, with its interval.

    A classification agrees if the class is the same; where one class holds, the most probable one
    is the prediction. Annotators tend to agree with pre-annotations that they see. So annotations
    made ``without_predictions`` are compared separately, each by itself: their figure measures the
    model alone.

    Args:
        round_id: written in each row.
        predictions: ``model_predictions`` of the round.
        consensus_labels: of the round; every image in it is compared, those without objects too.
        human_labels: of the round; only annotations without predictions of ordinary tasks are used.
        ontology: its classes are compared one by one.
        minimum_score: predictions below it were not shown and do not count.
    """
    without_predictions = human_labels[
        human_labels[HumanLabels.without_predictions]
        & (human_labels[HumanLabels.purpose] == "label")
    ]
    # Each of these annotations counts as an image of its own, with the image's predictions.
    annotation_id, image_id = HumanLabels.annotation_id, HumanLabels.image_id
    annotated = without_predictions[[annotation_id, image_id]].drop_duplicates()
    repeated = predictions.merge(annotated, on=image_id).assign(image_id=lambda t: t[annotation_id])
    parts = {
        "consensus": (consensus_labels, predictions),
        "without_predictions": (
            without_predictions.assign(image_id=without_predictions[annotation_id]),
            repeated,
        ),
    }
    weights = str(predictions[ModelPredictions.weights_sha256].iloc[0]) if len(predictions) else ""
    rows = [
        {"round_id": round_id, "annotations": annotations, "weights_sha256": weights, **row}
        for annotations, (labels, predicted) in parts.items()
        for row in _by_class(labels, predicted, ontology, minimum_score)
    ]
    return ModelAgreement.from_rows(rows)


def agreement_drop(
    history: Frame[ModelAgreement], *, annotations: str = "consensus"
) -> AgreementDrop:
    """Return whether the last round's F1 over all classes fell below that of the earlier rounds.

    It is compared with the mean of up to three earlier rounds by a one-sided normal test at 0.05,
    whose standard errors come from the intervals. The cause of a drop may be the images, the
    annotators or the model; the slices and findings of the round show which.

    Args:
        history: ``model_agreement`` of several rounds.
        annotations: ``consensus`` or ``without_predictions``.
    """
    table = ModelAgreement
    overall = history[table.class_name] == ALL_CLASSES
    own = history[overall & (history[table.annotations] == annotations)]
    columns = [table.f1, table.f1_low, table.f1_high]
    own = own.dropna(subset=columns).sort_values(table.round_id)
    if len(own) < 2:
        sentence = f"{len(own)} rounds with predictions and annotations; a comparison needs two."
        return AgreementDrop(False, math.nan, sentence)
    from scipy.special import ndtri

    width = 2 * float(ndtri((1 + CONFIDENCE) / 2))
    values, low, high = own[columns].to_numpy(dtype=np.float64).T
    errors = (high - low) / width
    before = slice(max(0, len(own) - 1 - _EARLIER_ROUNDS), len(own) - 1)
    mean = float(values[before].mean())
    error = math.hypot(errors[-1], math.sqrt((errors[before] ** 2).sum()) / len(errors[before]))
    difference = float(values[-1]) - mean
    dropped = difference < -float(ndtri(CONFIDENCE)) * error
    verdict = "a drop beyond chance" if dropped else "no drop beyond chance"
    sentence = (
        f"{own[table.round_id].iloc[-1]}: F1 {values[-1]:.3f} between predictions and annotators, "
        f"{mean:.3f} on average in the {len(errors[before])} rounds before: {verdict}."
    )
    return AgreementDrop(dropped, difference, sentence)


def _by_class(
    labels: pd.DataFrame, predictions: pd.DataFrame, ontology: Ontology, minimum_score: float
) -> Iterator[dict[str, object]]:
    """Yield the counts and F1 of all classes together, and of each that occurs on either side."""
    image_ids = sorted(set(labels["image_id"]))
    if not image_ids:
        return
    images = pd.DataFrame({"image_id": image_ids}).reindex(columns=IMAGE_COLUMNS)
    boxes = labels.loc[labels["shape"].isin(AREAS), LABEL_COLUMNS]
    shown = shown_predictions(predictions, ontology, minimum_score=minimum_score)
    names = list(ontology.names)
    counts = np.zeros((len(image_ids), len(names), 3), dtype=np.int64)
    column = {name: number for number, name in enumerate(names)}
    predicted = shown[shown["shape"].isin(UPRIGHT_BOXES)]
    per_image = matched_images(Dataset(images, boxes, ontology), predicted, minimum_score)
    for number, image in enumerate(per_image):
        for name, found in zip(image.found_classes, image.match >= 0, strict=True):
            if name in column:
                counts[number, column[name], :2] += (int(found), 1)
        for name in image.classes:
            if name in column:
                counts[number, column[name], 2] += 1
    _count_classifications(counts, image_ids, column, shown, labels)
    yield _counted(ALL_CLASSES, counts.sum(axis=1))
    for name in names:
        if counts[:, column[name], 1:].any():
            yield _counted(name, counts[:, column[name]])


def _count_classifications(
    counts: npt.NDArray[np.int64],
    image_ids: list[str],
    column_of: dict[str, int],
    shown: pd.DataFrame,
    labels: pd.DataFrame,
) -> None:
    """Add the matched, predicted and labelled classifications of each image to ``counts``."""
    row = {image_id: number for number, image_id in enumerate(image_ids)}
    predicted, labelled = (
        {
            (row[image_id], column_of[name])
            for image_id, name in rows[["image_id", "class_name"]].itertuples(index=False)
            if image_id in row and name in column_of
        }
        for rows in (each[each["shape"].isin(CLASSIFICATIONS)] for each in (shown, labels))
    )
    for column, cells in enumerate((predicted & labelled, predicted, labelled)):
        for cell in cells:
            counts[*cell, column] += 1


def _counted(name: str, counts: npt.NDArray[np.int64]) -> dict[str, object]:
    """Return the row of a class from the matched, predicted and labelled objects of each image."""
    matched, predicted, labels = (int(one) for one in counts.sum(axis=0))
    weights = draw_images(len(counts), np.random.default_rng(_SEED))
    drawn = weights @ counts
    f1 = f1_scores(counts.sum(axis=0)[None])[0]
    found = interval(f1, f1_scores(drawn), images=len(counts))
    return {
        "class_name": name,
        "images": len(counts),
        "predictions": predicted,
        "labels": labels,
        "matched": matched,
        "f1": found.value,
        "f1_low": found.low,
        "f1_high": found.high,
    }
