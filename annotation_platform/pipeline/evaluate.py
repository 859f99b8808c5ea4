"""The evaluation of a round's models, and the decision on their promotion."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.images.accepted import accepted_images
from annotation_platform.models.error_analysis import ErrorAnalysis, analyze_errors
from annotation_platform.models.evaluation.agreement import agreement_drop, model_agreement
from annotation_platform.models.evaluation.learning_curves import learning_history, rank_by_gain
from annotation_platform.models.kinds import TrainingInputs
from annotation_platform.models.loop import EvaluatedRound, evaluate_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import (
    Counts,
    Figure,
    Findings,
    Markdown,
    Result,
    TableRows,
)
from annotation_platform.schema.tables import (
    ClassificationFigures,
    ConsensusLabels,
    Frame,
    HumanLabels,
    MissedByModel,
    ModelAgreement,
    ModelErrors,
    ModelEvaluations,
    ModelPredictions,
    ModelSlices,
    TrainedModels,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import Split
from annotation_platform.storage.round_tables import RoundTables

_COMPARED = (ModelPredictions, ConsensusLabels, HumanLabels)


@dataclass(frozen=True, kw_only=True)
class Evaluated(Result):
    """The evaluation of a round's models, and tables about where they fail."""

    model_evaluation: Frame[ModelEvaluations]
    model_slices: Frame[ModelSlices]
    model_errors: Frame[ModelErrors]
    missed_by_model: Frame[MissedByModel]
    classification_figures: Frame[ClassificationFigures]
    model_agreement: Frame[ModelAgreement]


def evaluate(
    context: RoundContext,
    trained_model: Frame[TrainedModels],
    training_set: Frame[TrainingSet],
    models: ModelRegistry,
) -> Evaluated:
    """Evaluate the round's models on the test split, and promote better ones."""
    evaluated = evaluate_round(
        context.round_id,
        trained_model,
        TrainingInputs(
            training_set,
            dataset_tag=str(trained_model[TrainedModels.dataset_tag].iloc[0]),
            image_path=context.lake.image_path,
            policy=context.policy,
        ),
        registry=models,
    )
    analysis = analyze_errors(
        context.round_id,
        evaluated,
        training_set,
        accepted_images(context.tables),
        registry=models,
        image_path=context.lake.image_path,
        policy=context.policy,
    )
    agreement = _agreement(context)
    return Evaluated(
        model_evaluation=evaluated.table,
        model_slices=analysis.slices,
        model_errors=analysis.findings,
        missed_by_model=analysis.missed,
        classification_figures=evaluated.classification_figures,
        model_agreement=agreement,
        figures={
            **_model_figures(evaluated),
            **_classification_figures(evaluated),
            **_analysis_figures(analysis, training_set),
            **_agreement_figures(agreement, context),
            "expected_gains": TableRows(_expected_gains(context, analysis.slices)),
            "preview": TableRows(
                evaluated.table, ["dataset_tag", "test_images", "map50", "promoted_map50"]
            ),
        },
    )


def _model_figures(evaluated: EvaluatedRound) -> dict[str, Figure]:
    row = evaluated.table.iloc[0]
    numbers = ["map50", "map", "map_low", "map_high", "difference"]
    return {
        "test_images": int(row["test_images"]),
        **{name: float(row[name]) for name in numbers},
        "promoted": bool(row["promoted"]),
        "reason": Markdown(str(row["reason"])),
        "map50_by_class": {
            name: None if math.isnan(ap) else round(float(ap), 4)
            for name, ap in evaluated.per_class.items()
        },
    }


def _classification_figures(evaluated: EvaluatedRound) -> dict[str, Figure]:
    """Return the quality of the classifier; empty if there are no classifications."""
    row = evaluated.table.iloc[0]
    if not row["classified_images"]:
        return {}
    shown = [
        *("class_name", "labelled", "predicted", "correct", "accuracy"),
        *("f1", "f1_low", "f1_high"),
    ]
    numbers = ["accuracy", "accuracy_low", "accuracy_high", "promoted_accuracy"]
    return {
        "classified_images": int(row["classified_images"]),
        **{name: float(row[name]) for name in numbers},
        "classifier_promoted": bool(row["classifier_promoted"]),
        "classifier_reason": Markdown(str(row["classifier_reason"])),
        "classifications": TableRows(evaluated.classification_figures, shown),
    }


def _analysis_figures(
    analysis: ErrorAnalysis, training_set: Frame[TrainingSet]
) -> dict[str, Figure]:
    shown = ["kind", "name", "images", "map", "map_low", "map_high", "difference"]
    test = training_set[training_set[TrainingSet.split] == Split.TEST]
    return {
        "weak_slices": int(analysis.slices[ModelSlices.weak].sum()),
        "weakest_slices": TableRows(analysis.slices, shown),
        "findings": Counts(analysis.findings[ModelErrors.kind]),
        "worst_findings": Findings(analysis.findings, test),
        "missed_in_training": len(analysis.missed),
    }


def agreement_so_far(round_id: str, tables: RoundTables, agreement: pd.DataFrame) -> pd.DataFrame:
    """Return the ``model_agreement`` of all earlier rounds and of this one."""
    before = [key for key in tables.rounds(ModelAgreement) if key < round_id]
    earlier = tables.read_rounds(ModelAgreement, before)
    parts = [each for each in (earlier, agreement) if not each.empty] or [agreement]
    return pd.concat(parts, ignore_index=True)


def _agreement(context: RoundContext) -> pd.DataFrame:
    round_id, policy = context.round_id, context.policy
    tables = [context.tables.read_rounds(table, [round_id]) for table in _COMPARED]
    predictions, consensus, human_labels = tables
    return model_agreement(
        round_id,
        predictions,
        consensus,
        human_labels,
        ontology=policy.ontology,
        minimum_score=policy.labeling.minimum_score,
    )


def _agreement_figures(agreement: pd.DataFrame, context: RoundContext) -> dict[str, Figure]:
    """Return the agreement of predictions and annotators, in this round and over all so far."""
    overall = agreement[agreement[ModelAgreement.class_name] == ""].set_index("annotations")["f1"]
    history = agreement_so_far(context.round_id, context.tables, agreement)
    return {
        "agreement_with_annotators": float(overall.get("consensus", math.nan)),
        "agreement_without_predictions": float(overall.get("without_predictions", math.nan)),
        "agreement_trend": agreement_drop(history).sentence,
    }


def _expected_gains(context: RoundContext, own_slices: pd.DataFrame) -> pd.DataFrame:
    """Return the expected gain from 50 % more training images, by class and size."""
    tables = context.tables
    earlier = tables.read_rounds(ModelSlices, context.before(ModelSlices))
    parts = [each for each in (earlier, own_slices) if not each.empty] or [own_slices]
    slices = pd.concat(parts, ignore_index=True)
    rounds = [*context.before(ModelSlices), context.round_id]
    trained = tables.read_rounds(TrainedModels, rounds)
    more = max(1.0, float(trained[TrainedModels.train_images].max()) / 2) if len(trained) else 1.0
    return rank_by_gain(learning_history(slices, trained), more=more, rng=np.random.default_rng(0))
