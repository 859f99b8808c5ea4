"""Predictions of the promoted model for the images that can still be selected."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.models.predictions import predict_pool
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.models.shown_predictions import shown_predictions
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import BarChart, Result, Thumbnails
from annotation_platform.pipeline.selectable import selectable_images
from annotation_platform.schema.shapes import CLASSIFICATIONS, UPRIGHT_BOXES
from annotation_platform.schema.tables import Frame, ModelPredictions, PredictedImages


@dataclass(frozen=True, kw_only=True)
class Predicted(Result):
    """The predictions of a round, and the images that the model was run on."""

    model_predictions: Frame[ModelPredictions]
    predicted_images: Frame[PredictedImages]


def selection_pool(context: RoundContext) -> pd.DataFrame:
    """Return the accepted images that the round can select; see ``selectable_images``."""
    policy = context.policy
    return selectable_images(
        context.round_id,
        context.lake,
        policy.ontology,
        annotate_imported=policy.labeling.annotate_imported,
        held=held_rounds(context.tables, policy.drift.gate),
    )


def predict(context: RoundContext, models: ModelRegistry) -> Predicted:
    """Return the predictions of the promoted model for the images the round can select."""
    policy = context.policy
    pool = selection_pool(context)
    output = predict_pool(
        models, pool, context.lake.image_path, round_id=context.round_id, policy=policy
    )
    predictions, predicted = output.predictions, output.images
    least = policy.labeling.minimum_score
    shown = shown_predictions(predictions, policy.ontology, minimum_score=least)
    return Predicted(
        model_predictions=predictions,
        predicted_images=predicted,
        figures={
            "boxes": int(predictions[ModelPredictions.shape].isin(UPRIGHT_BOXES).sum()),
            "boxes_shown": int(shown[ModelPredictions.shape].isin(UPRIGHT_BOXES).sum()),
            "classifications_shown": int(shown[ModelPredictions.shape].isin(CLASSIFICATIONS).sum()),
            "images": len(pool),
            "images_without_predictions": int((predicted[PredictedImages.predictions] == 0).sum()),
            "dropped_outputs": int(predicted[PredictedImages.dropped].sum()),
            "passes": int(predicted[PredictedImages.passes].sum()),
            "seconds": float(predicted[PredictedImages.seconds].sum()),
            "model": output.model,
            "scores": output.scores,
            "classes": BarChart(shown[ModelPredictions.class_name]),
            "preview": Thumbnails(pool, shown, policy.ontology),
        },
    )
