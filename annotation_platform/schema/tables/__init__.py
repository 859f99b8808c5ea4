"""Every table of the lake: one class each, with its columns, types, units and ranges.

``docs/reference/tables.md`` lists them all. ``table.py`` says what a class declares.
"""

import pandas as pd

from annotation_platform.errors import TableError
from annotation_platform.schema.tables.annotations import Annotations
from annotation_platform.schema.tables.annotators import AnnotatorPace, AnnotatorQuality
from annotation_platform.schema.tables.auto_labels import AutoLabels
from annotation_platform.schema.tables.certificates import CertificateRechecks, Certificates
from annotation_platform.schema.tables.classification_figures import ClassificationFigures
from annotation_platform.schema.tables.cleaned_images import CleanedImages
from annotation_platform.schema.tables.conflicts import Conflicts
from annotation_platform.schema.tables.consensus_labels import ConsensusLabels
from annotation_platform.schema.tables.dataset_versions import DatasetVersions
from annotation_platform.schema.tables.drift import BatchDrift, OutlierImages
from annotation_platform.schema.tables.error_bars import ErrorBars
from annotation_platform.schema.tables.human_labels import HumanLabels
from annotation_platform.schema.tables.image_embeddings import ImageEmbeddings
from annotation_platform.schema.tables.imported_labels import ImportedLabels
from annotation_platform.schema.tables.label_issues import LabelIssues
from annotation_platform.schema.tables.model_agreement import ModelAgreement
from annotation_platform.schema.tables.model_errors import MissedByModel, ModelErrors
from annotation_platform.schema.tables.model_evaluations import ModelEvaluations
from annotation_platform.schema.tables.model_slices import ModelSlices
from annotation_platform.schema.tables.predictions import (
    HeldOutImages,
    HeldOutPredictions,
    ModelPredictions,
    PredictedImages,
)
from annotation_platform.schema.tables.raw_images import RawImages
from annotation_platform.schema.tables.reviews import ReviewedLabels, ReviewTasks
from annotation_platform.schema.tables.round_reports import RoundReports
from annotation_platform.schema.tables.selected_images import CalibrationFrame, SelectedImages
from annotation_platform.schema.tables.splits import Splits
from annotation_platform.schema.tables.table import Column, Frame, Table
from annotation_platform.schema.tables.tasks import LabelTasks, RoundTasks
from annotation_platform.schema.tables.trained_models import TrainedModels
from annotation_platform.schema.tables.training_set import TrainingRounds, TrainingSet

TABLES: dict[str, type[Table]] = {
    each.table_name: each
    for each in (
        RawImages,
        CleanedImages,
        ImportedLabels,
        ImageEmbeddings,
        ModelPredictions,
        PredictedImages,
        HeldOutPredictions,
        HeldOutImages,
        BatchDrift,
        OutlierImages,
        SelectedImages,
        CalibrationFrame,
        LabelTasks,
        HumanLabels,
        Annotations,
        RoundTasks,
        AnnotatorQuality,
        AnnotatorPace,
        ConsensusLabels,
        Conflicts,
        ReviewTasks,
        ReviewedLabels,
        TrainingSet,
        Certificates,
        CertificateRechecks,
        AutoLabels,
        LabelIssues,
        ErrorBars,
        Splits,
        TrainingRounds,
        DatasetVersions,
        TrainedModels,
        ModelEvaluations,
        ClassificationFigures,
        ModelSlices,
        ModelErrors,
        MissedByModel,
        ModelAgreement,
        RoundReports,
    )
}
"""Every table by its name, in the order of the work."""


def table_named(name: str) -> type[Table]:
    """Return the table that has this name, or had it in an older release.

    For names that are data: assets, lineage, SQL, commands. An unknown one is a TableError.
    """
    for table in TABLES.values():
        if name == table.table_name or name in table.old_names:
            return table
    raise TableError(f"there is no table {name}. docs/reference/tables.md lists them.")


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


__all__ = [
    "TABLES",
    "Annotations",
    "AnnotatorPace",
    "AnnotatorQuality",
    "AutoLabels",
    "BatchDrift",
    "CalibrationFrame",
    "CertificateRechecks",
    "Certificates",
    "ClassificationFigures",
    "CleanedImages",
    "Column",
    "Conflicts",
    "ConsensusLabels",
    "DatasetVersions",
    "ErrorBars",
    "Frame",
    "HeldOutImages",
    "HeldOutPredictions",
    "HumanLabels",
    "ImageEmbeddings",
    "ImportedLabels",
    "LabelIssues",
    "LabelTasks",
    "MissedByModel",
    "ModelAgreement",
    "ModelErrors",
    "ModelEvaluations",
    "ModelPredictions",
    "ModelSlices",
    "OutlierImages",
    "PredictedImages",
    "RawImages",
    "ReviewTasks",
    "ReviewedLabels",
    "RoundReports",
    "RoundTasks",
    "SelectedImages",
    "Splits",
    "Table",
    "TrainedModels",
    "TrainingRounds",
    "TrainingSet",
    "records",
    "table_named",
]
