"""How networks are taught, whichever they are: the budget, the learning rate, a seeded torch."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

WEIGHT_DECAY = 1e-2
LONGEST_GRADIENT = 5.0
# So many steps in a row without a finite loss are no accident.
LOST = 20
_WARM_UP = 0.1


@dataclass
class Clock:
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
