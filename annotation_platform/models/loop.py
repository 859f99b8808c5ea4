"""One turn of the training loop: train on a version, test, promote or not.

Detectors here, classifiers in ``classification/loop.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.models.cards import policy_digest
from annotation_platform.models.classification.loop import (
    EvaluatedClassifier,
    classifier_share,
    evaluate_classifier,
    scaled_budget,
    train_classifier_round,
)
from annotation_platform.models.classification.predictions import PROFILE
from annotation_platform.models.detection.detector import empty_predictions, predict_files
from annotation_platform.models.detection.learning import train_model
from annotation_platform.models.evaluation.evaluation import Evaluation, evaluate, figure_intervals
from annotation_platform.models.evaluation.promotion import Promotion, best_of, decide_promotion
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.kinds import (
    TrainingInputs,
    judge,
    predecessors,
    starting_weights,
)
from annotation_platform.models.metrics_files import metrics_files
from annotation_platform.models.network_inputs import ImagePath, image_paths
from annotation_platform.models.predictions import calibrate_new
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import Frame, ModelEvaluations, TrainedModels, TrainingSet

_NO_TEST_IMAGE = Promotion(
    False,
    "Not promoted: the test split has no image yet, so no model can be judged. "
    "It grows with every round; label more images, or raise splits.test in params.yaml.",
)


@dataclass(frozen=True)
class EvaluatedRound:
    """The ``model_evaluation`` of a round, and the evaluations behind it."""

    table: Frame[ModelEvaluations]
    per_class: dict[str, float]  # mAP@0.5 by class
    evaluation: Evaluation | None  # of the new detector; None: no detector, or no test image
    predictions: pd.DataFrame  # of the new detector on the test images
    classifier: EvaluatedClassifier


@dataclass(frozen=True)
class _TestedDetector:
    """A detector's evaluation on the test images, and its predictions for them."""

    evaluation: Evaluation
    predictions: pd.DataFrame


@dataclass(frozen=True)
class _Detectors:
    """The kind of model that predicts boxes of objects; see ``ModelKind``."""

    registry: ModelRegistry
    truth: Dataset
    paths: Mapping[str, Path]
    noun: str = "model"

    def test(self, weights: str) -> _TestedDetector:
        predictions = predict_files(self.registry.load(weights), self.paths)
        return _TestedDetector(evaluate(self.truth, predictions), predictions)

    def decide(
        self, new: _TestedDetector, before: Mapping[str, _TestedDetector], *, later: str
    ) -> Promotion:
        others = {name: one.evaluation for name, one in before.items()}
        return decide_promotion(new.evaluation, others, later=later)

    def best(self, known: Mapping[str, _TestedDetector]) -> str:
        return best_of({weights: one.evaluation for weights, one in known.items()})


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
    asks for them, are in ``runs/<round>`` of the registry.

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
    policy = inputs.policy
    share = classifier_share(inputs.split("train"), policy)
    progress = _in_quarters(report)
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": inputs.dataset_tag,
        "weights_sha256": "",
        "classifier_sha256": "",
        "classifier_images": 0,
        "classifier_steps": 0,
        "classifier_calibration": "",
        "seed": policy.seed,
        "policy_digest": policy_digest(policy.training),
    }
    spent = 0.0
    if share > 0.0:
        row |= _train_classifier(
            inputs,
            registry=registry.classifiers,
            budget=scaled_budget(policy.training, share),
            progress=lambda done: progress(share * done),
        )
        spent = float(str(row["cpu_seconds"]))
    if share < 1.0:
        row |= _train_detector(
            round_id,
            inputs,
            registry=registry,
            budget=scaled_budget(policy.training, 1.0 - share),
            progress=lambda done: progress(share + (1.0 - share) * done),
            report=report,
            weights=weights,
        )
        spent += float(str(row["cpu_seconds"]))
    return TrainedModels.from_rows([row | {"cpu_seconds": spent}])


def _train_detector(
    round_id: str,
    inputs: TrainingInputs,
    *,
    registry: ModelRegistry,
    budget: TrainingPolicy,
    progress: Callable[[float], None],
    report: Callable[[str], None],
    weights: Mapping[str, float] | None,
) -> dict[str, object]:
    """Train, calibrate and store the detector; return its columns of ``trained_model``."""
    policy, tag = inputs.policy, inputs.dataset_tag
    train, held_out = inputs.split("train"), inputs.split("val")
    before = starting_weights(registry, tag)
    start_from = registry.weights_path(before) if before else None
    with metrics_files(budget, registry.folder / "runs" / round_id) as record:
        model = train_model(
            Dataset.from_training_set(train, policy.ontology).boxes(),
            image_paths(train, inputs.image_path),
            policy=budget,
            seed=policy.seed,
            dataset_tag=tag,
            weights=weights,
            options=TrainingOptions(start_from, progress, record),
        )
    trained = model.detector
    if trained.images_at_a_time < policy.training.batch_size:
        report(
            f"Memory was too small for batches of {policy.training.batch_size}: trained on "
            f"{trained.images_at_a_time} images at a time, in the end on {trained.device}."
        )
    found = calibrate_new(
        registry,
        trained.state,
        Dataset.from_training_set(held_out, policy.ontology).boxes(),
        image_paths(held_out, inputs.image_path),
        policy=policy,
    )
    card = model.card.model_copy(update={"calibrations": {found.profile: found.digest}})
    return {
        "weights_sha256": registry.add(trained.state, card),
        "started_from": trained.started_from,
        "train_images": trained.images,
        "epochs": trained.epochs,
        "cpu_seconds": trained.cpu_seconds,
        "final_loss": trained.final_loss,
        "steps": trained.steps,
        "profile": found.profile,
        "calibration": found.digest,
        "calibration_images": found.calibration.images,
        "calibration_error_before": found.calibration.error_before,
        "calibration_error": found.calibration.error_after,
    }


