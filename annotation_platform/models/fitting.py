"""Training of any network: budget, learning rate, batch memory, seeded torch."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from annotation_platform.errors import ModelError
from annotation_platform.models.memory import MemoryLimit

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


@dataclass(frozen=True)
class TrainingOptions:
    """Options of one training run that the policy does not hold."""

    start_from: Path | None = None  # file of weights, used where the policy names none
    # Called after every step with the share of the budget used, 0 to 1.
    progress: Callable[[float], None] | None = None
    record: RecordStep | None = None


@dataclass
class TrainingBudget:
    """Budget of a training run: processor time, or a number of steps where one is given."""

    started: float  # processor seconds
    cpu_seconds: float
    maximum_steps: int | None
    steps: int = 0

    def share(self) -> float:
        """Return the share of the budget used so far, 0 to 1."""
        if self.maximum_steps is not None:
            return min(1.0, self.steps / self.maximum_steps)
        return min(1.0, (time.process_time() - self.started) / self.cpu_seconds)


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
    while budget.steps == 0 or budget.share() < 1.0:
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
            options.progress(budget.share())
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
