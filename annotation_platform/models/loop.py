"""One turn of the training loop of a round: train on its version, test, promote or not.

Detectors and classifiers are two kinds of models, and each goes through the loop of ``kinds``.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from annotation_platform.models.cards import policy_digest
from annotation_platform.models.classification.kind import Classifiers
from annotation_platform.models.classification.metrics import (
    ClassificationEvaluation,
    ClassificationTruth,
    ClassifierPromotion,
    classification_figures,
)
from annotation_platform.models.detection.detector import empty_predictions
from annotation_platform.models.detection.kind import Detectors
from annotation_platform.models.evaluation.evaluation import Evaluation, figure_intervals
from annotation_platform.models.evaluation.promotion import Promotion
from annotation_platform.models.fitting import (
    TRAINING_PROGRESS,
    TrainingEnd,
    TrainingOptions,
    TrainingProgress,
)
from annotation_platform.models.kinds import (
    Judged,
    ModelKind,
    StoredModel,
    TrainingInputs,
    judge,
    train_model,
)
from annotation_platform.models.metrics_files import metrics_files
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, TrainingPolicy
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import (
    ClassificationFigures,
    Frame,
    ModelEvaluations,
    TrainedModels,
    TrainingSet,
)

_REPORT_SECONDS = 10.0


@dataclass(frozen=True)
class EvaluatedRound:
    """The ``model_evaluation`` of a round, and the evaluations behind it."""

    table: Frame[ModelEvaluations]
    per_class: dict[str, float]  # mAP@0.5 by class
    evaluation: Evaluation | None  # of the new detector; None: no detector, or no test image
    predictions: pd.DataFrame  # of the new detector on the test images
    classification_figures: Frame[ClassificationFigures]  # of the new classifier


def train_round(
    round_id: str,
    inputs: TrainingInputs,
    *,
    registry: ModelRegistry,
    report: Callable[[str], None],
    weights: Mapping[str, float] | None = None,
) -> Frame[TrainedModels]:
    """Train on the train split, add the weights to the registry, return ``trained_model``.

    Training continues from ``starting_weights``; the outputs of classes that both models have are
    kept. Scores are calibrated on the val split. Files for TensorBoard or DVCLive, if the policy
    asks for them, are in ``runs/<round>`` of the registry of each kind.

    A detector and a classifier share the budget as ``classifier_share`` defines. A kind without
    training labels is not trained. Columns that both kinds have are the detector's, if there is
    one; ``cpu_seconds`` is the sum.

    Args:
        round_id: of the training set.
        inputs: training set, images and policy.
        registry: receives the weights; classifiers go to its ``classifiers``.
        report: called with sentences about the progress.
        weights: how often each image is used, see ``train_detector``.
    """
    policy = inputs.policy.training
    share = classifier_share(inputs.split("train"), inputs.policy)
    budget = _Budget(round_id, policy, report)
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": inputs.dataset_tag,
        "weights_sha256": "",
        "classifier_sha256": "",
        "classifier_images": 0,
        "classifier_steps": 0,
        "classifier_calibration": "",
        "seed": inputs.policy.seed,
        "policy_digest": policy_digest(policy),
    }
    spent = 0.0
    if share > 0.0:
        stored = budget.train(Classifiers(registry.classifiers, inputs), share)
        row |= _training_columns(stored) | _classifier_columns(stored)
        spent += stored.trained.cpu_seconds
    if share < 1.0:
        stored = budget.train(Detectors(registry, inputs, weights), 1.0 - share)
        row |= _training_columns(stored) | {"weights_sha256": stored.weights_sha256}
        spent += stored.trained.cpu_seconds
    return TrainedModels.from_rows([row | {"cpu_seconds": spent}])


def classifier_share(train: Frame[TrainingSet], policy: Policy) -> float:
    """Return the classifier's share of the training budget, 0 to 1.

    It is ``training.classification_share`` if the train split has classifications as well as areas,
    and else 1 or 0. Without areas in the ontology there is no detector: the images do not even show
    what is background.
    """
    if not policy.ontology.areas:
        return 1.0
    if not ClassificationTruth.from_labels(train, policy.ontology).image_ids:
        return 0.0
    is_area = train[TrainingSet.shape].isin(AREAS)
    areas = is_area & train[TrainingSet.class_name].isin(policy.ontology.areas)
    return policy.training.classification_share if areas.any() else 1.0


@dataclass
class _Budget:
    """The training budget of a round, of which each kind of model gets a share."""

    round_id: str
    policy: TrainingPolicy
    report: Callable[[str], None]
    _used: float = 0.0  # share of it

    def train(self, kind: ModelKind[Any, Any], share: float) -> StoredModel:
        """Return the model of a kind, trained with a share of the budget, above 0."""
        steps = max(1, round(share * self.policy.steps)) if self.policy.steps else 0
        policy = self.policy.model_copy(
            update={
                "cpu_seconds": share * self.policy.cpu_seconds,
                "limit_minutes": share * self.policy.limit_minutes,
                "steps": steps,
            }
        )
        with metrics_files(policy, kind.registry.folder / "runs" / self.round_id) as record:
            options = TrainingOptions(progress=self._progress(kind.noun, share), record=record)
            stored = train_model(kind, policy, options)
        self._used += share
        trained = stored.trained
        if trained.ended_by == TrainingEnd.LIMIT_MINUTES:
            self.report(
                f"Training of the {kind.noun} was ended after {trained.steps} steps by "
                f"training.limit_minutes ({self.policy.limit_minutes:g}); the machine is busy, or "
                "the limit is too low for the budget."
            )
        if trained.images_at_a_time < trained.setup.batch_size:
            self.report(
                f"Memory was too small for batches of {trained.setup.batch_size}: trained on "
                f"{trained.images_at_a_time} images at a time, in the end on {trained.device}."
            )
        return stored

    def _progress(self, noun: str, share: float) -> Callable[[TrainingProgress], None]:
        """Return a callback that reports every ten seconds, and at the end of each kind's share."""
        used, reported_at = self._used, time.monotonic()

        def progress(now: TrainingProgress) -> None:
            nonlocal reported_at
            if now.share < 1.0 and time.monotonic() - reported_at < _REPORT_SECONDS:
                return
            reported_at = time.monotonic()
            self.report(
                f"{used + share * now.share:.0%} {TRAINING_PROGRESS}: "
                f"step {now.step} of the {noun}, about {now.seconds_left:.0f} s left"
            )

        return progress


