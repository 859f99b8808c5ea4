"""What is run together: the stretches between two waits, on the in-process executor."""

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition


def _job(name: str, about: str, *assets: str) -> UnresolvedAssetJobDefinition:
    # Selections are made of objects: Dagster's parser for selections written as text needs a
    # newer antlr4 than DVC's dependencies allow. A process for every step, which is Dagster's
    # default, would cost three seconds each; these steps are seconds long.
    return dg.define_asset_job(
        name,
        dg.AssetSelection.assets(*assets),
        description=about,
        executor_def=dg.in_process_executor,
    )


start_round = _job(
    "start_round",
    "From landed objects to questions that people can answer.",
    "raw_images",
    "cleaned_images",
    "imported_labels",
    "image_embeddings",
    "model_predictions",
    "batch_drift",
    "selected_images",
    "label_tasks",
)
ask_again = _job(
    "ask_again",
    "Further answers on the tasks on which those so far do not lead by enough.",
    "label_tasks",
)
merge_round = _job(
    "merge_round",
    "From people's answers to one set of labels, and to what a reviewer has to decide.",
    "human_labels",
    "annotator_quality",
    "consensus_labels",
    "label_issues",
    "review_tasks",
)
release_round = _job(
    "release_round",
    "From labels to a published dataset version.",
    "reviewed_labels",
    "auto_labels",
    "training_set",
    "error_bars",
    "dataset_version",
)
report_round = _job(
    "report_round",
    "The figures of a round whose version was overtaken before a model learned from it.",
    "round_report",
)
train_model = _job(
    "train_model",
    "From a dataset version to the model that proposes labels next.",
    "trained_model",
    "model_evaluation",
    "round_report",
)
