"""The held-out images, on which no model was trained, and their predictions."""

import numpy as np
import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.images.accepted import accepted_images
from annotation_platform.models.predictions import ImagePredictions, predict_pool
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.policy import Policy
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import (
    CleanedImages,
    ModelPredictions,
    PredictedImages,
    SelectedImages,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import Split
from annotation_platform.storage.lake import Lake

_PREDICTED = 300
"""Held-out images that the predicting model is run on."""
_LEAST_SAMPLED = 30
"""Least held-out images of random samples for a comparison with these alone."""


def predict_held_out(
    context: RoundContext, predicted: pd.DataFrame, registry: ModelRegistry
) -> ImagePredictions:
    """Return the predictions of a round's model for images that it was not trained on.

    They are images of earlier rounds, in the val or test split: at most 300 of those that a round
    is compared with (``reference_images``), and 300 of all, where these are more. If the registry
    no longer has the model, the current one predicts. Before the first model the result is empty.

    Args:
        context: of the round.
        predicted: its ``predicted_images``.
        registry: of the model.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    held_out = held_out_images(round_id, known_before(round_id, lake, policy), lake)
    reference = reference_images(round_id, held_out, lake)
    seed = [policy.seed, round_number(round_id)]
    drawn = [
        each.sample(min(len(each), _PREDICTED), random_state=np.random.default_rng(seed))
        for each in (reference, held_out)
    ]
    return predict_pool(
        registry,
        pd.concat(drawn).drop_duplicates("image_id").sort_values("image_id"),
        lake.image_path,
        round_id=round_id,
        policy=policy,
        weights=predicted[PredictedImages.weights].iloc[0].split(",") if len(predicted) else (),
    )


def known_before(round_id: str, lake: Lake, policy: Policy) -> pd.DataFrame:
    """Return the accepted images of earlier rounds, without those of held rounds."""
    accepted = accepted_images(lake.tables)
    held = held_rounds(lake.tables, policy.drift.gate)
    return accepted[
        (accepted[CleanedImages.round_id] < round_id) & ~accepted[CleanedImages.round_id].isin(held)
    ]


def held_out_images(round_id: str, images: pd.DataFrame, lake: Lake) -> pd.DataFrame:
    """Return those of the images that no model was trained on, sorted by image id."""
    before = last_training_round(lake, round_id)
    if not before:
        return images.iloc[:0]
    last = lake.tables.read_columns(TrainingSet, before, [TrainingSet.image_id, TrainingSet.split])
    is_held_out = last[TrainingSet.split] != Split.TRAIN
    held_out = last.loc[is_held_out, TrainingSet.image_id].unique()
    return images[images[CleanedImages.image_id].isin(held_out)].sort_values("image_id")


def reference_images(round_id: str, images: pd.DataFrame, lake: Lake) -> pd.DataFrame:
    """Return those of the images whose predictions a round's predictions are compared with.

    They are the images of the val and test splits, sorted by image id. If at least thirty of them
    were drawn for the random sample of an earlier round, only these: they are a random sample of
    the arrivals, while the rules of selection prefer the others.
    """
    held_out = held_out_images(round_id, images, lake)
    before = [key for key in lake.tables.rounds(SelectedImages) if key < round_id]
    selected = lake.tables.read_rounds(SelectedImages, before)
    drawn = selected.loc[selected[SelectedImages.calibration_sample], SelectedImages.image_id]
    audited = held_out[held_out[CleanedImages.image_id].isin(drawn)]
    return audited if len(audited) >= _LEAST_SAMPLED else held_out


def last_training_round(lake: Lake, round_id: str) -> str:
    """Return the last round before a round that has a training set; empty if there is none."""
    return max((key for key in lake.tables.rounds(TrainingSet) if key < round_id), default="")


def rows_of(rows: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """Return the rows about these images."""
    return rows[rows["image_id"].isin(images["image_id"])]


def of_ontology(predictions: pd.DataFrame, policy: Policy) -> pd.DataFrame:
    """Return the predictions of classes in the ontology, without those used only for masking."""
    return predictions[predictions[ModelPredictions.class_name].isin(policy.ontology.names)]
