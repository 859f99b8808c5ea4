"""Training of the detector within a budget of processor time."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.models.cards import SMALL_FCOS
from annotation_platform.models.detection.detector import best_device, image_tensor
from annotation_platform.models.fitting import (
    FitResult,
    TrainingBudget,
    TrainingOptions,
    fit_network,
    initial_weights,
    quiet_torch,
    shuffled_batches,
)
from annotation_platform.models.memory import MemoryLimit, enough_memory
from annotation_platform.models.network_inputs import (
    Augmentation,
    Sample,
    SampleCache,
    TrainingExample,
    augment,
)
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.geometry import as_boxes, box_areas

if TYPE_CHECKING:
    import torch
    from torch import nn


_REMEDY = "Lower training.image_width in params.yaml, or train on a larger machine."


@dataclass(frozen=True)
class TrainedDetector:
    """A trained detector and the facts of its training."""

    state: bytes  # the file of weights
    architecture: str
    started_from: str  # SHA-256 or name of the initial weights; empty: from scratch
    epochs: float  # passes over the images
    cpu_seconds: float  # processor time, decoding included
    final_loss: float  # mean over the last tenth of the steps
    images: int  # training images, those without boxes included
    steps: int
    skipped_steps: int  # steps whose loss was not finite
    images_at_a_time: int  # the batch size, or the part of it that fitted into memory
    device: str  # of the last step: cpu or cuda


def train_detector(
    examples: Sequence[TrainingExample],
    *,
    class_names: Sequence[str],
    policy: TrainingPolicy,
    seed: int,
    weights: Mapping[str, float] | None = None,
    augmentation: Augmentation | None = None,
    options: TrainingOptions | None = None,
) -> TrainedDetector:
    """Return a detector trained on ``examples`` for ``policy.cpu_seconds`` of processor time.

    It starts from ``initial_weights``, ours or torchvision's, or else from scratch. Two runs take
    different numbers of steps and give different weights. With ``policy.steps`` above 0 the budget
    is in steps: then one kind of processor and one seed always give the same weights.

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
        ModelError: see ``fit_network`` and ``initial_weights``; or one image exceeds the memory.
    """
    from annotation_platform.models.detection.weight_files import write_weights

    _check(examples, class_names)
    options, started = options or TrainingOptions(), time.process_time()
    names, width = tuple(class_names), policy.image_width
    with quiet_torch(seed, policy.threads), enough_memory("training", _REMEDY):
        network, architecture, started_from = _first_network(policy, options.start_from, names)
        budget = TrainingBudget(started, policy.cpu_seconds, policy.steps or None)
        order = _order(examples, weights, np.random.default_rng([seed, 1]))
        images = _Images(SampleCache(examples, names, width), order, augmentation or Augmentation())
        memory = MemoryLimit(best_device(), policy.batch_size)
        batches = images.batches(policy.batch_size, seed)
        result = _fit(network, batches, budget, memory, policy.learning_rate, options)
        state = write_weights(
            network, architecture=architecture, class_names=names, image_width=width
        )
    return TrainedDetector(
        state=state,
        architecture=architecture,
        started_from=started_from,
        epochs=budget.steps * policy.batch_size / len(examples),
        cpu_seconds=time.process_time() - started,
        final_loss=result.final_loss,
        images=len({example.image_id for example in examples}),
        steps=budget.steps,
        skipped_steps=result.skipped,
        images_at_a_time=memory.images,
        device=memory.device,
    )


def _fit(
    network: "nn.Module",
    batches: Iterator[list[Sample]],
    budget: TrainingBudget,
    memory: MemoryLimit,
    learning_rate: float,
    options: TrainingOptions,
) -> FitResult:
    """Fit the network to the batches, which are prepared one step ahead."""
    with _ahead(batches) as ready:
        return fit_network(
            network,
            ready,
            lambda samples, device: _loss(network, samples, device),
            budget=budget,
            memory=memory,
            learning_rate=learning_rate,
            options=options,
        )


def _loss(network: "nn.Module", samples: Sequence[Sample], device: str) -> "torch.Tensor":
    import torch

    images = [image_tensor(sample.pixels, device) for sample in samples]
    targets = [
        {
            "boxes": torch.from_numpy(sample.boxes).float().to(device),
            "labels": torch.from_numpy(sample.labels).to(device),
        }
        for sample in samples
    ]
    with torch.autocast(device, dtype=torch.bfloat16, enabled=_bfloat16_helps(device)):
        parts: dict[str, torch.Tensor] = network(images, targets)
    return torch.stack(list(parts.values())).sum()


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


@dataclass(frozen=True)
class _Images:
    """The training images, the order of a pass over them, and their augmentation."""

    cache: SampleCache
    order: Callable[[], list[int]]
    augmentation: Augmentation

    def batches(self, size: int, seed: int) -> Iterator[list[Sample]]:
        """Yield batches endlessly, pass after pass, shuffled, each image augmented."""
        rng = np.random.default_rng(seed)
        for chosen in shuffled_batches(self.order, size, rng):
            samples = [augment(self.cache[index], self.augmentation, rng) for index in chosen]
            yield [_with_area(sample) for sample in samples]


@contextmanager
def _ahead(batches: Iterator[list[Sample]]) -> Iterator[Iterator[list[Sample]]]:
    """Yield the batches in order, each prepared while the network trains on the one before."""
    with ThreadPoolExecutor(max_workers=1) as maker:

        def ready() -> Iterator[list[Sample]]:
            following = maker.submit(next, batches)
            while True:
                batch = following.result()
                following = maker.submit(next, batches)
                yield batch

        yield ready()


def _with_area(sample: Sample) -> Sample:
    # Cropping can leave slivers that vanish in single precision; FCOS refuses them.
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    solid = (sides > 0.1).all(axis=1)
    return Sample(sample.pixels, sample.boxes[solid], sample.labels[solid])


def _first_network(
    policy: TrainingPolicy, start_from: Path | None, class_names: tuple[str, ...]
) -> tuple["nn.Module", str, str]:
    from annotation_platform.models.detection import weight_files
    from annotation_platform.models.detection.networks import build_network

    first = initial_weights(
        policy.weights,
        start_from,
        setting="training.weights",
        wanted_sha256=policy.weights_sha256,
        default=weight_files.default_weights,
        read=lambda data, where: weight_files.read_weights(data, where=where),
    )
    if first is None:
        return build_network(SMALL_FCOS, classes=len(class_names)), SMALL_FCOS, ""
    network = build_network(first.content.architecture, classes=len(class_names))
    weight_files.start_network(network, first.content, class_names=class_names, where=first.where)
    return network, first.content.architecture, first.origin


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
