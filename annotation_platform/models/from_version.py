"""Training and evaluation on the folder of a dataset version, for the stages of ``dvc.yaml``."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from annotation_platform.errors import NotReadyError
from annotation_platform.formats.coco import read_coco_boxes
from annotation_platform.models.detection.detector import NetworkDetector, predict_files
from annotation_platform.models.detection.training import examples_of, train_detector
from annotation_platform.models.evaluation.evaluation import Evaluation, evaluate
from annotation_platform.models.evaluation.label_noise import SHARES, noise_curve
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.metrics_files import metrics_files
from annotation_platform.models.training import TrainedNetwork
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.storage.files import write_file

WEIGHTS = "detector.pt"
CARD = "card.json"


def train_on_version(
    folder: Path,
    policy: TrainingPolicy,
    seed: int,
    out: Path,
    progress: Callable[[float], None] | None = None,
    *,
    dataset_tag: str = "",
    start_from: Path | None = None,
) -> TrainedNetwork:
    """Train on a version's train split; write ``detector.pt`` and ``card.json`` into ``out``.

    If the policy asks for them, the files of ``metrics_files`` are written to ``out`` too.

    Args:
        folder: a version's ``datasets/training-set``: ``images/train/…`` and ``coco/*.json``.
        policy: see ``train_detector``.
        seed: see ``train_detector``.
        out: created if missing; its two files are replaced.
        progress: called with the share of the budget used, 0 to 1.
        dataset_tag: the version's tag, for the card.
        start_from: initial weights where the policy names none.

    Raises:
        FormatError: the COCO files cannot be read.
        NotReadyError: the train split has no box.
    """
    dataset = _split(read_coco_boxes(folder), "train")
    with metrics_files(policy, out) as record:
        trained = train_detector(
            examples_of(dataset, _paths(dataset, folder), tile_side=policy.tile_side),
            class_names=dataset.ontology.areas,
            policy=policy,
            seed=seed,
            options=TrainingOptions(start_from, progress, record),
        )
    card = trained.card(dataset_tag=dataset_tag, policy=policy, seed=seed)
    write_file(out / WEIGHTS, trained.state)
    write_file(out / CARD, card.to_json().encode())
    return trained


def evaluate_on_version(folder: Path, weights: Path, out: Path) -> Evaluation:
    """Evaluate the file ``weights`` on a version's test split; write figures as JSON to ``out``.

    The keys are ``map50``, ``map``, ``test_images`` and ``per_class`` (at IoU 0.5).

    Raises:
        NotReadyError: the version has no test images.
    """
    detector = NetworkDetector.from_file(weights)
    truth = _split(read_coco_boxes(folder), "test")
    if truth.images.empty:
        raise NotReadyError(
            f"{folder}: the version has no test images yet. Release more rounds, "
            "or raise splits.test in params.yaml."
        )
    evaluation = evaluate(truth, predict_files(detector, _paths(truth, folder)))
    metrics = {
        "map50": round(evaluation.map50, 6),
        "map": round(evaluation.map, 6),
        "test_images": evaluation.images,
        "per_class": {name: round(value, 6) for name, value in evaluation.per_class.items()},
    }
    write_file(out, (json.dumps(metrics, indent=2, ensure_ascii=False) + "\n").encode())
    return evaluation


def noise_curve_on_version(
    folder: Path,
    policy: TrainingPolicy,
    seed: int,
    *,
    shares: Sequence[float] = SHARES,
    progress: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """Return the ``noise_curve`` of a version's train and test split, without writing anything.

    Arguments and errors are those of ``label_noise.noise_curve``.
    """
    found = read_coco_boxes(folder)
    train, test = _split(found, "train"), _split(found, "test")
    paths = _paths(train, folder) | _paths(test, folder)
    return noise_curve(
        train, test, paths, policy=policy, seed=seed, shares=shares, progress=progress
    )


def _paths(dataset: Dataset, folder: Path) -> dict[str, Path]:
    files = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
    return {image_id: folder / name for image_id, name in files}


def _split(dataset: Dataset, split: str) -> Dataset:
    images = dataset.images[dataset.images["split"] == split]
    labels = dataset.labels[dataset.labels["image_id"].isin(images["image_id"])]
    return Dataset(images, labels, dataset.ontology).boxes()
