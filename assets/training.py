"""The models that are trained on a version and predict in the next round."""

import dagster as dg

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.evaluate import evaluate
from annotation_platform.pipeline.train import train
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import DatasetVersions, Frame, TrainedModels, TrainingSet
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized


@tables_made("trained_model", group="training", kinds={"pytorch"}, code_version="3", pool="gpu")
def trained_model(
    context: dg.AssetExecutionContext,
    training_set: Frame[TrainingSet],
    dataset_version: Frame[DatasetVersions],
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The detector and classifier trained on the train split of the round's version."""
    round_ = round_context(context, lake, policy)
    return materialized(train(round_, training_set, dataset_version, models), lake)


@tables_made(
    "model_evaluation",
    "model_slices",
    "model_findings",
    "missed_by_model",
    "choice_figures",
    "model_agreement",
    group="training",
    kinds={"pytorch"},
    code_version="3",
    reads=["cleaned_images", "model_predictions", "consensus_labels", "human_labels"],
    pool="gpu",
)
def model_evaluation(
    context: dg.AssetExecutionContext,
    trained_model: Frame[TrainedModels],
    training_set: Frame[TrainingSet],
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The quality of the models on the test split, and whether they are promoted."""
    round_ = round_context(context, lake, policy)
    return materialized(evaluate(round_, trained_model, training_set, models), lake)
