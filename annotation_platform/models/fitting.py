"""Training of any network: budget, learning rate, batch memory, seeded torch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from annotation_platform.errors import ModelError
from annotation_platform.models.memory import MemoryLimit
from annotation_platform.policy import TrainingPolicy

if TYPE_CHECKING:
    import torch
    from torch import nn

Item = TypeVar("Item")
RecordStep = Callable[[int, float, float, float], None]
"""Called with the step's number, its loss, the learning rate and the share of the budget used."""

_WEIGHT_DECAY = 1e-2
_MAXIMUM_GRADIENT_NORM = 5.0
# Training has diverged when at least this many steps, and most of all, had no finite loss.
_DIVERGED_STEPS = 20
_WARM_UP = 0.1

TRAINING_PROGRESS = "of the training budget used"
"""Part of every message about the progress of a training."""


@dataclass(frozen=True)
class TrainingProgress:
    """How much of a training run is done."""

    step: int
    share: float  # of the budget, 0 to 1
    seconds_left: float  # wall time, if the rest takes as long as what is done


@dataclass(frozen=True)
class TrainingOptions:
    """Options of one training run that the policy does not hold."""

    start_from: Path | None = None  # file of weights, used where the policy names none
    progress: Callable[[TrainingProgress], None] | None = None  # called after every step
    record: RecordStep | None = None


class TrainingEnd(StrEnum):
    """What ended a training run; the values are keys of ``training`` in params.yaml."""

    CPU_SECONDS = "cpu_seconds"
    STEPS = "steps"
    LIMIT_MINUTES = "limit_minutes"


@dataclass
class TrainingBudget:
    """Budget of a training run: processor time, or steps where they are given, and wall time.

    The clocks start with the budget.
    """

    cpu_seconds: float
    maximum_steps: int | None
    limit_seconds: float  # wall time
    steps: int = 0
    _cpu_start: float = field(default_factory=time.process_time)
    _start: float = field(default_factory=time.monotonic)

    @classmethod
    def of(cls, policy: TrainingPolicy) -> Self:
        """Return the budget of a policy."""
        return cls(policy.cpu_seconds, policy.steps or None, 60.0 * policy.limit_minutes)

    @property
    def cpu_used(self) -> float:
        """Processor time since the start, seconds."""
        return time.process_time() - self._cpu_start

    def share(self) -> float:
        """Return the share of the budget used so far, 0 to 1.

        The wall time counts where processor time is the budget. A number of steps gives the same
        weights on a busy machine, so the wall time changes nothing until it is over.
        """
        if self.maximum_steps is not None:
            return min(1.0, self.steps / self.maximum_steps)
        return min(1.0, max(self.cpu_used / self.cpu_seconds, self._seconds / self.limit_seconds))

    def ended_by(self) -> TrainingEnd | None:
        """Return which limit is reached; None: none of them."""
        if self.maximum_steps is not None and self.steps >= self.maximum_steps:
            return TrainingEnd.STEPS
        if self._seconds >= self.limit_seconds:
            return TrainingEnd.LIMIT_MINUTES
        if self.maximum_steps is None and self.cpu_used >= self.cpu_seconds:
            return TrainingEnd.CPU_SECONDS
        return None

    def progress(self) -> TrainingProgress:
        """Return the progress after a step."""
        share = self.share()
        left = self._seconds * (1.0 - share) / share if share else self.limit_seconds
        left = max(0.0, min(left, self.limit_seconds - self._seconds))
        return TrainingProgress(self.steps, share, left)

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start


@dataclass
class FitResult:
    """The finite losses by step, and the number of steps skipped for want of one."""

    losses: list[float] = field(default_factory=list)
    skipped: int = 0

    @property
    def steps(self) -> int:
        """The number of steps."""
        return len(self.losses) + self.skipped

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
    budget: TrainingBudget,
    memory: MemoryLimit,
    learning_rate: float,
    options: TrainingOptions,
) -> FitResult:
    """Train the network with AdamW and a warm-up until the budget is used; at least one step.

    If a batch exceeds the memory, the gradients of its parts are added; only norms differ then.

    Args:
        network: its mode and device afterwards are those of the last step.
        batches: an endless iterator.
        loss_of: returns the mean loss of a batch, or of a part of it, on a device.
        budget: advanced by every step.
        memory: number of images at a time, and the device.
        learning_rate: the highest one.
        options: the callbacks.

    Raises:
        ModelError: most of the steps had no finite loss.
    """
    import torch

    network.train()
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=_WEIGHT_DECAY)
    result = FitResult()
    while budget.steps == 0 or budget.ended_by() is None:
        rate = learning_rate * learning_rate_factor(budget.share())
        for group in optimizer.param_groups:
            group["lr"] = rate
        device = memory.device
        loss = _gradients(network, next(batches), loss_of, memory)
        if memory.device != device:
            # Loading moves the optimizer's state to the device of the weights.
            optimizer.load_state_dict(optimizer.state_dict())
        budget.steps += 1
        if math.isfinite(loss):
            torch.nn.utils.clip_grad_norm_(parameters, _MAXIMUM_GRADIENT_NORM)
            optimizer.step()
            result.losses.append(loss)
        else:
            result.skipped += 1
            if result.skipped >= _DIVERGED_STEPS and result.skipped > len(result.losses):
                break
        if options.record is not None:
            options.record(budget.steps, loss, rate, budget.share())
        if options.progress is not None:
            options.progress(budget.progress())
    if not result.losses or result.skipped > len(result.losses):
        raise ModelError(
            f"training diverged: {result.skipped} of {budget.steps} steps had no finite loss. "
            "Lower training.learning_rate in params.yaml."
        )
    return result


def _gradients(
    network: "nn.Module",
    batch: Sequence[Item],
    loss_of: "Callable[[Sequence[Item], str], torch.Tensor]",
    memory: MemoryLimit,
) -> float:
    """Return the loss of a batch and set the network's gradients, unless the loss is not finite."""

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

    return memory.run(len(batch), attempt)


def shuffled_batches(
    order: Callable[[], Sequence[int]], size: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Yield batches of ``size`` indices endlessly: passes of ``order``, each one shuffled."""
    waiting: list[int] = []
    while True:
        while len(waiting) < size:
            waiting.extend(rng.permutation(order()).tolist())
        batch, waiting = waiting[:size], waiting[size:]
        yield batch


def learning_rate_factor(share: float) -> float:
    """Return the learning rate's factor at a share of the budget: a tenth of linear rise, then
    half a cosine.
    """
    if share < _WARM_UP:
        return max(0.01, share / _WARM_UP)
    return 0.5 * (1.0 + math.cos(math.pi * (share - _WARM_UP) / (1.0 - _WARM_UP)))


@contextmanager
def quiet_torch(seed: int, threads: int) -> Iterator[None]:
    """Seed torch, limit it to ``threads`` threads, and restore its global state at the end."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        # A waiting thread consumes processor time: on a busy machine a second one wastes half.
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
