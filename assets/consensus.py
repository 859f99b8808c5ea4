"""Annotator quality, consensus labels and label issues."""

import dagster as dg

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.pipeline.find_issues import IssueInputs, find_issues
from annotation_platform.pipeline.measure_quality import measure_quality
from annotation_platform.pipeline.resolve import resolve
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    ConsensusLabels,
    Frame,
    HeldOutImages,
    HeldOutPredictions,
    HumanLabels,
    ModelPredictions,
    PredictedImages,
)
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized


@tables_made(
    "annotator_quality",
    "annotator_pace",
    group="consensus",
    kinds={"scipy"},
    code_version="1",
    reads=["imported_labels"],
)
def annotator_quality(
    context: dg.AssetExecutionContext,
    human_labels: Frame[HumanLabels],
    model_predictions: Frame[ModelPredictions],
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The quality of each annotator, against the other annotators and on gold tasks."""
    round_ = round_context(context, lake, policy)
    return materialized(measure_quality(round_, human_labels, model_predictions, labeling), lake)


@tables_made(
    "consensus_labels",
    "conflicts",
    group="consensus",
    kinds={"scipy"},
    code_version="2",
    reads=["cleaned_images", "label_tasks"],
)
def consensus_labels(
    context: dg.AssetExecutionContext,
    human_labels: Frame[HumanLabels],
    annotator_quality: Frame[AnnotatorQuality],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """One resolved set of labels for each image, with the agreement of its annotators."""
    round_ = round_context(context, lake, policy)
    return materialized(resolve(round_, human_labels, annotator_quality), lake)


@tables_made(
    "label_issues",
    group="consensus",
    kinds={"scipy"},
    code_version="2",
    reads=["cleaned_images"],
)
def label_issues(
    context: dg.AssetExecutionContext,
    consensus_labels: Frame[ConsensusLabels],
    model_predictions: Frame[ModelPredictions],
    predicted_images: Frame[PredictedImages],
    held_out_predictions: Frame[HeldOutPredictions],
    held_out_images: Frame[HeldOutImages],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """Labels that are probably wrong and objects that probably lack one, most suspected first."""
    own = model_predictions, predicted_images
    inputs = IssueInputs(consensus_labels, *own, held_out_predictions, held_out_images)
    return materialized(find_issues(round_context(context, lake, policy), inputs), lake)
