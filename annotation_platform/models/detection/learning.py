"""Training of a detector on a dataset."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from annotation_platform.models.cards import ModelCard, policy_digest
from annotation_platform.models.detection.training import TrainedDetector, train_detector
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.network_inputs import Augmentation, TrainingExample, tile_examples
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes


@dataclass(frozen=True)
class TrainedModel:
    """A trained detector, and the card of its weights."""

    detector: TrainedDetector
    card: ModelCard


def train_model(
    dataset: Dataset,
    paths: Mapping[str, Path],
    *,
    policy: TrainingPolicy,
    seed: int,
    dataset_tag: str,
    weights: Mapping[str, float] | None = None,
    options: TrainingOptions | None = None,
) -> TrainedModel:
    """Return a detector trained on all images of ``dataset``, with its card.

    Its classes are those that are drawn as areas.

    Args:
        dataset: images and their boxes, as ``Dataset.boxes`` returns them.
        paths: the file of each image by image id.
        policy: see ``train_detector``.
        seed: see ``train_detector``.
        dataset_tag: written on the card.
        weights: see ``train_detector``.
        options: see ``train_detector``.

    Raises:
        NotReadyError, DataError, ModelError: see ``train_detector``.
    """
    names, augmentation = tuple(dataset.ontology.areas), Augmentation()
    trained = train_detector(
        examples_of(dataset, paths, tile_side=policy.tile_side),
        class_names=names,
        policy=policy,
        seed=seed,
        weights=weights,
        augmentation=augmentation,
        options=options,
    )
    card = ModelCard(
        architecture=trained.architecture,
        class_names=names,
        image_width=policy.image_width,
        dataset_tag=dataset_tag,
        started_from=trained.started_from,
        train_images=trained.images,
        cpu_seconds=round(trained.cpu_seconds, 3),
        seed=seed,
        policy_digest=policy_digest(policy),
        augmentation=asdict(augmentation),
    )
    return TrainedModel(trained, card)


def examples_of(
    dataset: Dataset, paths: Mapping[str, Path], *, tile_side: int = 0
) -> list[TrainingExample]:
    """Return every image of ``dataset`` as an example, with or without boxes, by image id.

    An image larger than ``tile_side`` is followed by its tiles of that side; 0: whole images only.
    """
    labels = dict(iter(dataset.labels.groupby("image_id")))
    nothing = dataset.labels.iloc[:0]
    examples = []
    images = dataset.images.sort_values("image_id")[["image_id", "width", "height"]]
    for image_id, width, height in images.itertuples(index=False):
        rows = labels.get(image_id, nothing)
        boxes = as_boxes(rows[BOX_COLUMNS])
        whole = TrainingExample(image_id, paths[image_id], boxes, rows["class_name"].tolist())
        examples.append(whole)
        if tile_side:
            examples += tile_examples(whole, width=width, height=height, side=tile_side)
    return examples
