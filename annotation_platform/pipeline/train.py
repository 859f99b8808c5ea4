"""The training of a round's models on its version."""

from dataclasses import dataclass

from annotation_platform.models.evaluation.findings import image_weights
from annotation_platform.models.kinds import TrainingInputs
from annotation_platform.models.loop import train_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Result, TableRows
from annotation_platform.schema.tables import (
    DatasetVersions,
    Frame,
    MissedByModel,
    TrainedModels,
    TrainingSet,
)

_SHOWN = ["dataset_tag", "weights_sha256", "classifier_sha256", "started_from"]


@dataclass(frozen=True, kw_only=True)
class Trained(Result):
    """The models of a round, whose weights are in the registry."""

    trained_model: Frame[TrainedModels]


def train(
    context: RoundContext,
    training_set: Frame[TrainingSet],
    dataset_version: Frame[DatasetVersions],
    models: ModelRegistry,
) -> Trained:
    """Train on the train split, with more weight on images where the last model missed objects."""
    last = context.before(MissedByModel)[-1:]
    missed = context.tables.read_rounds(MissedByModel, last)
    trained = train_round(
        context.round_id,
        TrainingInputs(
            training_set,
            dataset_tag=str(dataset_version[DatasetVersions.tag].iloc[0]),
            image_path=context.lake.image_path,
            policy=context.policy,
        ),
        registry=models,
        report=context.report,
        weights=image_weights(missed),
    )
    row = trained.iloc[0]
    return Trained(
        trained_model=trained,
        data_version="-".join(
            filter(None, [row[TrainedModels.weights_sha256], row[TrainedModels.classifier_sha256]])
        ),
        figures={
            "train_images": int(row[TrainedModels.train_images]),
            "images_with_more_weight": missed[MissedByModel.image_id].nunique(),
            "epochs": float(row[TrainedModels.epochs]),
            "steps": int(row[TrainedModels.steps]),
            "ended_by": str(row[TrainedModels.ended_by]),
            "cpu_seconds": float(row[TrainedModels.cpu_seconds]),
            "final_loss": float(row[TrainedModels.final_loss]),
            "calibration_images": int(row[TrainedModels.calibration_images]),
            "calibration_error_before": float(row[TrainedModels.calibration_error_before]),
            "calibration_error": float(row[TrainedModels.calibration_error]),
            "classified_images": int(row[TrainedModels.classifier_images]),
            "classification_error_before": float(row[TrainedModels.classifier_error_before]),
            "classification_error": float(row[TrainedModels.classifier_error]),
            "dataset_tag": str(row[TrainedModels.dataset_tag]),
            "preview": TableRows(trained, _SHOWN),
        },
    )
