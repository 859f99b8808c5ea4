"""The drift of a round: how its images differ from the known ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.curation.drift import Drift, DriftSample, measure_drift
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import ImageEmbedder, features_for
from annotation_platform.models.predictions import ImagePredictions
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.held_out import (
    known_before,
    of_ontology,
    predict_held_out,
    reference_images,
    rows_of,
)
from annotation_platform.pipeline.result import Result, TableRows, Thumbnails
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import (
    BatchDrift,
    CleanedImages,
    Frame,
    HeldOutImages,
    HeldOutPredictions,
    ModelPredictions,
    OutlierImages,
    PredictedImages,
)
from annotation_platform.schema.tables.shared import Outcome


@dataclass(frozen=True, kw_only=True)
class DriftFound(Result):
    """The drift of a round, and the predictions for held-out images that it is measured with.

    The predictions are stored for ``find_issues``: predicting again would keep annotators waiting.
    """

    batch_drift: Frame[BatchDrift]
    outlier_images: Frame[OutlierImages]
    held_out_predictions: Frame[HeldOutPredictions]
    held_out_images: Frame[HeldOutImages]


def detect_drift(
    context: RoundContext,
    cleaned_images: Frame[CleanedImages],
    model_predictions: Frame[ModelPredictions],
    predicted_images: Frame[PredictedImages],
    models: ModelRegistry,
) -> DriftFound:
    """Return how the images of the round differ from the known images."""
    held_out = predict_held_out(context, predicted_images, models)
    drift = _drift_of_round(context, model_predictions, predicted_images, held_out)
    accepted = cleaned_images[cleaned_images[CleanedImages.outcome] == Outcome.ACCEPTED]
    effects = dict(zip(drift.features["feature"], drift.features["effect"], strict=True))
    shown = drift.outliers.merge(accepted.drop(columns="round_id"))
    return DriftFound(
        batch_drift=drift.features,
        outlier_images=drift.outliers,
        held_out_predictions=held_out.predictions,
        held_out_images=held_out.images,
        figures={
            "drifted": ", ".join(drift.drifted),
            "summary": drift.sentence,
            "outlier_images": len(drift.outliers),
            "held_out_images_predicted": len(held_out.images),
            **{f"effect_{name}": float(effect) for name, effect in effects.items()},
            "features": TableRows(drift.features, ["feature", "effect", "p_value", "detail"]),
            "outliers": TableRows(drift.outliers, ["image_id", "distance", "reason"]),
            "preview": Thumbnails(shown, model_predictions),
        },
    )


def _drift_of_round(
    context: RoundContext,
    predictions: pd.DataFrame,
    predicted: pd.DataFrame,
    held_out: ImagePredictions,
) -> Drift:
    """Return how the accepted images of a round differ from those of all earlier rounds.

    Objects and classes are compared by predictions on both sides: labels would differ from
    predictions without any drift. So the reference is predicted by the same model, on images of the
    val and test splits, which it was not trained on either; where there are enough, only on those
    drawn for the random sample, because selection prefers certain images. Before the first model
    these two features are left out. Held rounds are not part of the reference.

    Args:
        context: of the round.
        predictions: its ``model_predictions``.
        predicted: its ``predicted_images``.
        held_out: the result of ``predict_held_out``.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    rng = np.random.default_rng([policy.seed, round_number(round_id)])
    accepted = accepted_images(lake.tables)
    ours = accepted[accepted[CleanedImages.round_id] == round_id]
    theirs = known_before(round_id, lake, policy)
    compared = reference_images(round_id, theirs, lake)
    vectors = features_for(
        pd.concat([ours, theirs]),
        ImageEmbedder(),
        store=lake.store,
        load=lake.image,
        round_id=round_id,
    )
    return measure_drift(
        DriftSample(
            ours,
            rows_of(vectors, ours),
            _weighted(of_ontology(rows_of(predictions, ours), policy)),
            _predicted(predicted, ours),
        ),
        DriftSample(
            theirs,
            rows_of(vectors, theirs),
            _weighted(of_ontology(rows_of(held_out.predictions, compared), policy)),
            _predicted(held_out.images, compared),
        ),
        round_id=round_id,
        rng=rng,
        level=policy.drift.level,
        minimum_effect=policy.drift.minimum_effect,
    )


def _predicted(predicted: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    return sorted(set(predicted[PredictedImages.image_id]) & set(images[CleanedImages.image_id]))


def _weighted(predictions: pd.DataFrame) -> pd.DataFrame:
    return predictions[["image_id", "class_name"]].assign(weight=predictions["score"])
