"""Teaching the classifier of whole images, within a share of the budget of training."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
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
from annotation_platform.models.fitting import TrainingBudget, first_file, fit_network, quiet_torch
from annotation_platform.models.memory import Room, enough_memory
from annotation_platform.models.network_inputs import Augmentation, Sample, augment, read_image
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.geometry import FloatArray

if TYPE_CHECKING:
    import torch
    from torch import nn

LARGEST_SIDE = 224
"""Pixels: what published classifiers learned with, and what an image as a whole needs."""

# Of a square a classifier sees a quarter of what a detector sees of an image, or less.
_TIMES_AS_MANY = 4
_CACHE_BYTES = 1 << 30
# Images by which the norms are set at the end, at most.
_SETTLED_BY = 256

_Seen = tuple[Pixels, FloatArray]
"""A square and its row of targets."""


@dataclass(frozen=True)
class ClassificationExample:
    """One image to learn from: where it lies, and the classes that were chosen for it."""

    image_id: str
    path: Path
    chosen: tuple[str, ...]


@dataclass(frozen=True)
class TrainedClassifier:
    """What training gave."""

    state: bytes  # the file of weights
    architecture: str
    started_from: str  # SHA-256 of the weights it started from, a name, or empty: from scratch
    side: int  # of the square that images are brought to, pixels
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
    start_from: Path | None = None,
    progress: Callable[[float], None] | None = None,
    augmentation: Augmentation | None = None,
) -> TrainedClassifier:
    """Return a classifier that has learned from ``examples`` for ``policy.cpu_seconds``.

    Training starts from ``policy.classifier_weights`` where that is given (a file, or ``DEFAULT``
    for torchvision's ResNet-18), else from the file ``start_from``, else from scratch. With
    ``policy.steps`` above 0 it takes so many steps instead of so long: then one kind of processor
    and one seed always give the same weights. Batches are four times ``policy.batch_size``;
    where memory is too small for one it is seen in parts, and at last on the processor.

    At the end the norms are set by the images as they are, not varied (Wu and Johnson,
    "Rethinking 'Batch' in BatchNorm", 2021): after few steps their running means lag behind.

    Args:
        examples: images with what was chosen for them: exactly one class where one is chosen, at
            least one otherwise; in any order, which is part of the result.
        class_names: every class that can be chosen, in the order of its outputs.
        choose: whether one class holds for an image, or any number.
        policy: budget, image width (squares of at most 224 pixels), batch size, learning rate.
        seed: of the first weights, the order of the images and their variations.
        start_from: a file of ours or of torchvision's ResNet-18.
        progress: told the share of the budget that is used, 0 to 1, after every step.
        augmentation: how far images are varied.

    Raises:
        NotReadyError: there is no image to learn from.
        DataError: a class is unknown, an image has too many, or it cannot be read.
        ModelError: the weights to start from cannot be used, learning went astray, or the
            memory is too small for one image.
    """
    from annotation_platform.models.classification.weight_files import write_classifier

    names = tuple(class_names)
    targets = _targets(examples, names, choose)
    started = time.process_time()
    side, size = min(policy.image_width, LARGEST_SIDE), policy.batch_size * _TIMES_AS_MANY
    images = _Squares(examples, side)
    remedy = "Lower training.batch_size in params.yaml, or train on a larger machine."
    with quiet_torch(seed, policy.threads), enough_memory("training", remedy):
        network, architecture, started_from = _first_network(policy, start_from, names)
        clock = TrainingBudget(started, policy.cpu_seconds, policy.steps or None)
        room = Room(best_device(), size)
        taught = fit_network(
            network,
            _batches(images, targets, size, augmentation or Augmentation(), seed),
            lambda seen, device: _loss(network, seen, choose, device),
            clock=clock,
            room=room,
            learning_rate=policy.learning_rate,
            progress=progress,
        )
        _settle_norms(network, images, room, seed)
        state = write_classifier(
            network, architecture=architecture, class_names=names, choose=choose, side=side
        )
    return TrainedClassifier(
        state=state,
        architecture=architecture,
        started_from=started_from,
        side=side,
        epochs=clock.steps * size / len(examples),
        cpu_seconds=time.process_time() - started,
        final_loss=taught.final_loss,
        images=len(examples),
        steps=clock.steps,
    )


def _loss(
    network: "nn.Module", seen: Sequence[_Seen], choose: Choose, device: str
) -> "torch.Tensor":
    """Return cross entropy: over the classes where one is chosen, else of each by itself."""
    import torch
    from torch.nn import functional

    logits = network(squares_tensor([pixels for pixels, _ in seen], device))
    wanted = torch.from_numpy(np.array([target for _, target in seen])).float().to(device)
    if choose == "one":
        return functional.cross_entropy(logits, wanted)
    return functional.binary_cross_entropy_with_logits(logits, wanted)


class _Squares:
    """The images as squares, decoded when first asked for; the first GiB of them is kept."""

    def __init__(self, examples: Sequence[ClassificationExample], side: int) -> None:
        self._paths = [each.path for each in examples]
        self._side = side
        self._kept: dict[int, Pixels] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Pixels:
        if index in self._kept:
            return self._kept[index]
        pixels = square(read_image(self._paths[index]), side=self._side)
        if (len(self._kept) + 1) * pixels.nbytes <= _CACHE_BYTES:
            self._kept[index] = pixels
        return pixels


def _batches(
    images: _Squares, targets: FloatArray, size: int, augmentation: Augmentation, seed: int
) -> Iterator[list[_Seen]]:
    """Yield batches for ever, pass after pass over the images, shuffled, each image varied."""
    rng = np.random.default_rng(seed)
    nothing = Sample(np.zeros((0, 0, 3), np.uint8), np.zeros((0, 4)), np.zeros(0, np.int64))
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting.extend(rng.permutation(len(images)).tolist())
        chosen, waiting = waiting[:size], waiting[size:]
        samples = [replace(nothing, pixels=images[index]) for index in chosen]
        varied = [augment(each, augmentation, rng).pixels for each in samples]
        yield list(zip(varied, targets[chosen], strict=True))


def _settle_norms(network: "nn.Module", images: _Squares, room: Room, seed: int) -> None:
    import torch

    norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        # None: the mean of all batches, each weighing the same.
        norm.momentum = None
    order = np.random.default_rng([seed, 1]).permutation(len(images))[:_SETTLED_BY]
    with torch.no_grad():
        for batch in np.array_split(order, math.ceil(len(order) / room.images)):
            network(squares_tensor([images[int(index)] for index in batch], room.device))


def _targets(
    examples: Sequence[ClassificationExample], names: tuple[str, ...], choose: Choose
) -> FloatArray:
    """Return ``(N, C)``, 1 where a class was chosen and else 0."""
    if not examples:
        raise NotReadyError(
            "no image has a choice to learn from. Label some images and release a round first."
        )
    targets = np.zeros((len(examples), len(names)))
    for row, example in enumerate(examples):
        unknown = sorted(set(example.chosen) - set(names))
        if unknown:
            raise DataError(
                f"image {example.image_id}: {unknown[0]!r} is no choice of the ontology "
                f"({', '.join(names)}). Correct the label or add the class."
            )
        if not example.chosen or (choose == "one" and len(example.chosen) > 1):
            raise DataError(
                f"image {example.image_id}: {len(example.chosen)} choices, where {choose} is "
                "chosen. Correct the labels."
            )
        targets[row, [names.index(name) for name in example.chosen]] = 1.0
    return targets


def _first_network(
    policy: TrainingPolicy, start_from: Path | None, class_names: tuple[str, ...]
) -> tuple["nn.Module", str, str]:
    from annotation_platform.models.classification import weight_files as files
    from annotation_platform.models.detection.networks import build_classifier

    first = first_file(
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
