"""The model that learns from a version and proposes labels for the next round."""

import math
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from annotation_platform.images.accepted import accepted_images
from annotation_platform.models.agreement import agreement_drop, model_agreement
from annotation_platform.models.examination import Examination, examine_round
from annotation_platform.models.findings import image_weights
from annotation_platform.models.learning_curves import learning_history, rank_by_gain
from annotation_platform.models.loop import evaluate_round, train_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.storage.lake import Lake
from assets.metadata import counts, finding_pictures, number, table
from assets.partitions import rounds


@dg.asset(
    partitions_def=rounds, group_name="training", kinds={"pytorch"}, code_version="3", pool="gpu"
)
def trained_model(
    context: dg.AssetExecutionContext,
    training_set: pd.DataFrame,
    dataset_version: pd.DataFrame,
    lake: dg.ResourceParam[Lake],
    models: dg.ResourceParam[ModelRegistry],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """The detector, and classifier, that learned from the train split of the round's version."""
    round_id = context.partition_key
    before = [key for key in lake.tables.rounds("missed_by_model") if key < round_id]
    missed = lake.tables.read_rounds("missed_by_model", before[-1:])
    trained = train_round(
        round_id,
        training_set,
        dataset_tag=str(dataset_version["tag"].iloc[0]),
        registry=models,
        picture_path=lake.picture_path,
        policy=policy,
        report=context.log.info,
        weights=image_weights(missed),
    )
    row = trained.iloc[0]
    return dg.MaterializeResult(
        value=trained,
        data_version=dg.DataVersion(
            "-".join(filter(None, [row["weights_sha256"], row["classifier_sha256"]]))
        ),
        metadata={
            "train_images": int(row["train_images"]),
            "images_looked_at_more_often": missed["image_id"].nunique(),
            "epochs": float(row["epochs"]),
            "cpu_seconds": float(row["cpu_seconds"]),
            "final_loss": number(float(row["final_loss"])),
            "calibration_images": int(row["calibration_images"]),
            "calibration_error_before": number(float(row["calibration_error_before"])),
            "calibration_error": number(float(row["calibration_error"])),
            "images_with_choices": int(row["classifier_images"]),
            "choice_error_before": number(float(row["choice_error_before"])),
            "choice_error": number(float(row["choice_error"])),
            "dataset_tag": str(row["dataset_tag"]),
            "preview": table(
                trained, ["dataset_tag", "weights_sha256", "classifier_sha256", "started_from"]
            ),
        },
    )


@dg.asset(
    partitions_def=rounds, group_name="training", kinds={"pytorch"}, code_version="3", pool="gpu"
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
    round_id = context.partition_key
    evaluated = evaluate_round(
        round_id,
        trained_model,
        training_set,
        registry=models,
        picture_path=lake.picture_path,
        ontology=policy.ontology,
    )
    examined = examine_round(
        round_id,
        evaluated,
        training_set,
        accepted_images(lake.tables),
        registry=models,
        picture_path=lake.picture_path,
        policy=policy,
    )
    examined.write(lake.tables, round_id)
    lake.tables.write("choice_figures", round_id, evaluated.choices.figures)
    agreement = _agreement(round_id, lake, policy)
    lake.tables.write("model_agreement", round_id, agreement)
    row = evaluated.table.iloc[0]
    return dg.MaterializeResult(
        value=evaluated.table,
        metadata={
            "test_images": int(row["test_images"]),
            "map50": number(float(row["map50"])),
            "map": number(float(row["map"])),
            "map_low": number(float(row["map_low"])),
            "map_high": number(float(row["map_high"])),
            "difference": number(float(row["difference"])),
            "promoted": bool(row["promoted"]),
            "reason": dg.MetadataValue.md(str(row["reason"])),
            "map50_by_class": {name: number(ap) for name, ap in evaluated.per_class.items()},
            **_choice_metadata(row, evaluated.choices.figures),
            **_examination_metadata(examined, lake, training_set),
            **_people_metadata(agreement, agreement_so_far(round_id, lake)),
            "more_images_help": table(_expected_gains(round_id, lake)),
            "preview": table(
                evaluated.table, ["dataset_tag", "test_images", "map50", "promoted_map50"]
            ),
        },
    )


def _choice_metadata(row: pd.Series, figures: pd.DataFrame) -> dict[str, Any]:
    """Return how well the classifier does; nothing where there are no choices."""
    if not row["choice_images"]:
        return {}
    shown = ["class_name", "chosen", "proposed", "right", "accuracy", "f1", "f1_low", "f1_high"]
    numbers = ["accuracy", "accuracy_low", "accuracy_high", "promoted_accuracy"]
    return {
        "images_with_choices": int(row["choice_images"]),
        **{name: number(float(row[name])) for name in numbers},
        "classifier_promoted": bool(row["classifier_promoted"]),
        "classifier_reason": dg.MetadataValue.md(str(row["classifier_reason"])),
        "choices": table(figures, shown),
    }


def _examination_metadata(
    examined: Examination, lake: Lake, training_set: pd.DataFrame
) -> dict[str, Any]:
    shown = ["kind", "name", "images", "map", "map_low", "map_high", "difference"]
    test = training_set[training_set["split"] == "test"]
    return {
        "weak_slices": int(examined.slices["weak"].sum()),
        "weakest_slices": table(examined.slices, shown),
        "findings": counts(examined.findings["kind"]),
        "worst_findings": finding_pictures(examined.findings, lake, test),
        "missed_in_training": len(examined.missed),
    }


def agreement_so_far(round_id: str, lake: Lake) -> pd.DataFrame:
    """Return the ``model_agreement`` of all rounds up to this one."""
    rounds_so_far = [key for key in lake.tables.rounds("model_agreement") if key <= round_id]
    return lake.tables.read_rounds("model_agreement", rounds_so_far)


def _agreement(round_id: str, lake: Lake, policy: Params) -> pd.DataFrame:
    names = ("model_predictions", "consensus_labels", "human_labels")
    predictions, consensus, people = (lake.tables.read_rounds(name, [round_id]) for name in names)
    return model_agreement(
        round_id,
        predictions,
        consensus,
        people,
        ontology=policy.ontology,
        minimum_score=policy.labeling.minimum_score,
    )


def _people_metadata(agreement: pd.DataFrame, history: pd.DataFrame) -> dict[str, Any]:
    """Return how far proposals and people agree, in this round and over all so far."""
    overall = agreement[agreement["class_name"] == ""].set_index("answers")["f1"]
    return {
        "agreement_with_people": number(float(overall.get("consensus", math.nan))),
        "agreement_with_blind_answers": number(float(overall.get("blind", math.nan))),
        "agreement_trend": agreement_drop(history).sentence,
    }


def _expected_gains(round_id: str, lake: Lake) -> pd.DataFrame:
    """Return what half as many training images again would give, by class and size."""
    so_far = [key for key in lake.tables.rounds("model_slices") if key <= round_id]
    slices = lake.tables.read_rounds("model_slices", so_far)
    trained = lake.tables.read_rounds("trained_model", so_far)
    more = max(1.0, float(trained["train_images"].max()) / 2) if len(trained) else 1.0
    rng = np.random.default_rng(0)
    return rank_by_gain(learning_history(slices, trained), more=more, rng=rng)
