"""One turn of the learning loop: train on a version, test, promote or keep."""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from annotation_platform.models.detector import predict_files
from annotation_platform.models.evaluation import (
    Evaluation,
    Promotion,
    decide_promotion,
    evaluate,
)
from annotation_platform.models.learning import train_model
from annotation_platform.models.pictures import PicturePath, picture_paths
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import make_table

_NO_TEST_IMAGE = Promotion(
    False,
    "Not promoted: the test split has no image yet, so no model can be judged. "
    "It grows with every round; label more images, or raise splits.test in params.yaml.",
)


@dataclass(frozen=True)
class EvaluatedRound:
    """The ``model_evaluation`` of a round, and mAP@0.5 by class."""

    table: pd.DataFrame  # schema.tables.MODEL_EVALUATIONS
    per_class: dict[str, float]


def train_round(
    round_id: str,
    training_set: pd.DataFrame,
    *,
    dataset_tag: str,
    registry: ModelRegistry,
    picture_path: PicturePath,
    policy: Params,
    report: Callable[[str], None],
) -> pd.DataFrame:
    """Train on the train split, put the weights into the registry, return ``trained_model``.

    Learning goes on from ``starting_weights``, whose knowledge of the classes that both know is
    kept. ``report`` is told in sentences how far it is.
    """
    train = training_set[training_set["split"] == "train"]
    before = starting_weights(registry, dataset_tag)
    model = train_model(
        Dataset.from_training_set(train, policy.ontology),
        picture_paths(train, picture_path),
        policy=policy.training,
        seed=policy.seed,
        dataset_tag=dataset_tag,
        start_from=registry.weights_path(before) if before else None,
        progress=_in_quarters(report),
    )
    trained = model.detector
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": dataset_tag,
        "weights_sha256": registry.add(trained.state, model.card),
        "started_from": trained.started_from,
        "train_images": trained.images,
        "epochs": trained.epochs,
        "cpu_seconds": trained.cpu_seconds,
        "final_loss": trained.final_loss,
    }
    return make_table("trained_model", [row])


def starting_weights(registry: ModelRegistry, dataset_tag: str) -> str | None:
    """Return the weights from which learning on a version goes on; None: from scratch.

    They are those promoted last among those that learned from another version. A model of this
    very version is what an earlier run of the same job left: the run after it starts where that
    one did.
    """
    return _promoted_last(registry, lambda one: registry.card(one).dataset_tag != dataset_tag)


def evaluate_round(
    round_id: str,
    trained_model: pd.DataFrame,
    training_set: pd.DataFrame,
    *,
    registry: ModelRegistry,
    picture_path: PicturePath,
    ontology: Ontology,
) -> EvaluatedRound:
    """Test the new model and the promoted one on the same test images, and promote the better.

    With no test image nothing is promoted and the figures are missing. A model that an earlier
    run of this job promoted is compared with the one promoted before it, as it was then.
    """
    weights = str(trained_model["weights_sha256"].iloc[0])
    test = training_set[training_set["split"] == "test"]
    new, old, decision = None, None, _NO_TEST_IMAGE
    if not test.empty:
        new = _test(registry, weights, test, picture_path, ontology)
        other = _promoted_last(registry, lambda one: one != weights)
        old = _test(registry, other, test, picture_path, ontology) if other else None
        decision = decide_promotion(new, old)
    if decision.promoted:
        registry.promote(weights, decision.reason)
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": str(trained_model["dataset_tag"].iloc[0]),
        "weights_sha256": weights,
        "test_images": new.images if new else 0,
        "map50": new.map50 if new else None,
        "map": new.map if new else None,
        "promoted_map50": old.map50 if old else None,
        "promoted": decision.promoted,
        "reason": decision.reason,
    }
    return EvaluatedRound(make_table("model_evaluation", [row]), new.per_class if new else {})


def _promoted_last(registry: ModelRegistry, wanted: Callable[[str], bool]) -> str | None:
    promoted = (record.weights_sha256 for record in reversed(registry.history()))
    return next(filter(wanted, promoted), None)


def _test(
    registry: ModelRegistry,
    weights: str,
    test: pd.DataFrame,
    picture_path: PicturePath,
    ontology: Ontology,
) -> Evaluation:
    predictions = predict_files(registry.load(weights), picture_paths(test, picture_path))
    return evaluate(Dataset.from_training_set(test, ontology), predictions)


def _in_quarters(report: Callable[[str], None]) -> Callable[[float], None]:
    """Return a progress callback that reports each quarter of the budget once."""
    told = 0

    def progress(share: float) -> None:
        nonlocal told
        if int(share * 4) > told:
            told = int(share * 4)
            report(f"{told * 25} % of the training budget used")

    return progress
