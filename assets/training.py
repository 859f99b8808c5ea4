"""The model that learns from a version and proposes labels for the next round."""

import dagster as dg
import pandas as pd

from annotation_platform.lake import Lake
from annotation_platform.models.loop import evaluate_round, train_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from assets.metadata import number, table
from assets.partitions import rounds


@dg.asset(
    partitions_def=rounds, group_name="training", kinds={"pytorch"}, code_version="2", pool="gpu"
)
def trained_model(
    context: dg.AssetExecutionContext,
    training_set: pd.DataFrame,
    dataset_version: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The detector that learned from the train split of the round's version."""
    trained = train_round(
        context.partition_key,
        training_set,
        dataset_tag=str(dataset_version["tag"].iloc[0]),
        registry=models,
        picture_path=lake.picture_path,
        policy=policy,
        report=context.log.info,
    )
    row = trained.iloc[0]
    return dg.MaterializeResult(
        value=trained,
        data_version=dg.DataVersion(str(row["weights_sha256"])),
        metadata={
            "train_images": int(row["train_images"]),
            "epochs": float(row["epochs"]),
            "cpu_seconds": float(row["cpu_seconds"]),
            "final_loss": number(float(row["final_loss"])),
            "dataset_tag": str(row["dataset_tag"]),
            "preview": table(trained, ["dataset_tag", "weights_sha256", "started_from"]),
        },
    )


@dg.asset(
    partitions_def=rounds, group_name="training", kinds={"pytorch"}, code_version="2", pool="gpu"
)
def model_evaluation(
    context: dg.AssetExecutionContext,
    trained_model: pd.DataFrame,
    training_set: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """How well the model does on the test split, and whether it now makes the proposals."""
    evaluated = evaluate_round(
        context.partition_key,
        trained_model,
        training_set,
        registry=models,
        picture_path=lake.picture_path,
        ontology=policy.ontology,
    )
    row = evaluated.table.iloc[0]
    return dg.MaterializeResult(
        value=evaluated.table,
        metadata={
            "test_images": int(row["test_images"]),
            "map50": number(float(row["map50"])),
            "map": number(float(row["map"])),
            "promoted": bool(row["promoted"]),
            "reason": dg.MetadataValue.md(str(row["reason"])),
            "map50_by_class": {name: number(ap) for name, ap in evaluated.per_class.items()},
            "preview": table(
                evaluated.table, ["dataset_tag", "test_images", "map50", "promoted_map50"]
            ),
        },
    )
