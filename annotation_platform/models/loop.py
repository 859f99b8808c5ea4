"""One turn of the learning loop: train on a version, test, promote or keep.

Boxes here, choices in ``choice_loop.py``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.models.cards import policy_digest
from annotation_platform.models.classification.loop import (
    EvaluatedClassifier,
    choice_share,
    judge_classifications,
    part_of,
    train_classifier_round,
)
from annotation_platform.models.classification.predictions import PROFILE
from annotation_platform.models.detection.detector import empty_predictions, predict_files
from annotation_platform.models.detection.learning import train_model
from annotation_platform.models.evaluation.evaluation import Evaluation, evaluate, figure_intervals
from annotation_platform.models.evaluation.promotion import Promotion, best_of, decide_promotion
from annotation_platform.models.kinds import judge, predecessors, starting_weights
from annotation_platform.models.metrics_files import metrics_files
from annotation_platform.models.network_inputs import ImagePath, image_paths
from annotation_platform.models.predictions import calibrate_new
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import Frame, ModelEvaluations, TrainedModels

_NO_TEST_IMAGE = Promotion(
    False,
    "Not promoted: the test split has no image yet, so no model can be judged. "
    "It grows with every round; label more images, or raise splits.test in params.yaml.",
)


@dataclass(frozen=True)
class EvaluatedRound:
    """The ``model_evaluation`` of a round, and what it rests on."""

    table: Frame[ModelEvaluations]
    per_class: dict[str, float]  # mAP@0.5 by class
    evaluation: Evaluation | None  # of the new model; None: there is no test image
    predictions: pd.DataFrame  # of the new model on the test images
    choices: EvaluatedClassifier


@dataclass(frozen=True)
class _TestedDetector:
    """A detector's evaluation on the test images, and its predictions for them."""

    evaluation: Evaluation
    predictions: pd.DataFrame


