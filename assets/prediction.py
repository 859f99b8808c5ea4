"""Embeddings, predictions and drift of the images before annotation."""

import dagster as dg

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.detect_drift import detect_drift
from annotation_platform.pipeline.embed import embed
from annotation_platform.pipeline.predict import predict
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import (
    CleanedImages,
    Frame,
    ModelPredictions,
    PredictedImages,
)
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized


@tables_made("image_embeddings", group="prediction", kinds={"scipy"}, code_version="2")
def image_embeddings(
    context: dg.AssetExecutionContext,
    cleaned_images: Frame[CleanedImages],
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """A vector for each accepted image: similar images have vectors close to each other."""
    return materialized(embed(round_context(context, lake, policy), cleaned_images, models), lake)


@tables_made(
    "model_predictions",
    "predicted_images",
    group="prediction",
    kinds={"pytorch"},
    code_version="2",
    reads=["cleaned_images", "imported_labels"],
    pool="gpu",
)
def model_predictions(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """Predictions of the promoted model for the images that no round has selected yet."""
    return materialized(predict(round_context(context, lake, policy), models), lake)


@tables_made(
    "batch_drift",
    "odd_images",
    "held_out_predictions",
    "held_out_images",
    group="prediction",
    kinds={"scipy"},
    code_version="2",
    pool="gpu",
)
def batch_drift(
    context: dg.AssetExecutionContext,
    cleaned_images: Frame[CleanedImages],
    model_predictions: Frame[ModelPredictions],
    predicted_images: Frame[PredictedImages],
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The differences between the round's images and the known images, by feature."""
    round_ = round_context(context, lake, policy)
    tables = cleaned_images, model_predictions, predicted_images
    return materialized(detect_drift(round_, *tables, models), lake)
