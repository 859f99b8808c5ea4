"""The jobs: the steps between two waits for people, on the in-process executor."""

from functools import partial

import dagster as dg

from annotation_platform.versioning.registry import open_remote
from annotation_platform.versioning.store import VersionStore
from annotation_platform.versioning.verify import verify_versions as verify

_SHOWN = 5


# Selections are objects: Dagster's parser for textual selections needs a newer antlr4 than DVC's
# dependencies allow. Dagster's default of a process per step would cost three seconds each, and
# these steps take seconds.
_job = partial(dg.define_asset_job, executor_def=dg.in_process_executor)


def _tables(*names: str) -> dg.AssetSelection:
    """Return these assets, and the other assets of their steps."""
    return dg.AssetSelection.assets(*names).required_multi_asset_neighbors()


start_round = _job(
    "start_round",
    _tables(
        "raw_images",
        "cleaned_images",
        "imported_labels",
        "image_embeddings",
        "model_predictions",
        "batch_drift",
        "selected_images",
        "label_tasks",
    ),
    description="From landed objects to tasks for annotators.",
)
ask_again = _job(
    "ask_again",
    _tables("label_tasks"),
    description="Requests further annotations for tasks without a sufficient vote margin.",
)
_RELEASE = ("reviewed_labels", "auto_labels", "training_set", "error_bars", "dataset_version")
merge_round = _job(
    "merge_round",
    _tables(
        "human_labels",
        "annotator_quality",
        "consensus_labels",
        "label_issues",
        "review_tasks",
        *_RELEASE,
    ),
    description=("From annotations to one set of labels, and to a version if no decision is open."),
)
release_round = _job(
    "release_round",
    _tables(*_RELEASE),
    description="From decided labels to a published version.",
)
report_round = _job(
    "report_round",
    _tables("round_report"),
    description=(
        "The figures of a round whose version was replaced before a model was trained on it."
    ),
)
train_model = _job(
    "train_model",
    _tables("trained_model", "model_evaluation", "round_report"),
    description="From a dataset version to the model that predicts in the next round.",
)


@dg.op(description="Reads every file of every version in the remote.")
def read_versions(context: dg.OpExecutionContext, versions: dg.ResourceParam[VersionStore]) -> None:
    """Fail with the first files that are damaged or missing, and how to repair them."""
    git = versions.open()
    found = verify(git, open_remote(git, versions.remote_url))
    context.log.info(f"{found.objects} objects of {len(found.tags)} versions were read.")
    if found.problems:
        shown = "; ".join(
            f"{each.path} of {each.tags[0]} is {each.kind}" for each in found.problems[:_SHOWN]
        )
        raise dg.Failure(
            f"{len(found.problems)} objects of the remote are damaged or missing: {shown}. "
            "`annotation-platform version verify --all --repair` restores files that the lake has.",
        )


@dg.job(
    description="Reads every version in the remote, and fails if a file is damaged or missing.",
    executor_def=dg.in_process_executor,
)
def verify_versions() -> None:
    """Read every version in the remote."""
    read_versions()
