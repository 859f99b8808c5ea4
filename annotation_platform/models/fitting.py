"""How networks are taught, whichever they are: budget, learning rate, memory, a seeded torch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from annotation_platform.errors import ModelError
from annotation_platform.models.detection.detector import read_weights_file
from annotation_platform.models.memory import Room

if TYPE_CHECKING:
    import torch
    from torch import nn

Item = TypeVar("Item")
File = TypeVar("File")
Record = Callable[[int, float, float, float], None]
"""Is told the number of the step, its loss, the learning rate and the share of the budget used."""

_WEIGHT_DECAY = 1e-2
_LONGEST_GRADIENT = 5.0
# So many steps without a finite loss are no accident, where they are most of them.
_LOST = 20
_WARM_UP = 0.1


@dataclass
class TrainingBudget:
    """How much of the budget is used: by processor time, or by steps where they are given."""

    started: float  # processor seconds
    cpu_seconds: float
    maximum_steps: int | None
    steps: int = 0

    def share(self) -> float:
        """Return the share of the budget that is used, 0 to 1."""
        if self.maximum_steps is not None:
            return min(1.0, self.steps / self.maximum_steps)
        return min(1.0, (time.process_time() - self.started) / self.cpu_seconds)


@dataclass
class FitResult:
    """What the steps gave: the losses of those that had one, and how many had none."""

    losses: list[float] = field(default_factory=list)
    skipped: int = 0

    @property
    def final_loss(self) -> float:
        """The mean over the last tenth of the steps."""
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return math.fsum(last) / len(last)


def fit_network(
    network: "nn.Module",
    batches: Iterator[Sequence[Item]],
    loss_of: "Callable[[Sequence[Item], str], torch.Tensor]",
    *,
    clock: TrainingBudget,
    room: Room,
    learning_rate: float,
    progress: Callable[[float], None] | None = None,
    record: Record | None = None,
) -> FitResult:
    """Let the network learn until the budget is used, at least one step; AdamW, with a warm-up.

    A batch without room is seen in parts whose gradients are added, from then on, and at last on
    the processor: apart from the statistics of the norms, that is the same step.

    Args:
        network: in the mode and on the device in which it is left.
        batches: without end.
        loss_of: the mean loss of a batch, or of a part of it, on a device.
        clock: of the budget.
        room: how many images at a time, and where.
        learning_rate: the highest.
        progress: told the share of the budget that is used, 0 to 1, after every step.
        record: told more of every step.

    Raises:
        ModelError: most of the steps had no finite loss.
    """
    import torch

    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    taught = FitResult()
    # At least one step, however small the budget: a network that never learned is no model.
    while clock.steps == 0 or clock.share() < 1.0:
        rate = learning_rate * learning_rate_factor(clock.share())
        for group in optimizer.param_groups:
            group["lr"] = rate
        device = room.device
        loss = _gradients(network, next(batches), loss_of, room)
        if room.device != device:
            # Loading moves what the optimizer remembers to where the weights are now.
            optimizer.load_state_dict(optimizer.state_dict())
        clock.steps += 1
        if math.isfinite(loss):
            torch.nn.utils.clip_grad_norm_(parameters, _LONGEST_GRADIENT)
            optimizer.step()
            taught.losses.append(loss)
        else:
            taught.skipped += 1
            if taught.skipped >= _LOST and taught.skipped > len(taught.losses):
                break
        if record is not None:
            record(clock.steps, loss, rate, clock.share())
        if progress is not None:
            progress(clock.share())
    if not taught.losses or taught.skipped > len(taught.losses):
        raise ModelError(
            f"learning went astray: {taught.skipped} of {clock.steps} steps had no finite loss. "
            "Lower training.learning_rate in params.yaml."
        )
    return taught


def _gradients(
    network: "nn.Module",
    batch: Sequence[Item],
    loss_of: "Callable[[Sequence[Item], str], torch.Tensor]",
    room: Room,
) -> float:
    """Return the loss of a batch; its gradients are the network's, unless it is no number."""

    def attempt(size: int, device: str) -> float:
        network.to(device)
        network.zero_grad(set_to_none=True)
        total = 0.0
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            loss = loss_of(part, device) * (len(part) / len(batch))
            total += float(loss.detach())
            if not math.isfinite(total):
                break
            loss.backward()  # type: ignore[no-untyped-call]
        return total

    return room.fit(len(batch), attempt)


def learning_rate_factor(share: float) -> float:
    """Return the factor of the learning rate: a linear rise over a tenth, then half a cosine."""
    if share < _WARM_UP:
        return max(0.01, share / _WARM_UP)
    return 0.5 * (1.0 + math.cos(math.pi * (share - _WARM_UP) / (1.0 - _WARM_UP)))


@contextmanager
def quiet_torch(seed: int, threads: int) -> Iterator[None]:
    """Seed torch, on so many threads, and leave its global state as it was."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # Waiting threads count as processor time: on a busy machine a second one wastes half.
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class FirstFile(Generic[File]):
    """What a network starts from: what a file holds, which one, and what it is called in errors."""

    content: File
    origin: str  # its SHA-256, or the name of what torchvision publishes
    where: str


def first_file(
    given: str,
    start_from: Path | None,
    *,
    setting: str,
    wanted_sha256: str,
    default: Callable[[], tuple[File, str]],
    read: Callable[[bytes, str], File],
) -> FirstFile[File] | None:
    """Return the file of weights to start from; None to start from nothing.

    A file that is not there, or not the one whose SHA-256 params.yaml names, is a ModelError.

    Args:
        given: what the ``setting`` of params.yaml says: a path, ``DEFAULT``, or nothing.
        start_from: the file to take where it says nothing.
        setting: its name.
        wanted_sha256: what ``setting`` + ``_sha256`` says; empty: any.
        default: returns what torchvision publishes, and its name.
        read: returns what the bytes of a file hold; told where they are from.
    """
    if given == "DEFAULT":
        return FirstFile(*default(), where=given)
    path = Path(given) if given else start_from
    if path is None:
        return None
    data = read_weights_file(path)
    digest = sha256(data).hexdigest()
    if given and wanted_sha256 not in {"", digest}:
        raise ModelError(
            f"{path}: refused: its SHA-256 is {digest}, {setting}_sha256 is {wanted_sha256}. "
            "Get the right file."
        )
    return FirstFile(read(data, str(path)), digest, str(path))
