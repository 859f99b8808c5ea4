"""The one training loop of all networks: detectors and classifiers give it images and a loss."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import ModelCard, policy_digest
from annotation_platform.models.detection.detector import best_device, read_weights_file
from annotation_platform.models.fitting import (
    TrainingBudget,
    TrainingOptions,
    fit_network,
    quiet_torch,
)
from annotation_platform.models.memory import MemoryLimit, enough_memory
from annotation_platform.models.network_inputs import Augmentation
from annotation_platform.policy import TrainingPolicy

if TYPE_CHECKING:
    import torch
    from torch import nn

    from annotation_platform.models.weight_files import WeightFile, WeightFormat

Item = TypeVar("Item")

_REMEDY = (
    "Lower training.image_width or training.batch_size in params.yaml, or train on a larger "
    "machine."
)


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """The network to train, the weights it starts from, and the amount of images."""

    architecture: str  # of a network that is trained from scratch
    class_names: tuple[str, ...]
    side: int  # that images are resized to, pixels
    choose: str = ""  # of a classifier: one or many
    setting: str  # in params.yaml, of the weights to start from
    weights: str  # its value: a path, ``DEFAULT``, or empty
    weights_sha256: str  # empty accepts any file
    augmentation: Augmentation
    batch_size: int
    examples: int  # in a pass
    images: int  # those without labels included


class Trainee(Protocol[Item]):
    """A kind of network with its training images, as ``train_network`` needs them."""

    @property
    def setup(self) -> TrainingSetup:
        """The network, its initial weights, and the amount of images."""

    def files(self) -> "WeightFormat":
        """Return the format of its files of weights; it imports torch."""

    def batches(self, seed: int) -> Iterator[list[Item]]:
        """Yield batches of ``batch_size`` examples endlessly, pass after pass, augmented."""

    def loss(self, network: "nn.Module", batch: Sequence[Item], device: str) -> "torch.Tensor":
        """Return the mean loss of a batch, or of a part of it, on a device."""

    def settle(self, network: "nn.Module", memory: MemoryLimit, seed: int) -> None:
        """Finish the network after the last step, within the memory that the steps needed."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network and the facts of its training."""

    state: bytes = field(repr=False)  # the file of weights
    setup: TrainingSetup
    architecture: str
    started_from: str  # SHA-256 or name of the initial weights; empty: from scratch
    epochs: float  # passes over the images
    cpu_seconds: float  # processor time, decoding included
    final_loss: float  # mean over the last tenth of the steps
    steps: int
    skipped_steps: int  # steps whose loss was not finite
    images_at_a_time: int  # the batch size, or the part of it that fitted into memory
    device: str  # of the last step: cpu or cuda

    def card(self, *, dataset_tag: str, policy: TrainingPolicy, seed: int) -> ModelCard:
        """Return the card of its weights, trained on a version with this policy and seed."""
        return ModelCard(
            architecture=self.architecture,
            class_names=self.setup.class_names,
            image_width=self.setup.side,
            dataset_tag=dataset_tag,
            started_from=self.started_from,
            train_images=self.setup.images,
            cpu_seconds=round(self.cpu_seconds, 3),
            seed=seed,
            policy_digest=policy_digest(policy),
            augmentation=asdict(self.setup.augmentation),
        )


def train_network(
    trainee: Trainee[Item],
    *,
    policy: TrainingPolicy,
    seed: int,
    options: TrainingOptions | None = None,
) -> TrainedNetwork:
    """Return a network trained on the trainee's images for ``policy.cpu_seconds``.

    It starts from the weights that the policy names (``TrainingSetup.setting``), else from
    ``options.start_from``, else from scratch. Two runs take different numbers of steps and give
    different weights. With ``policy.steps`` above 0 the budget is in steps: then one kind of
    processor and one seed always give the same weights.

    Args:
        trainee: the kind of network, and its images.
        policy: budget, threads and learning rate.
        seed: of the initial weights, the order of the images and their augmentation.
        options: initial weights and callbacks.

    Raises:
        ModelError: see ``fit_network``; one image exceeds the memory; the initial weights cannot
            be read, do not fit, or have another SHA-256 than the policy's.
    """
    options, started = options or TrainingOptions(), time.process_time()
    with quiet_torch(seed, policy.threads), enough_memory("training", _REMEDY):
        files, setup = trainee.files(), trainee.setup
        network, architecture, started_from = _first_network(setup, files, options)
        memory = MemoryLimit(best_device(), setup.batch_size)
        with _ahead(trainee.batches(seed)) as ready:
            result = fit_network(
                network,
                ready,
                lambda batch, device: trainee.loss(network, batch, device),
                budget=TrainingBudget(started, policy.cpu_seconds, policy.steps or None),
                memory=memory,
                learning_rate=policy.learning_rate,
                options=options,
            )
        trainee.settle(network, memory, seed)
        state = files.write(
            network,
            architecture=architecture,
            class_names=setup.class_names,
            side=setup.side,
            choose=setup.choose,
        )
    return TrainedNetwork(
        state=state,
        setup=setup,
        architecture=architecture,
        started_from=started_from,
        epochs=result.steps * setup.batch_size / setup.examples,
        cpu_seconds=time.process_time() - started,
        final_loss=result.final_loss,
        steps=result.steps,
        skipped_steps=result.skipped,
        images_at_a_time=memory.images,
        device=memory.device,
    )


def _first_network(
    setup: TrainingSetup, files: "WeightFormat", options: TrainingOptions
) -> tuple["nn.Module", str, str]:
    """Return the network before the first step, its architecture, and the origin of its weights."""
    found = _initial_weights(setup, files, options)
    if found is None:
        network = files.build(setup.architecture, len(setup.class_names))
        return network, setup.architecture, ""
    file, origin, where = found
    network = files.build(file.architecture, len(setup.class_names))
    files.start(network, file, class_names=setup.class_names, where=where)
    return network, file.architecture, origin


def _initial_weights(
    setup: TrainingSetup, files: "WeightFormat", options: TrainingOptions
) -> tuple["WeightFile", str, str] | None:
    """Return the weights to start from, their SHA-256 or name, and a name for errors; or None."""
    if setup.weights == "DEFAULT":
        return *files.default(), setup.weights
    path = Path(setup.weights) if setup.weights else options.start_from
    if path is None:
        return None
    data = read_weights_file(path)
    digest = sha256(data).hexdigest()
    if setup.weights and setup.weights_sha256 not in {"", digest}:
        raise ModelError(
            f"{path}: refused: its SHA-256 is {digest}, {setup.setting}_sha256 is "
            f"{setup.weights_sha256}. Get the right file."
        )
    return files.read(data, where=str(path)), digest, str(path)


@contextmanager
def _ahead(batches: Iterator[list[Item]]) -> Iterator[Iterator[list[Item]]]:
    """Yield the batches in order, each prepared while the network trains on the one before."""
    with ThreadPoolExecutor(max_workers=1) as maker:

        def ready() -> Iterator[list[Item]]:
            following = maker.submit(next, batches)
            while True:
                batch = following.result()
                following = maker.submit(next, batches)
                yield batch

        yield ready()
