"""Batches that exceed the memory: they are halved, and run on the processor in the end."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from annotation_platform.errors import ModelError

# Texts of torch's errors on CUDA, in its libraries and on the processor; only CUDA's is a class.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")

Result = TypeVar("Result")


class MemoryLimit:
    """The number of images that fit into memory at a time, and the device.

    A limit that was found is kept: finding it again would cost another failed pass.

    Attributes:
        images: the largest number at a time, 1 or more.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(self, device: str, images: int) -> None:
        self.device = device
        self.images = images

    def run(self, images: int, attempt: Callable[[int, str], Result]) -> Result:
        """Return the result of ``attempt`` with as many images at a time as fit into memory.

        ``attempt`` takes a number of images, 1 to ``images``, and a device. Where memory is too
        small it is called again from the start with half the number; where a single image exceeds
        the accelerator's memory, with the processor. Where it exceeds the processor's memory too,
        torch's error is raised.
        """
        while True:
            size = min(self.images, images)
            try:
                return attempt(size, self.device)
            except (RuntimeError, MemoryError) as error:
                if not _is_out_of_memory(error) or (size == 1 and self.device == "cpu"):
                    raise
            # Outside the clause: its traceback would keep the tensors alive.
            self.images = (size + 1) // 2
            if size == 1:
                self.device = "cpu"
            _release_memory()


@contextmanager
def enough_memory(operation: str, remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error into a ModelError naming ``operation`` and ``remedy``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["no memory"])[0]
        raise ModelError(f"the memory is too small for {operation} ({reason}). {remedy}") from error


def _is_out_of_memory(error: RuntimeError | MemoryError) -> bool:
    return isinstance(error, MemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY)


def _release_memory() -> None:
    """Free the accelerator's memory that torch caches."""
    import torch

    torch.cuda.empty_cache()
