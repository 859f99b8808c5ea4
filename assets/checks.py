"""Facts that must hold before anything is published. The judging is in ``curation/gates.py``."""

from collections.abc import Sequence

import dagster as dg
import pandas as pd

from annotation_platform.curation import gates
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from annotation_platform.schema.dataset import Dataset
from assets.consensus import consensus_labels as consensus_labels_asset
from assets.labeling import human_labels as human_labels_asset
from assets.release import training_set as training_set_asset


def _verdict(found: Sequence[str], what: str, remedy: str) -> dg.AssetCheckResult:
    """Return a passed check where nothing was found, else one that names the first of it."""
    metadata: dict[str, dg.MetadataValue] = {
        "found": dg.MetadataValue.int(len(found)),
        "first": dg.MetadataValue.json(list(found[:10])),
    }
    sentence = f"{len(found)} {what}. {remedy}" if found else f"No {what}."
    return dg.AssetCheckResult(passed=not found, description=sentence, metadata=metadata)


@dg.asset_check(asset=human_labels_asset, blocking=True)
def every_region_usable(human_labels: pd.DataFrame) -> dg.AssetCheckResult:
    """No answer holds a region that is no usable box: without it, it would say another thing."""
    found = gates.unusable_answers(human_labels)
    remedy = "Correct them in Label Studio, or the classes in params.yaml; human_labels says why."
    return _verdict(found, "answers with regions that are no usable box", remedy)


@dg.asset_check(asset=consensus_labels_asset, blocking=True)
def boxes_inside_image(
    consensus_labels: pd.DataFrame, lake: dg.ResourceParam[Lake]
) -> dg.AssetCheckResult:
    """Every box has an area and lies inside its picture."""
    found = gates.boxes_outside_image(consensus_labels, lake.accepted_images())
    return _verdict(found, "boxes outside their image", "Correct them in Label Studio.")


@dg.asset_check(asset=consensus_labels_asset, blocking=True)
def labels_in_ontology(
    consensus_labels: pd.DataFrame, policy: dg.ResourceParam[Params]
) -> dg.AssetCheckResult:
    """Every label has a class that the ontology knows."""
    found = gates.labels_outside_ontology(consensus_labels, policy.ontology)
    return _verdict(found, "labels outside the ontology", "Add the class to params.yaml.")


@dg.asset_check(asset=consensus_labels_asset, blocking=True)
def every_task_resolved(
    context: dg.AssetCheckExecutionContext,
    consensus_labels: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """Every task that was asked has a resolved answer."""
    tasks = lake.tables.read("label_tasks", context.partition_key)
    found = gates.unresolved_tasks(consensus_labels, tasks)
    return _verdict(found, "tasks without an answer", "Materialise human_labels again.")


@dg.asset_check(asset=training_set_asset, blocking=True)
def no_group_in_two_splits(training_set: pd.DataFrame) -> dg.AssetCheckResult:
    """Pictures that look alike stand in one split only."""
    found = gates.groups_in_two_splits(training_set)
    return _verdict(found, "groups in two splits", "The splits table was changed: restore it.")


@dg.asset_check(asset=training_set_asset, blocking=True)
def no_test_image_in_train(
    context: dg.AssetCheckExecutionContext,
    training_set: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
) -> dg.AssetCheckResult:
    """No image that ever was in the test split is now in another one."""
    tables = lake.tables
    others = [key for key in tables.rounds("training_set") if key != context.partition_key]
    earlier = [tables.read("training_set", key) for key in others]
    found = gates.test_images_in_train(training_set, earlier)
    return _verdict(found, "test images moved", "The splits table was changed: restore it.")


@dg.asset_check(asset=training_set_asset, blocking=True)
def formats_agree(
    training_set: pd.DataFrame, policy: dg.ResourceParam[Params]
) -> dg.AssetCheckResult:
    """COCO and YOLO read back to the labels they were written from."""
    found = gates.formats_disagree(Dataset.from_training_set(training_set, policy.ontology))
    return _verdict(found, "formats that disagree", "This is a bug in annotation_platform/formats.")
