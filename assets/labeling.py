"""Tasks for annotators, and their annotations."""

import dagster as dg

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.collect_annotations import collect_annotations
from annotation_platform.pipeline.request_annotations import request_annotations
from annotation_platform.pipeline.select import select
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import Frame, LabelTasks, ModelPredictions, SelectedImages
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized


# The check of batch_drift can hold a round back from annotators.
@tables_made(
    "selected_images",
    "audit_frame",
    group="labeling",
    kinds={"numpy"},
    code_version="2",
    reads=["batch_drift", "cleaned_images", "image_embeddings", "imported_labels"],
)
def selected_images(
    context: dg.AssetExecutionContext,
    model_predictions: Frame[ModelPredictions],
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The images selected for annotation in this round, in order."""
    round_ = round_context(context, lake, policy)
    return materialized(select(round_, model_predictions, models), lake)


@tables_made(
    "label_tasks",
    group="labeling",
    kinds={"labelstudio"},
    code_version="3",
    reads=["cleaned_images", "imported_labels", "predicted_images"],
)
def label_tasks(
    context: dg.AssetExecutionContext,
    selected_images: Frame[SelectedImages],
    model_predictions: Frame[ModelPredictions],
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[LandingLake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The assignments: one for each requested annotation of each selected image."""
    round_ = round_context(context, lake, policy)
    found = request_annotations(round_, selected_images, model_predictions, labeling, models)
    return materialized(found, lake)


@tables_made(
    "human_labels",
    "annotations",
    "round_tasks",
    group="labeling",
    kinds={"labelstudio"},
    code_version="2",
    reads=["cleaned_images"],
)
def human_labels(
    context: dg.AssetExecutionContext,
    label_tasks: Frame[LabelTasks],
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """Every label of every counted annotation, from the append-only ledger."""
    round_ = round_context(context, lake, policy)
    return materialized(collect_annotations(round_, label_tasks, labeling), lake)
