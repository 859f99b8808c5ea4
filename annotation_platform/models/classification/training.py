"""Training of the classifier of whole images, within a share of the training budget."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.images.decoding import Pixels
from annotation_platform.models.cards import SMALL_RESNET
from annotation_platform.models.classification.calibration import Choose
from annotation_platform.models.classification.classifier import square, squares_tensor
from annotation_platform.models.detection.detector import best_device
from annotation_platform.models.fitting import (
    TrainingBudget,
    TrainingOptions,
    fit_network,
    initial_weights,
    quiet_torch,
    shuffled_batches,
)
from annotation_platform.models.memory import MemoryLimit, enough_memory
from annotation_platform.models.network_inputs import Augmentation, Sample, augment, read_image
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.geometry import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import nn

LARGEST_SIDE = 224
"""Side of the largest square, pixels: the size that published classifiers are trained with."""

# A batch has this multiple of ``policy.batch_size`` images: a classifier's square has at most a
# quarter of the pixels of a detector's image.
_TIMES_AS_MANY = 4
_CACHE_BYTES = 1 << 30
_REMEDY = "Lower training.batch_size in params.yaml, or train on a larger machine."
# Largest number of images from which the norm statistics are estimated at the end.
_NORM_IMAGES = 256

_Pair = tuple[Pixels, FloatArray]
"""A square and its row of targets."""


@dataclass(frozen=True)
class ClassificationExample:
    """One training image: its file, and the classes assigned to it."""

    image_id: str
    path: Path
    chosen: tuple[str, ...]


@dataclass(frozen=True)
class TrainedClassifier:
    """A trained classifier and the facts of its training."""

    state: bytes  # the file of weights
    architecture: str
    started_from: str  # SHA-256 or name of the initial weights; empty: from scratch
    side: int  # of the square that images are resized to, pixels
    epochs: float  # passes over the images
    cpu_seconds: float  # processor time, decoding included
    final_loss: float  # mean over the last tenth of the steps
    images: int
    steps: int


def train_classifier(
    examples: Sequence[ClassificationExample],
    *,
    class_names: Sequence[str],
    choose: Choose,
    policy: TrainingPolicy,
    seed: int,
    options: TrainingOptions | None = None,
) -> TrainedClassifier:
    """Return a classifier trained on ``examples`` for ``policy.cpu_seconds``.

    It starts from ``initial_weights`` or from scratch. With ``policy.steps`` above 0 the budget is
    in steps: then one kind of processor and one seed always give the same weights.

    Args:
        examples: images with one class, or at least one (``many``); the order affects the result.
        class_names: every class, in the order of the outputs.
        choose: whether one class holds for an image, or any number.
        policy: budget, image width (squares of at most 224 pixels), batch size, learning rate.
        seed: of the initial weights, the order of the images and their augmentation.
        options: initial weights and callbacks.

    Raises:
        NotReadyError: there is no image.
        DataError: a class is unknown, an image has too many, or it cannot be read.
        ModelError: see ``fit_network`` and ``initial_weights``; or one image exceeds the memory.
    """
    from annotation_platform.models.classification.weight_files import write_classifier

    names, options = tuple(class_names), options or TrainingOptions()
    targets, started = _targets(examples, names, choose), time.process_time()
    side, size = min(policy.image_width, LARGEST_SIDE), policy.batch_size * _TIMES_AS_MANY
    images = _Squares(examples, side)
    with quiet_torch(seed, policy.threads), enough_memory("training", _REMEDY):
        network, architecture, started_from = _first_network(policy, options.start_from, names)
        memory = MemoryLimit(best_device(), size)
        result = fit_network(
            network,
            _batches(images, targets, size, seed),
            lambda pairs, device: _loss(network, pairs, choose, device),
            budget=TrainingBudget(started, policy.cpu_seconds, policy.steps or None),
            memory=memory,
            learning_rate=policy.learning_rate,
            options=options,
        )
        _settle_norms(network, images, memory, seed)
        state = write_classifier(
            network, architecture=architecture, class_names=names, choose=choose, side=side
        )
    return TrainedClassifier(
        state=state,
        architecture=architecture,
        started_from=started_from,
        side=side,
        epochs=result.steps * size / len(examples),
        cpu_seconds=time.process_time() - started,
        final_loss=result.final_loss,
        images=len(examples),
        steps=result.steps,
    )


def _loss(
    network: "nn.Module", pairs: Sequence[_Pair], choose: Choose, device: str
) -> "torch.Tensor":
    """Return cross entropy: over all classes where one holds, else of each class by itself."""
    import torch
    from torch.nn import functional

    logits = network(squares_tensor([pixels for pixels, _ in pairs], device))
    targets = torch.from_numpy(np.array([target for _, target in pairs])).float().to(device)
    if choose == "one":
        return functional.cross_entropy(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets)


class _Squares:
    """The images as squares, decoded at the first access; the first GiB of them is cached."""

    def __init__(self, examples: Sequence[ClassificationExample], side: int) -> None:
        self._paths = [each.path for each in examples]
        self._side = side
        self._cache: dict[int, Pixels] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Pixels:
        if index in self._cache:
            return self._cache[index]
        pixels = square(read_image(self._paths[index]), side=self._side)
        if (len(self._cache) + 1) * pixels.nbytes <= _CACHE_BYTES:
            self._cache[index] = pixels
        return pixels


def _batches(images: _Squares, targets: FloatArray, size: int, seed: int) -> Iterator[list[_Pair]]:
    """Yield batches endlessly, pass after pass over the images, shuffled, each image augmented."""
    rng, augmentation = np.random.default_rng(seed), Augmentation()
    nothing = Sample(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
    for chosen in shuffled_batches(lambda: range(len(images)), size, rng):
        samples = [replace(nothing, pixels=images[index]) for index in chosen]
        varied = [augment(each, augmentation, rng).pixels for each in samples]
        yield list(zip(varied, targets[chosen], strict=True))


def _settle_norms(network: "nn.Module", images: _Squares, memory: MemoryLimit, seed: int) -> None:
    """Set the norm statistics from images without augmentation.

    After few steps the running means lag behind; see Wu and Johnson, "Rethinking 'Batch' in
    BatchNorm", 2021.
    """
    import torch

    norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        # None: the mean of all batches with equal weights.
        norm.momentum = None
    order = np.random.default_rng([seed, 1]).permutation(len(images))[:_NORM_IMAGES]
    with torch.no_grad():
        for batch in np.array_split(order, math.ceil(len(order) / memory.images)):
            network(squares_tensor([images[int(index)] for index in batch], memory.device))


def _targets(
    examples: Sequence[ClassificationExample], names: tuple[str, ...], choose: Choose
) -> FloatArray:
    """Return ``(N, C)``, 1 where a class is assigned and else 0."""
    if not examples:
        raise NotReadyError(
            "no image has a classification to train on. Label some images and release a round "
            "first."
        )
    targets = np.zeros((len(examples), len(names)))
    for row, example in enumerate(examples):
        unknown = sorted(set(example.chosen) - set(names))
        if unknown:
            raise DataError(
                f"image {example.image_id}: {unknown[0]!r} is not a classification of the ontology "
                f"({', '.join(names)}). Correct the label or add the class."
            )
        if not example.chosen or (choose == "one" and len(example.chosen) > 1):
            raise DataError(
                f"image {example.image_id}: {len(example.chosen)} classifications, where {choose} "
                "may be chosen. Correct the labels."
            )
        targets[row, [names.index(name) for name in example.chosen]] = 1.0
    return targets


def _first_network(
    policy: TrainingPolicy, start_from: Path | None, class_names: tuple[str, ...]
) -> tuple["nn.Module", str, str]:
    from annotation_platform.models.classification import weight_files as files
    from annotation_platform.models.detection.networks import build_classifier

    first = initial_weights(
        policy.classifier_weights,
        start_from,
        setting="training.classifier_weights",
        wanted_sha256=policy.classifier_weights_sha256,
        default=files.default_classifier,
        read=lambda data, where: files.read_classifier(data, where=where),
    )
    if first is None:
        return build_classifier(SMALL_RESNET, classes=len(class_names)), SMALL_RESNET, ""
    network = build_classifier(first.content.architecture, classes=len(class_names))
    files.start_classifier(network, first.content, class_names=class_names, where=first.where)
    return network, first.content.architecture, first.origin
