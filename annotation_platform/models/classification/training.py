"""Training of classifiers of whole images: their images and loss, for ``train_network``."""

import math
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
from annotation_platform.models.fitting import TrainingOptions, shuffled_batches
from annotation_platform.models.memory import MemoryLimit
from annotation_platform.models.network_inputs import Augmentation, Sample, augment, read_image
from annotation_platform.models.training import (
    TrainedNetwork,
    TrainingSetup,
    train_network,
)
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.geometry import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import nn

    from annotation_platform.models.weight_files import WeightFormat

LARGEST_SIDE = 224
"""Side of the largest square, pixels: the size that published classifiers are trained with."""

# A batch has this multiple of ``policy.batch_size`` images: a classifier's square has at most a
# quarter of the pixels of a detector's image.
_TIMES_AS_MANY = 4
_CACHE_BYTES = 1 << 30
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


def train_classifier(
    examples: Sequence[ClassificationExample],
    *,
    class_names: Sequence[str],
    choose: Choose,
    policy: TrainingPolicy,
    seed: int,
    options: TrainingOptions | None = None,
) -> TrainedNetwork:
    """Return a classifier trained on ``examples``; see ``training.train_network``.

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
        ModelError: see ``train_network``.
    """
    names, side = tuple(class_names), min(policy.image_width, LARGEST_SIDE)
    setup = TrainingSetup(
        architecture=SMALL_RESNET,
        class_names=names,
        side=side,
        choose=choose,
        setting="training.classifier_weights",
        weights=policy.classifier_weights,
        weights_sha256=policy.classifier_weights_sha256,
        augmentation=Augmentation(),
        batch_size=policy.batch_size * _TIMES_AS_MANY,
        examples=len(examples),
        images=len(examples),
    )
    targets = _targets(examples, names, choose)
    trainee = _Classification(setup, _Squares(examples, side), targets)
    return train_network(trainee, policy=policy, seed=seed, options=options)


@dataclass(frozen=True)
class _Classification:
    """The training of a classifier; see ``training.Trainee``."""

    setup: TrainingSetup
    squares: "_Squares"
    targets: FloatArray

    def files(self) -> "WeightFormat":
        from annotation_platform.models.weight_files import CLASSIFIER_FILES

        return CLASSIFIER_FILES

    def batches(self, seed: int) -> Iterator[list[_Pair]]:
        rng, count, size = np.random.default_rng(seed), self.setup.examples, self.setup.batch_size
        nothing = Sample(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
        for chosen in shuffled_batches(lambda: range(count), size, rng):
            samples = [replace(nothing, pixels=self.squares[index]) for index in chosen]
            varied = [augment(each, self.setup.augmentation, rng).pixels for each in samples]
            yield list(zip(varied, self.targets[chosen], strict=True))

    def loss(self, network: "nn.Module", batch: Sequence[_Pair], device: str) -> "torch.Tensor":
        """Return cross entropy: over all classes where one holds, else of each by itself."""
        import torch
        from torch.nn import functional

        logits = network(squares_tensor([pixels for pixels, _ in batch], device))
        targets = torch.from_numpy(np.array([target for _, target in batch])).float().to(device)
        if self.setup.choose == "one":
            return functional.cross_entropy(logits, targets)
        return functional.binary_cross_entropy_with_logits(logits, targets)

    def settle(self, network: "nn.Module", memory: MemoryLimit, seed: int) -> None:
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
        order = np.random.default_rng([seed, 1]).permutation(self.setup.examples)[:_NORM_IMAGES]
        with torch.no_grad():
            for batch in np.array_split(order, math.ceil(len(order) / memory.images)):
                network(squares_tensor([self.squares[int(n)] for n in batch], memory.device))


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
