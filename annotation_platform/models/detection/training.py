"""Training of detectors: their images and their loss, for ``training.train_network``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.models.cards import SMALL_FCOS
from annotation_platform.models.detection.detector import image_tensor
from annotation_platform.models.fitting import TrainingOptions, shuffled_batches
from annotation_platform.models.memory import MemoryLimit
from annotation_platform.models.network_inputs import (
    Augmentation,
    Sample,
    SampleCache,
    TrainingExample,
    augment,
    tile_examples,
)
from annotation_platform.models.training import (
    TrainedNetwork,
    TrainingSetup,
    train_network,
)
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes, box_areas

if TYPE_CHECKING:
    import torch
    from torch import nn

    from annotation_platform.models.weight_files import WeightFormat


def train_detector(
    examples: Sequence[TrainingExample],
    *,
    class_names: Sequence[str],
    policy: TrainingPolicy,
    seed: int,
    weights: Mapping[str, float] | None = None,
    augmentation: Augmentation | None = None,
    options: TrainingOptions | None = None,
) -> TrainedNetwork:
    """Return a detector trained on ``examples``; see ``training.train_network``.

    Args:
        examples: images with their boxes; their order is part of the result. Those without boxes
            count as background; boxes without an area are left out.
        class_names: every class, in the order of the outputs.
        policy: budget, image size, batch size, learning rate, initial weights.
        seed: of the initial weights, the order of the images and their augmentation.
        weights: relative frequency by image id, 1 where missing, 0: never; None: once a pass.
        augmentation: of the images.
        options: initial weights and callbacks.

    Raises:
        NotReadyError: there is no image, or no box with an area.
        DataError: a box is of an unknown class or not of numbers, or an image cannot be read.
        ModelError: see ``train_network``.
    """
    _check(examples, class_names)
    names, width = tuple(class_names), policy.image_width
    setup = TrainingSetup(
        architecture=SMALL_FCOS,
        class_names=names,
        side=width,
        setting="training.weights",
        weights=policy.weights,
        weights_sha256=policy.weights_sha256,
        augmentation=augmentation or Augmentation(),
        batch_size=policy.batch_size,
        examples=len(examples),
        images=len({example.image_id for example in examples}),
    )
    order = _order(examples, weights, np.random.default_rng([seed, 1]))
    trainee = _Detection(setup, SampleCache(examples, names, width), order)
    return train_network(trainee, policy=policy, seed=seed, options=options)


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


@dataclass(frozen=True)
class _Detection:
    """The training of a detector; see ``training.Trainee``."""

    setup: TrainingSetup
    samples: SampleCache
    order: Callable[[], list[int]]  # of the next pass, not yet shuffled

    def files(self) -> "WeightFormat":
        from annotation_platform.models.weight_files import DETECTOR_FILES

        return DETECTOR_FILES

    def batches(self, seed: int) -> Iterator[list[Sample]]:
        rng = np.random.default_rng(seed)
        augmentation = self.setup.augmentation
        for chosen in shuffled_batches(self.order, self.setup.batch_size, rng):
            varied = [augment(self.samples[index], augmentation, rng) for index in chosen]
            yield [_with_area(sample) for sample in varied]

    def loss(self, network: "nn.Module", batch: Sequence[Sample], device: str) -> "torch.Tensor":
        import torch

        images = [image_tensor(sample.pixels, device) for sample in batch]
        targets = [
            {
                "boxes": torch.from_numpy(sample.boxes).float().to(device),
                "labels": torch.from_numpy(sample.labels).to(device),
            }
            for sample in batch
        ]
        with torch.autocast(device, dtype=torch.bfloat16, enabled=_bfloat16_helps(device)):
            parts: dict[str, torch.Tensor] = network(images, targets)
        return torch.stack(list(parts.values())).sum()

    def settle(self, network: "nn.Module", memory: MemoryLimit, seed: int) -> None:
        """Leave the network as it is."""


def _bfloat16_helps(device: str) -> bool:
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    # Processors without these instructions emulate them, at several times the cost.
    return bool(torch.cpu._is_avx512_bf16_supported())


def _order(
    examples: Sequence[TrainingExample],
    weights: Mapping[str, float] | None,
    rng: np.random.Generator,
) -> Callable[[], list[int]]:
    """Return a function that gives the image numbers of the next pass, not yet shuffled.

    A pass has as many images as there are examples. An image of weight w occurs w / mean weight
    times in the mean: the fraction is drawn at random, so that over many passes shares are exact.
    """
    count = len(examples)
    if weights is None:
        return lambda: list(range(count))
    wanted = np.array([weights.get(one.image_id, 1.0) for one in examples], dtype=np.float64)
    if not np.isfinite(wanted).all() or (wanted < 0).any() or wanted.sum() == 0:
        raise DataError(
            "image weights must be numbers of at least 0, and one of them above 0. Correct them."
        )
    edges = np.concatenate([[0.0], np.cumsum(wanted * count / wanted.sum())])
    # Systematic sampling: equally spaced marks with one random offset select from the shares.
    return lambda: np.repeat(
        np.arange(count), np.diff(np.floor(edges + rng.random()).astype(np.int64))
    ).tolist()


def _with_area(sample: Sample) -> Sample:
    # Cropping can leave slivers that vanish in single precision; FCOS refuses them.
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    solid = (sides > 0.1).all(axis=1)
    return Sample(sample.pixels, sample.boxes[solid], sample.labels[solid])


def _check(examples: Sequence[TrainingExample], class_names: Sequence[str]) -> None:
    if not examples:
        raise NotReadyError("there is no image to train on. Label and release a round first.")
    known, boxes = set(class_names), 0
    for example in examples:
        unknown = sorted(set(example.class_names) - known)
        if unknown:
            raise DataError(
                f"image {example.image_id}: class {unknown[0]!r} is not in the ontology "
                f"({', '.join(class_names)}). Correct the label or add the class."
            )
        corners = as_boxes(example.boxes)
        if len(corners) != len(example.class_names) or not np.isfinite(corners).all():
            raise DataError(
                f"image {example.image_id}: {len(corners)} boxes, {len(example.class_names)} "
                "classes; every box needs four numbers and one class. Correct the labels."
            )
        boxes += int((box_areas(corners) > 0).sum())
    if boxes == 0:
        raise NotReadyError(
            f"none of the {len(examples)} images has a box to train on. "
            "Label some objects and release a round first."
        )
