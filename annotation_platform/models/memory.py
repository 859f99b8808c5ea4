"""Memory that is too small for a batch: half of it, in the end on the processor."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from annotation_platform.errors import ModelError

# What torch says, on CUDA, by its libraries and on the processor; only the first is a class.
_SAID = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")


Result = TypeVar("Result")


class Room:
    """How many images have room at a time, and where.

    What was found once is kept: it would only be found again, at the cost of a failed pass.

    Attributes:
        images: at most so many at a time, 1 or more.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str, images: int) -> None:
        self.device = device
        self.images = images

    def fit(self, images: int, attempt: Callable[[int, str], Result]) -> Result:
        """Return what ``attempt`` gives for as many at a time as there is room for.

        It is told how many, 1 to ``images``, and on which device, and is called again from the
        start with half as many where memory is too small; where one alone has no room on the
        accelerator, on the processor. Where the processor has none either, the error is torch's.
        """
        while True:
            size = min(self.images, images)
            try:
                return attempt(size, self.device)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error) or (size == 1 and self.device == "cpu"):
                    raise
            # Not inside the clause: its traceback keeps alive what has no room.
            self.images = (size + 1) // 2
            if size == 1:
                self.device = "cpu"
            _let_go()


@contextmanager
def enough_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn memory that is too small for ``what`` into a ModelError that ends in ``remedy``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        said = (str(error).splitlines() or ["no memory"])[0]
        raise ModelError(f"the memory is too small for {what} ({said}). {remedy}") from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, MemoryError) or any(said in str(error) for said in _SAID)


def _let_go() -> None:
    """Give back what torch keeps of the accelerator's memory for later use."""
    import torch

    torch.cuda.empty_cache()