def _train_classifier(
    inputs: TrainingInputs,
    *,
    registry: ModelRegistry,
    budget: TrainingPolicy,
    progress: Callable[[float], None],
) -> dict[str, object]:
    """Train and store the classifier; return its columns of ``trained_model``.

    They include those that a detector's replace.
    """
    stored = train_classifier_round(inputs, registry=registry, budget=budget, progress=progress)
    trained, temperature = stored.trained, stored.temperature
    return {
        "started_from": trained.started_from,
        "train_images": trained.images,
        "epochs": trained.epochs,
        "cpu_seconds": trained.cpu_seconds,
        "final_loss": trained.final_loss,
        "steps": trained.steps,
        "profile": PROFILE,
        "calibration": temperature.effective_digest,
        "calibration_images": temperature.images,
        "calibration_error_before": temperature.error_before,
        "calibration_error": temperature.error_after,
        "classifier_sha256": stored.weights_sha256,
        "classifier_images": trained.images,
        "classifier_steps": trained.steps,
        "classifier_calibration": temperature.effective_digest,
        "choice_error_before": temperature.error_before,
        "choice_error": temperature.error_after,
    }


def evaluate_round(
    round_id: str,
    trained_model: Frame[TrainedModels],
    training_set: Frame[TrainingSet],
    *,
    registry: ModelRegistry,
    image_path: ImagePath,
    ontology: Ontology,
) -> EvaluatedRound:
    """Test the new models and their predecessors on the same test images; promote them or not.

    The detector is compared with the promoted one and with the best ever promoted, as recorded
    with that promotion. Without test images nothing is promoted and the figures are missing. A
    detector that an earlier run of this job promoted is compared with the one promoted before it.
    A round that runs again after a model of a later version was promoted must yield a better one
    than that, see ``decide_promotion``.

    The classifier is judged by itself; without a detector its decision is that of the round.
    """
    trained = trained_model.iloc[0]
    weights, tag = (
        str(trained[TrainedModels.weights_sha256]),
        str(trained[TrainedModels.dataset_tag]),
    )
    test = training_set[training_set[TrainingSet.split] == "test"]
    classifier = evaluate_classifier(
        round_id,
        str(trained.get("classifier_sha256", "")),
        tag,
        training_set,
        registry=registry.classifiers,
        image_path=image_path,
        ontology=ontology,
    )
    names = {"round_id": round_id, "dataset_tag": tag, "weights_sha256": weights}
    known = names | _classifier_columns(classifier)
    if not weights:
        decision = classifier.decision
        known |= {"promoted": decision.promoted, "reason": decision.reason, "best_sha256": ""}
        known["test_images"] = test[TrainingSet.image_id].nunique()
        table = ModelEvaluations.from_rows([known])
        return EvaluatedRound(table, {}, None, empty_predictions(), classifier)
    if test.empty:
        known |= {"test_images": 0, "best_sha256": predecessors(registry, weights).best}
        table = ModelEvaluations.from_rows([known | _decision_columns(_NO_TEST_IMAGE)])
        return EvaluatedRound(table, {}, None, empty_predictions(), classifier)

    truth = Dataset.from_training_set(test, ontology).boxes()
    kind = _Detectors(registry, truth, image_paths(test, image_path))
    judged = judge(kind, weights, tag, registry=registry)
    new, promoted = judged.new.evaluation, judged.promoted
    known |= {
        "test_images": new.images,
        "promoted_map": promoted.evaluation.map if promoted else None,
        "promoted_map50": promoted.evaluation.map50 if promoted else None,
        "best_sha256": judged.best_sha256,
    }
    row = known | _decision_columns(judged.decision) | _figure_columns(new)
    table = ModelEvaluations.from_rows([row])
    return EvaluatedRound(table, new.per_class, new, judged.new.predictions, classifier)


def _classifier_columns(classifier: EvaluatedClassifier) -> dict[str, object]:
    """Return the columns of ``model_evaluation`` about the classifier."""
    found = classifier.evaluation
    accuracy = found.accuracy if found else None
    return {
        "classifier_sha256": classifier.weights_sha256,
        "choice_images": found.images if found else 0,
        "accuracy": accuracy.value if accuracy else None,
        "accuracy_low": accuracy.low if accuracy else None,
        "accuracy_high": accuracy.high if accuracy else None,
        "promoted_accuracy": classifier.promoted_accuracy,
        "classifier_promoted": classifier.decision.promoted,
        "classifier_reason": classifier.decision.reason,
    }


def _decision_columns(decision: Promotion) -> dict[str, object]:
    found = decision.comparison.map if decision.comparison else None
    return {
        "difference": found.value if found else None,
        "difference_low": found.low if found else None,
        "difference_high": found.high if found else None,
        "promoted": decision.promoted,
        "reason": decision.reason,
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


def _in_quarters(report: Callable[[str], None]) -> Callable[[float], None]:
    """Return a progress callback that reports each quarter of the budget once."""
    reported = 0

    def progress(share: float) -> None:
        nonlocal reported
        if int(share * 4) > reported:
            reported = int(share * 4)
            report(f"{reported * 25} % of the training budget used")

    return progress