@dataclass(frozen=True)
class _Detectors:
    """The kind of model that puts boxes round objects; see ``ModelKind``."""

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
    training_set: pd.DataFrame,
    *,
    dataset_tag: str,
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
    report: Callable[[str], None],
    weights: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Train on the train split, put the weights into the registry, return ``trained_model``.

    Learning goes on from ``starting_weights``, whose knowledge of the classes that both know is
    kept. What the scores mean is learned from the val split. ``report`` is told in sentences how
    far it is; ``weights`` say how often images are learned from, as in ``train_detector``.
    Files for TensorBoard or DVCLive, if the policy asks for them, are in ``runs/<round>`` of the
    registry.

    A detector and a classifier share the budget as ``choice_share`` says; where there is nothing
    to learn from for one of them, there is none. What is said of the model is said of the
    detector, where there is one.
    """
    share = choice_share(training_set[training_set["split"] == "train"], policy)
    progress = _in_quarters(report)
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": dataset_tag,
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
        row |= _learned_choices(
            training_set,
            dataset_tag=dataset_tag,
            registry=registry.classifiers,
            image_path=image_path,
            policy=policy,
            budget=part_of(policy.training, share),
            progress=lambda done: progress(share * done),
        )
        spent = float(str(row["cpu_seconds"]))
    if share < 1.0:
        row |= _learned_boxes(
            round_id,
            training_set,
            dataset_tag=dataset_tag,
            registry=registry,
            image_path=image_path,
            policy=policy,
            budget=part_of(policy.training, 1.0 - share),
            progress=lambda done: progress(share + (1.0 - share) * done),
            report=report,
            weights=weights,
        )
        spent += float(str(row["cpu_seconds"]))
    return TrainedModels.from_rows([row | {"cpu_seconds": spent}])


def _learned_boxes(
    round_id: str,
    training_set: pd.DataFrame,
    *,
    dataset_tag: str,
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
    budget: TrainingPolicy,
    progress: Callable[[float], None],
    report: Callable[[str], None],
    weights: Mapping[str, float] | None,
) -> dict[str, object]:
    """Train and keep the detector; return what ``trained_model`` says of it."""
    train = training_set[training_set["split"] == "train"]
    held_out = training_set[training_set["split"] == "val"]
    before = starting_weights(registry, dataset_tag)
    with metrics_files(budget, registry.folder / "runs" / round_id) as record:
        model = train_model(
            Dataset.from_training_set(train, policy.ontology).boxes(),
            image_paths(train, image_path),
            policy=budget,
            seed=policy.seed,
            dataset_tag=dataset_tag,
            start_from=registry.weights_path(before) if before else None,
            progress=progress,
            weights=weights,
            record=record,
        )
    trained = model.detector
    if trained.images_at_a_time < policy.training.batch_size:
        report(
            f"Memory was too small for batches of {policy.training.batch_size}: learned from "
            f"{trained.images_at_a_time} images at a time, at last on {trained.device}."
        )
    meaning = calibrate_new(
        registry,
        trained.state,
        Dataset.from_training_set(held_out, policy.ontology).boxes(),
        image_paths(held_out, image_path),
        policy=policy,
    )
    card = model.card.model_copy(update={"calibrations": {meaning.profile: meaning.digest}})
    return {
        "weights_sha256": registry.add(trained.state, card),
        "started_from": trained.started_from,
        "train_images": trained.images,
        "epochs": trained.epochs,
        "cpu_seconds": trained.cpu_seconds,
        "final_loss": trained.final_loss,
        "steps": trained.steps,
        "profile": meaning.profile,
        "calibration": meaning.digest,
        "calibration_images": meaning.calibration.images,
        "calibration_error_before": meaning.calibration.error_before,
        "calibration_error": meaning.calibration.error_after,
    }


def _learned_choices(
    training_set: pd.DataFrame,
    *,
    dataset_tag: str,
    registry: ModelRegistry,
    image_path: ImagePath,
    policy: Policy,
    budget: TrainingPolicy,
    progress: Callable[[float], None],
) -> dict[str, object]:
    """Train and keep the classifier; return what ``trained_model`` says where it is all there is.

    A detector's figures take the place of those that both have.
    """
    learned = train_classifier_round(
        training_set,
        dataset_tag=dataset_tag,
        registry=registry,
        image_path=image_path,
        policy=policy,
        budget=budget,
        progress=progress,
    )
    trained, meaning = learned.trained, learned.temperature
    return {
        "started_from": trained.started_from,
        "train_images": trained.images,
        "epochs": trained.epochs,
        "cpu_seconds": trained.cpu_seconds,
        "final_loss": trained.final_loss,
        "steps": trained.steps,
        "profile": PROFILE,
        "calibration": meaning.meaning,
        "calibration_images": meaning.images,
        "calibration_error_before": meaning.error_before,
        "calibration_error": meaning.error_after,
        "classifier_sha256": learned.weights_sha256,
        "classifier_images": trained.images,
        "classifier_steps": trained.steps,
        "classifier_calibration": meaning.meaning,
        "choice_error_before": meaning.error_before,
        "choice_error": meaning.error_after,
    }


def evaluate_round(
    round_id: str,
    trained_model: pd.DataFrame,
    training_set: pd.DataFrame,
    *,
    registry: ModelRegistry,
    image_path: ImagePath,
    ontology: Ontology,
) -> EvaluatedRound:
    """Test the new model and those before it on the same test images; promote it or not.

    It is compared with the promoted model and with the best of those ever promoted, as it was
    known when that one took over. With no test image nothing is promoted and the figures are
    missing. A model that an earlier run of this job promoted is compared with the one promoted
    before it, as it was then. A round that runs again after a model of a later version was
    promoted must give a better one than that, see ``decide_promotion``.

    The classifier is judged by itself, see ``judge_classifications``; where there is no detector,
    what is
    decided of it is what is decided.
    """
    weights = str(trained_model["weights_sha256"].iloc[0])
    test = training_set[training_set["split"] == "test"]
    choices = judge_classifications(
        round_id,
        str(trained_model.iloc[0].get("classifier_sha256", "")),
        str(trained_model["dataset_tag"].iloc[0]),
        training_set,
        registry=registry.classifiers,
        image_path=image_path,
        ontology=ontology,
    )
    if not weights:
        decided = {"promoted": choices.decision.promoted, "reason": choices.decision.reason}
        row = {"test_images": test["image_id"].nunique(), "best_sha256": ""} | decided
        table = ModelEvaluations.from_rows([_row(round_id, trained_model, row, choices)])
        return EvaluatedRound(table, {}, None, empty_predictions(), choices)
    truth = Dataset.from_training_set(test, ontology).boxes()
    if test.empty:
        row = {"test_images": 0, "best_sha256": predecessors(registry, weights).best}
        row |= _judged(_NO_TEST_IMAGE)
        table = ModelEvaluations.from_rows([_row(round_id, trained_model, row, choices)])
        return EvaluatedRound(table, {}, None, empty_predictions(), choices)

    kind = _Detectors(registry, truth, image_paths(test, image_path))
    tag = str(trained_model["dataset_tag"].iloc[0])
    judged = judge(kind, weights, tag, registry=registry)
    new, promoted = judged.new.evaluation, judged.promoted
    row = {
        "test_images": new.images,
        "promoted_map": promoted.evaluation.map if promoted else None,
        "promoted_map50": promoted.evaluation.map50 if promoted else None,
        "best_sha256": judged.best_sha256,
    }
    row |= _judged(judged.decision) | _figures(new)
    table = ModelEvaluations.from_rows([_row(round_id, trained_model, row, choices)])
    return EvaluatedRound(table, new.per_class, new, judged.new.predictions, choices)


def _row(
    round_id: str,
    trained_model: pd.DataFrame,
    figures: dict[str, object],
    choices: EvaluatedClassifier,
) -> dict[str, object]:
    learned = trained_model.iloc[0]
    names = {name: str(learned[name]) for name in ("dataset_tag", "weights_sha256")}
    found = choices.evaluation
    accuracy = found.accuracy if found else None
    said: dict[str, object] = {
        "classifier_sha256": choices.weights_sha256,
        "choice_images": found.images if found else 0,
        "accuracy": accuracy.value if accuracy else None,
        "accuracy_low": accuracy.low if accuracy else None,
        "accuracy_high": accuracy.high if accuracy else None,
        "promoted_accuracy": choices.promoted_accuracy,
        "classifier_promoted": choices.decision.promoted,
        "classifier_reason": choices.decision.reason,
    }
    return {"round_id": round_id} | names | figures | said


def _judged(decision: Promotion) -> dict[str, object]:
    found = decision.comparison.map if decision.comparison else None
    return {
        "difference": found.value if found else None,
        "difference_low": found.low if found else None,
        "difference_high": found.high if found else None,
        "promoted": decision.promoted,
        "reason": decision.reason,
    }


def _figures(new: Evaluation) -> dict[str, object]:
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
    told = 0

    def progress(share: float) -> None:
        nonlocal told
        if int(share * 4) > told:
            told = int(share * 4)
            report(f"{told * 25} % of the training budget used")

    return progress
