"""The training set, and its publication as a version."""

import dagster as dg

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.pipeline.auto_accept import AcceptInputs, auto_accept
from annotation_platform.pipeline.build_training_set import build_training_set
from annotation_platform.pipeline.measure_errors import measure_errors
from annotation_platform.pipeline.publish import publish
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import (
    AuditFrame,
    ErrorBars,
    Frame,
    HumanLabels,
    LabelTasks,
    ModelPredictions,
    ReviewedLabels,
    SelectedImages,
    TrainingRounds,
    TrainingSet,
)
from annotation_platform.versioning.store import VersionStore
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized
from resources.pages import PagesResource


@tables_made(
    "auto_labels",
    "certificates",
    "reaudits",
    group="release",
    kinds={"scipy"},
    code_version="1",
    reads=["cleaned_images"],
)
def auto_labels(
    context: dg.AssetExecutionContext,
    model_predictions: Frame[ModelPredictions],
    selected_images: Frame[SelectedImages],
    audit_frame: Frame[AuditFrame],
    label_tasks: Frame[LabelTasks],
    human_labels: Frame[HumanLabels],
    reviewed_labels: Frame[ReviewedLabels],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """Predictions accepted without a person, under a certificate that bounds their errors."""
    chosen = model_predictions, selected_images, audit_frame
    inputs = AcceptInputs(*chosen, label_tasks, human_labels, reviewed_labels)
    return materialized(auto_accept(round_context(context, lake, policy), inputs), lake)


# The pool has one slot: splits are drawn and versions numbered one after the other. Every table is
# read for all finished rounds; earlier rounds may lack some.
@tables_made(
    "training_set",
    "training_rounds",
    "splits",
    group="release",
    kinds={"pandas"},
    code_version="3",
    reads=[
        "raw_images",
        "cleaned_images",
        "imported_labels",
        "round_tasks",
        "reviewed_labels",
        "auto_labels",
        "certificates",
        "reaudits",
    ],
    optional=["splits"],
    pool="dvc",
)
def training_set(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """Every label of every finished round and every imported label, with its permanent split."""
    return materialized(build_training_set(round_context(context, lake, policy)), lake)


@tables_made(
    "error_bars",
    group="release",
    kinds={"scipy"},
    code_version="1",
    reads=["cleaned_images", "consensus_labels", "review_tasks", "reviewed_labels", "certificates"],
)
def error_bars(
    context: dg.AssetExecutionContext,
    training_set: Frame[TrainingSet],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The share of wrong labels by origin and class, with confidence intervals."""
    return materialized(measure_errors(round_context(context, lake, policy), training_set), lake)


# The check of error_bars can block the publication.
@tables_made(
    "dataset_version",
    group="release",
    kinds={"dvc", "git"},
    code_version="1",
    reads=["human_labels", "auto_labels"],
    pool="dvc",
)
def dataset_version(
    context: dg.AssetExecutionContext,
    training_set: Frame[TrainingSet],
    training_rounds: Frame[TrainingRounds],
    error_bars: Frame[ErrorBars],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
    versions: dg.ResourceParam[VersionStore],
    pages: PagesResource,
) -> Made:
    """The published version: a git tag, and files to fetch with ``dvc pull``."""
    round_ = round_context(context, lake, policy)
    found = publish(round_, training_set, training_rounds, error_bars, versions)
    links = pages.links(card=f"versions/{found.figures['version']}/card.html")
    return materialized(found, lake, links)
