"""What is told of a round's model beside its evaluation: slices, findings, and what it misses."""

import hashlib
from dataclasses import dataclass

import pandas as pd

from annotation_platform.models.evaluation.findings import missed_boxes, model_findings
from annotation_platform.models.evaluation.slices import slice_figures, slice_members
from annotation_platform.models.loop import EvaluatedRound
from annotation_platform.models.network_inputs import ImagePath
from annotation_platform.models.predictions import propose
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.shapes import UPRIGHT_BOXES
from annotation_platform.schema.tables import Frame, MissedByModel, ModelFindings, ModelSlices

MOST_TRAIN_IMAGES = 2000
"""So many images of the train split are looked at for what is missed: some ten seconds."""
_KNOWN = ["image_id", "round_id", "source", "device"]
_MEASURED = ["image_id", "brightness", "sharpness"]


@dataclass(frozen=True)
class ErrorAnalysis:
    """Three tables about a round's model."""

    slices: Frame[ModelSlices]
    findings: Frame[ModelFindings]
    missed: Frame[MissedByModel]


def examine_round(
    round_id: str,
    evaluated: EvaluatedRound,
    training_set: pd.DataFrame,
    images: pd.DataFrame,
    *,
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
) -> ErrorAnalysis:
    """Return where the round's model is weak on the test split and what it gets wrong there.

    Findings are told of what the model's own, uncalibrated scores put at ``labeling.minimum_score``
    or above. What is missed of the train
    split is told of the promoted model, whichever that is now; of a large split
    ``MOST_TRAIN_IMAGES`` are looked at, drawn by their ids, the same ones every time.

    Args:
        round_id: written beside each row.
        evaluated: what ``evaluate_round`` returned.
        training_set: of the round.
        images: ``cleaned_images`` rows of them, for brightness and sharpness.
        registry: where the models are.
        image_path: gives the file of an image for its id and extension.
        policy: ontology, and from which score on proposals are shown.
    """
    missed = _missed(round_id, training_set, registry, image_path, policy)
    if evaluated.evaluation is None:
        return ErrorAnalysis(ModelSlices.empty(), ModelFindings.empty(), missed)
    test = training_set[training_set["split"] == "test"]
    truth = Dataset.from_training_set(test, policy.ontology).boxes()
    facts = test[_KNOWN].drop_duplicates("image_id")
    facts = facts.merge(images[_MEASURED].drop_duplicates("image_id"), on="image_id", how="left")
    slices = slice_figures(
        round_id,
        evaluated.evaluation.coco,
        image_ids=sorted(facts["image_id"]),
        class_names=dict(enumerate(evaluated.per_class, start=1)),
        members=slice_members(facts),
    )
    minimum = policy.labeling.minimum_score
    findings = model_findings(round_id, truth, evaluated.predictions, minimum_score=minimum)
    return ErrorAnalysis(slices, findings, missed)


def _missed(
    round_id: str,
    training_set: pd.DataFrame,
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
) -> pd.DataFrame:
    promoted = registry.promoted()
    train = training_set[training_set["split"] == "train"]
    ids = sorted(set(train["image_id"]), key=lambda one: hashlib.sha256(one.encode()).digest())
    train = train[train["image_id"].isin(ids[:MOST_TRAIN_IMAGES])]
    if promoted is None or train.empty:
        return MissedByModel.empty()
    pool = train.drop_duplicates("image_id")
    proposals = propose(registry, pool, image_path, round_id=round_id, policy=policy)
    found = proposals.predictions
    return missed_boxes(
        round_id,
        promoted,
        Dataset.from_training_set(train, policy.ontology).boxes(),
        found[found["shape"].isin(UPRIGHT_BOXES)],
        minimum_score=policy.labeling.minimum_score,
    )
