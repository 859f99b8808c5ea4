"""Teaching the detector, within a budget of processor time."""

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
    Record,
    TrainingBudget,
    first_file,
    fit_network,
    quiet_torch,
)
from annotation_platform.models.memory import Room, enough_memory
from annotation_platform.models.network_inputs import (
    Augmentation,
    Example,
    Sample,
    SampleCache,
    augment,
)
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.geometry import as_boxes, box_areas

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class TrainedDetector:
    """What training gave."""

    state: bytes  # the file of weights
    architecture: str
    started_from: str  # SHA-256 of the weights it started from, a name, or empty: from scratch
    epochs: float  # passes over the images
    cpu_seconds: float  # processor time, decoding included
    final_loss: float  # mean over the last tenth of the steps
    images: int  # images learned from, those without boxes included
    steps: int
    skipped_steps: int  # steps whose loss was no number
    images_at_a_time: int  # the batch size, or what memory had room for of it
    device: str  # where it learned in the end: cpu or cuda


def train_detector(
    examples: Sequence[Example],
    *,
    class_names: Sequence[str],
    policy: TrainingPolicy,
    seed: int,
    start_from: Path | None = None,
    progress: Callable[[float], None] | None = None,
    maximum_steps: int | None = None,
    augmentation: Augmentation | None = None,
    weights: Mapping[str, float] | None = None,
    record: Record | None = None,
) -> TrainedDetector:
    """Return a detector that has learned from ``examples`` for ``policy.cpu_seconds``.

    Training starts from ``policy.weights`` where that is given (a file, or ``DEFAULT`` for
    torchvision's own), else from the file ``start_from``, ours or torchvision's, else from
    scratch. Images without boxes teach what is background; boxes without an area are left out.

    The budget is processor time of this process, so two runs take different numbers of steps and
    give different weights. With ``maximum_steps``, by default ``policy.steps``, the learning rate
    follows the steps instead and the budget is ignored: then one kind of processor and one seed
    always give the same weights.

    Args:
        examples: images with their boxes, in any order; the order is part of the result.
        class_names: every class the detector shall know, in the order of its outputs.
        policy: budget, image size, batch size, learning rate, weights to start from.
        seed: of the first weights, the order of the images and their variations.
        progress: told the share of the budget that is used, 0 to 1, after every step.
        augmentation: how far images are varied.
        weights: how often an image is seen beside others, by image id, 1 where it is not named;
            0 is never. Without them each is seen once before any is seen again.
        record: told after every step its number, its loss, the learning rate and the share.

    Where memory is too small for a batch, it is seen in halves, from then on, and at last on the
    processor; the steps are of whole batches all the same.

    Raises:
        NotReadyError: there is no image, or no box with an area, to learn from.
        DataError: a box is of an unknown class or has no numbers, or an image cannot be read.
        ModelError: the weights to start from cannot be used, learning went astray, or the memory
            is too small for one image.
    """
    from annotation_platform.models.detection.weight_files import write_weights

    _check(examples, class_names)
    started = time.process_time()
    names, width = tuple(class_names), policy.image_width
    remedy = "Lower training.image_width in params.yaml, or train on a larger machine."
    with quiet_torch(seed, policy.threads), enough_memory("training", remedy):
        network, architecture, started_from = _first_network(policy, start_from, names)
        clock = TrainingBudget(started, policy.cpu_seconds, maximum_steps or policy.steps or None)
        cache = SampleCache(examples, names, width)
        order = _order(examples, weights, np.random.default_rng([seed, 1]))
        batches = _batches(cache, policy.batch_size, augmentation or Augmentation(), seed, order)
        room = Room(best_device(), policy.batch_size)
        with _ahead(batches) as ready:
            taught = fit_network(
                network,
                ready,
                lambda samples, device: _loss(network, samples, device),
                clock=clock,
                room=room,
                learning_rate=policy.learning_rate,
                progress=progress,
                record=record,
            )
        state = write_weights(
            network, architecture=architecture, class_names=names, image_width=width
        )
    return TrainedDetector(
        state=state,
        architecture=architecture,
        started_from=started_from,
        epochs=clock.steps * policy.batch_size / len(examples),
        cpu_seconds=time.process_time() - started,
        final_loss=taught.final_loss,
        images=len({example.image_id for example in examples}),
        steps=clock.steps,
        skipped_steps=taught.skipped,
        images_at_a_time=room.images,
        device=room.device,
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
    # Processors without the instructions emulate them, at several times the cost.
    return bool(torch.cpu._is_avx512_bf16_supported())


def _order(
    examples: Sequence[Example], weights: Mapping[str, float] | None, rng: np.random.Generator
) -> Callable[[], list[int]]:
    """Return what gives the images of the next pass over them, by number, not yet shuffled.

    A pass holds as many images as there are. One of weight w comes w / mean weight times, and
    the rest of that by lot, so that over many passes the shares are exact.
    """
    count = len(examples)
    if weights is None:
        return lambda: list(range(count))
    wanted = np.array([weights.get(one.image_id, 1.0) for one in examples], dtype=np.float64)
    if not np.isfinite(wanted).all() or (wanted < 0).any() or wanted.sum() == 0:
        raise DataError("weights of images are numbers from 0 on, and one of them is above 0.")
    edges = np.concatenate([[0.0], np.cumsum(wanted * count / wanted.sum())])
    # Systematic sampling: equally spaced marks with one random offset fall into the shares.
    return lambda: np.repeat(
        np.arange(count), np.diff(np.floor(edges + rng.random()).astype(np.int64))
    ).tolist()


def _batches(
    cache: SampleCache,
    size: int,
    augmentation: Augmentation,
    seed: int,
    order: Callable[[], list[int]],
) -> Iterator[list[Sample]]:
    """Yield batches for ever, pass after pass of ``order``, shuffled, each image varied."""
    rng = np.random.default_rng(seed)
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting.extend(rng.permutation(order()).tolist())
        chosen, waiting = waiting[:size], waiting[size:]
        samples = [augment(cache[index], augmentation, rng) for index in chosen]
        yield [_with_area(sample) for sample in samples]


@contextmanager
def _ahead(batches: Iterator[list[Sample]]) -> Iterator[Iterator[list[Sample]]]:
    """Give the batches, in their order, each made while the network learns from the one before."""
    with ThreadPoolExecutor(max_workers=1) as maker:

        def ready() -> Iterator[list[Sample]]:
            following = maker.submit(next, batches)
            while True:
                batch = following.result()
                following = maker.submit(next, batches)
                yield batch

        yield ready()


def _with_area(sample: Sample) -> Sample:
    # Cutting can leave slivers that vanish in single precision; FCOS refuses them.
    sides = sample.boxes[:, 2:] - sample.boxes[:, :2]
    kept = (sides > 0.1).all(axis=1)
    return Sample(sample.pixels, sample.boxes[kept], sample.labels[kept])


def _first_network(
    policy: TrainingPolicy, start_from: Path | None, class_names: tuple[str, ...]
) -> tuple["nn.Module", str, str]:
    from annotation_platform.models.detection import weight_files
    from annotation_platform.models.detection.networks import build_network

    first = first_file(
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


def _check(examples: Sequence[Example], class_names: Sequence[str]) -> None:
    if not examples:
        raise NotReadyError("there is no image to learn from. Label and release a round first.")
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
            f"none of the {len(examples)} images has a box to learn from. "
            "Label some objects and release a round first."
        )
