"""Error analysis of a round's model: weak slices, findings, and missed boxes."""

import hashlib
from dataclasses import dataclass

from annotation_platform.models.evaluation.findings import missed_boxes, model_errors
from annotation_platform.models.evaluation.slices import slice_figures, slice_members
from annotation_platform.models.loop import EvaluatedRound
from annotation_platform.models.network_inputs import ImagePath
from annotation_platform.models.predictions import predict_pool
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.shapes import UPRIGHT_BOXES
from annotation_platform.schema.tables import (
    CleanedImages,
    Frame,
    MissedByModel,
    ModelErrors,
    ModelPredictions,
    ModelSlices,
    TrainingSet,
)

MOST_TRAIN_IMAGES = 2000
"""Largest number of train images that are searched for missed boxes: some ten seconds."""
_KNOWN = [TrainingSet.image_id, TrainingSet.round_id, TrainingSet.source, TrainingSet.device]
_MEASURED = [CleanedImages.image_id, CleanedImages.brightness, CleanedImages.sharpness]


@dataclass(frozen=True)
class ErrorAnalysis:
    """The three tables of the error analysis of a round's model."""

    slices: Frame[ModelSlices]
    findings: Frame[ModelErrors]
    missed: Frame[MissedByModel]


def analyze_errors(
    round_id: str,
    evaluated: EvaluatedRound,
    training_set: Frame[TrainingSet],
    images: Frame[CleanedImages],
    *,
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
) -> ErrorAnalysis:
    """Return the model's weak slices and errors on the test split, and its misses on the train one.

    Findings are predictions whose own, uncalibrated score is ``labeling.minimum_score`` or above.
    Missed boxes of the train split are those of the promoted model, even if that is not the
    round's; a large split is sampled to ``MOST_TRAIN_IMAGES`` images by their ids, always the same.

    Args:
        round_id: written in each row.
        evaluated: result of ``evaluate_round``.
        training_set: of the round.
        images: ``cleaned_images`` of them, for brightness and sharpness.
        registry: holds the models.
        image_path: returns the file of an image, given its id and extension.
        policy: ontology, and the lowest score of pre-annotations.
    """
    missed = _missed(round_id, training_set, registry, image_path, policy)
    if evaluated.evaluation is None:
        return ErrorAnalysis(ModelSlices.empty(), ModelErrors.empty(), missed)
    test = training_set[training_set[TrainingSet.split] == "test"]
    truth = Dataset.from_training_set(test, policy.ontology).boxes()
    key = TrainingSet.image_id
    facts = test[_KNOWN].drop_duplicates(key)
    facts = facts.merge(images[_MEASURED].drop_duplicates(key), on=key, how="left")
    slices = slice_figures(
        round_id,
        evaluated.evaluation.coco,
        image_ids=sorted(facts[key]),
        class_names=dict(enumerate(evaluated.per_class, start=1)),
        members=slice_members(facts),
    )
    minimum = policy.labeling.minimum_score
    findings = model_errors(round_id, truth, evaluated.predictions, minimum_score=minimum)
    return ErrorAnalysis(slices, findings, missed)


def _missed(
    round_id: str,
    training_set: Frame[TrainingSet],
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
) -> Frame[MissedByModel]:

    promoted = registry.promoted()
    train = training_set[training_set[TrainingSet.split] == "train"]
    ids = set(train[TrainingSet.image_id])
    sample = sorted(ids, key=lambda one: hashlib.sha256(one.encode()).digest())
    train = train[train[TrainingSet.image_id].isin(sample[:MOST_TRAIN_IMAGES])]
    if promoted is None or train.empty:
        return MissedByModel.empty()
    pool = train.drop_duplicates(TrainingSet.image_id)
    predicted = predict_pool(registry, pool, image_path, round_id=round_id, policy=policy)
    found = predicted.predictions
    return missed_boxes(
        round_id,
        promoted,
        Dataset.from_training_set(train, policy.ontology).boxes(),
        found[found[ModelPredictions.shape].isin(UPRIGHT_BOXES)],
        minimum_score=policy.labeling.minimum_score,
    )
