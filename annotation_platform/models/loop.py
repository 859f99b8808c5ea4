"""One turn of the learning loop: train on a version, test, promote or keep."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.models.cards import ModelCard, policy_digest
from annotation_platform.models.detector import predict_files
from annotation_platform.models.evaluation import Evaluation, decide_promotion, evaluate
from annotation_platform.models.pictures import Example
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.models.training import train_detector
from annotation_platform.params import Params
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import make_table

PicturePath = Callable[[str, str], Path]


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

    Learning goes on from the promoted model, whose knowledge of the classes that both know is
    kept. ``report`` is told in sentences how far it is.
    """
    examples = _examples(training_set[training_set["split"] == "train"], picture_path)
    names = policy.ontology.names
    promoted = registry.promoted()
    trained = train_detector(
        examples,
        class_names=names,
        policy=policy.training,
        seed=policy.seed,
        start_from=registry.weights_path(promoted) if promoted else None,
        progress=_in_quarters(report),
    )
    card = ModelCard(
        architecture=trained.architecture,
        class_names=tuple(names),
        image_width=policy.training.image_width,
        dataset_tag=dataset_tag,
        started_from=trained.started_from,
        train_images=trained.images,
        cpu_seconds=trained.cpu_seconds,
        seed=policy.seed,
        policy_digest=policy_digest(policy.training),
    )
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": dataset_tag,
        "weights_sha256": registry.add(trained.state, card),
        "started_from": card.started_from,
        "train_images": trained.images,
        "epochs": trained.epochs,
        "cpu_seconds": trained.cpu_seconds,
        "final_loss": trained.final_loss,
    }
    return make_table("trained_model", [row])


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

    Raises:
        NotReadyError: the test split is empty, so nothing can be compared.
    """
    test = training_set[training_set["split"] == "test"]
    if test.empty:
        raise NotReadyError(
            f"the test split of {round_id} is empty, so no model can be judged. "
            "It grows with every round; label more images, or raise splits.test in params.yaml."
        )
    weights = str(trained_model["weights_sha256"].iloc[0])
    promoted = registry.promoted()
    new = _test(registry, weights, test, picture_path, ontology)
    # A model already promoted (this job ran before) is not compared with itself.
    old = None
    if promoted is not None and promoted != weights:
        old = _test(registry, promoted, test, picture_path, ontology)
    decision = decide_promotion(new, old)
    if decision.promoted:
        registry.promote(weights, decision.reason)
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": str(trained_model["dataset_tag"].iloc[0]),
        "weights_sha256": weights,
        "test_images": new.images,
        "map50": new.map50,
        "map": new.map,
        "promoted_map50": old.map50 if old is not None else None,
        "promoted": decision.promoted,
        "reason": decision.reason,
    }
    return EvaluatedRound(make_table("model_evaluation", [row]), new.per_class)


def _test(
    registry: ModelRegistry,
    weights: str,
    test: pd.DataFrame,
    picture_path: PicturePath,
    ontology: Ontology,
) -> Evaluation:
    images = test.drop_duplicates("image_id")
    files = zip(images["image_id"], images["extension"], strict=True)
    paths = {image_id: picture_path(image_id, extension) for image_id, extension in files}
    predictions = predict_files(registry.load(weights), paths)
    return evaluate(Dataset.from_training_set(test, ontology), predictions)


def _examples(training_set: pd.DataFrame, picture_path: PicturePath) -> list[Example]:
    examples = []
    for image_id, rows in training_set.groupby("image_id", sort=True):
        boxes = rows[rows["shape"] == "box"]
        examples.append(
            Example(
                image_id=str(image_id),
                path=picture_path(str(image_id), str(rows["extension"].iloc[0])),
                boxes=as_boxes(boxes[BOX_COLUMNS]),
                class_names=tuple(boxes["class_name"]),
            )
        )
    return examples


def _in_quarters(report: Callable[[str], None]) -> Callable[[float], None]:
    """Return a progress callback that reports each quarter of the budget once."""
    told = 0

    def progress(share: float) -> None:
        nonlocal told
        if int(share * 4) > told:
            told = int(share * 4)
            report(f"{told * 25} % of the training budget used")

    return progress
