"""What the stages of ``dvc.yaml`` call: learn from a version's folder, and test on it."""

import json
from collections.abc import Callable
from pathlib import Path

from annotation_platform.errors import NotReadyError
from annotation_platform.formats.coco import read_coco
from annotation_platform.models.cards import ModelCard, policy_digest
from annotation_platform.models.detector import Detector, predict_files
from annotation_platform.models.evaluation import Evaluation, evaluate
from annotation_platform.models.training import Example, TrainedDetector, train_detector
from annotation_platform.params import TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.storage.objects import LocalObjectStore

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
) -> TrainedDetector:
    """Learn from a version's train split; write ``detector.pt`` and ``card.json`` into ``out``.

    Args:
        folder: a version's ``datasets/training-set``: ``images/train/…`` and ``coco/*.json``.
        policy: see ``train_detector``.
        seed: see ``train_detector``.
        out: made if missing; its two files are replaced.
        progress: told the share of the budget that is used, 0 to 1.
        dataset_tag: the version's tag, for the card.
        start_from: weights to start from where the policy names none.

    Raises:
        FormatError: the COCO files cannot be read.
        NotReadyError: the train split has no box to learn from.
    """
    dataset = _split(read_coco(folder), "train")
    trained = train_detector(
        examples_of(dataset, folder),
        class_names=dataset.ontology.names,
        policy=policy,
        seed=seed,
        start_from=start_from,
        progress=progress,
    )
    card = ModelCard(
        architecture=trained.architecture,
        class_names=tuple(dataset.ontology.names),
        image_width=policy.image_width,
        dataset_tag=dataset_tag,
        started_from=trained.started_from,
        train_images=trained.images,
        cpu_seconds=round(trained.cpu_seconds, 3),
        seed=seed,
        policy_digest=policy_digest(policy),
    )
    store = LocalObjectStore(out)
    store.put(WEIGHTS, trained.state)
    store.put(CARD, card.to_json().encode())
    return trained


def evaluate_on_version(folder: Path, weights: Path, out: Path) -> Evaluation:
    """Test the file ``weights`` on a version's test split and write the figures as JSON to ``out``.

    The keys are ``map50``, ``map``, ``test_images`` and ``per_class`` (at IoU 0.5).

    Raises:
        NotReadyError: the version has no test split yet, so no figure would mean anything.
    """
    evaluation = evaluate_detector(folder, Detector.from_file(weights))
    metrics = {
        "map50": round(evaluation.map50, 6),
        "map": round(evaluation.map, 6),
        "test_images": evaluation.images,
        "per_class": {name: round(value, 6) for name, value in evaluation.per_class.items()},
    }
    text = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
    LocalObjectStore(out.parent).put(out.name, text.encode())
    return evaluation


def evaluate_detector(folder: Path, detector: Detector) -> Evaluation:
    """Return how well ``detector`` does on a version's test split; see ``evaluate_on_version``."""
    truth = _split(read_coco(folder), "test")
    if truth.images.empty:
        raise NotReadyError(
            f"{folder}: the version has no test pictures yet. Release more rounds, "
            "or raise splits.test in params.yaml."
        )
    paths = dict(zip(truth.images["image_id"], _paths(truth, folder), strict=True))
    return evaluate(truth, predict_files(detector, paths))


def examples_of(dataset: Dataset, folder: Path) -> list[Example]:
    """Return every picture of ``dataset`` as an example, boxes or not, sorted by image id."""
    labels = dict(iter(dataset.labels.groupby("image_id")))
    nothing = dataset.labels.iloc[:0]
    examples = []
    for image_id, path in zip(dataset.images["image_id"], _paths(dataset, folder), strict=True):
        rows = labels.get(image_id, nothing)
        boxes = rows[BOX_COLUMNS].to_numpy(dtype=float)
        examples.append(Example(image_id, path, boxes, rows["class_name"].tolist()))
    return sorted(examples, key=lambda example: example.image_id)


def _paths(dataset: Dataset, folder: Path) -> list[Path]:
    return [folder / name for name in dataset.images["file_name"]]


def _split(dataset: Dataset, split: str) -> Dataset:
    images = dataset.images[dataset.images["split"] == split]
    labels = dataset.labels[dataset.labels["image_id"].isin(images["image_id"])]
    return Dataset(images, labels, dataset.ontology)