def _training_columns(stored: StoredModel) -> dict[str, object]:
    """Return the columns of ``trained_model`` that all kinds of models have."""
    trained, calibration = stored.trained, stored.calibrated.calibration
    return {
        "started_from": trained.started_from,
        "train_images": trained.setup.images,
        "epochs": trained.epochs,
        "final_loss": trained.final_loss,
        "steps": trained.steps,
        "ended_by": trained.ended_by,
        "profile": stored.calibrated.profile,
        "calibration": stored.calibrated.digest,
        "calibration_images": calibration.images,
        "calibration_error_before": calibration.error_before,
        "calibration_error": calibration.error_after,
    }


def _classifier_columns(stored: StoredModel) -> dict[str, object]:
    """Return the columns of ``trained_model`` about the classifier alone."""
    return {
        "classifier_sha256": stored.weights_sha256,
        "classifier_images": stored.trained.setup.images,
        "classifier_steps": stored.trained.steps,
        "classifier_calibration": stored.calibrated.digest,
        "classifier_error_before": stored.calibrated.calibration.error_before,
        "classifier_error": stored.calibrated.calibration.error_after,
    }


def evaluate_round(
    round_id: str,
    trained_model: Frame[TrainedModels],
    inputs: TrainingInputs,
    *,
    registry: ModelRegistry,
) -> EvaluatedRound:
    """Test the new models and their predecessors on the same test images; promote them or not.

    Each kind of model is judged by itself, see ``kinds.judge``. Without test images nothing is
    promoted and the figures are missing. Without a detector the classifier's decision is that of
    the round.
    """
    trained = trained_model.iloc[0]
    weights = str(trained[TrainedModels.weights_sha256])
    classifier = str(trained.get(TrainedModels.classifier_sha256, ""))
    chosen = judge(Classifiers(registry.classifiers, inputs), classifier)
    judged = judge(Detectors(registry, inputs), weights)
    new, promoted = judged.new, judged.promoted
    decision = judged.decision if weights else chosen.decision
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": inputs.dataset_tag,
        "weights_sha256": weights,
        "test_images": inputs.split("test")[TrainingSet.image_id].nunique(),
        "promoted": decision.promoted,
        "reason": decision.reason,
        "best_sha256": judged.best_sha256,
        **_choice_columns(classifier, chosen),
    }
    figures = ClassificationFigures.empty()
    if chosen.new is not None:
        figures = classification_figures(round_id, classifier, chosen.new)
    if new is None:
        table = ModelEvaluations.from_rows([row])
        return EvaluatedRound(table, {}, None, empty_predictions(), figures)
    row |= _figure_columns(new.evaluation) | {
        "promoted_map": promoted.evaluation.map if promoted else None,
        "promoted_map50": promoted.evaluation.map50 if promoted else None,
    }
    if isinstance(judged.decision, Promotion) and judged.decision.comparison:
        found = judged.decision.comparison.map
        row |= {"difference": found.value, "difference_low": found.low}
        row |= {"difference_high": found.high}
    table, per_class = ModelEvaluations.from_rows([row]), new.evaluation.per_class
    return EvaluatedRound(table, per_class, new.evaluation, new.predictions, figures)


def _choice_columns(
    weights: str, judged: Judged[ClassificationEvaluation, ClassifierPromotion]
) -> dict[str, object]:
    """Return the columns of ``model_evaluation`` about the classifier."""
    accuracy = judged.new.accuracy if judged.new else None
    return {
        "classifier_sha256": weights,
        "classified_images": judged.new.images if judged.new else 0,
        "accuracy": accuracy.value if accuracy else None,
        "accuracy_low": accuracy.low if accuracy else None,
        "accuracy_high": accuracy.high if accuracy else None,
        "promoted_accuracy": judged.promoted.accuracy.value if judged.promoted else None,
        "classifier_promoted": judged.decision.promoted,
        "classifier_reason": judged.decision.reason,
    }


def _figure_columns(new: Evaluation) -> dict[str, object]:
    found = figure_intervals(new.coco).overall
    return {
        "map50": new.map50,
        "map50_low": found["ap50"].low,
        "map50_high": found["ap50"].high,
        "map": new.map,
        "map_low": found["ap"].low,
        "map_high": found["ap"].high,
    }
