"""Parallel processing of images, in threads of this process or by the engine of a deployment."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_WORKERS = 2
_AHEAD = 8
"""Results that may wait for the reader, which limits the memory while an image is slow."""


def map_each(
    function: Callable[[_Item], _Result], items: Sequence[_Item], *, runner: str | None = None
) -> Iterator[_Result]:
    """Yield the result for each item, in order, a few at a time; an exception ends the pass.

    ``runner`` is that of `storage.engine.map_each`; None means a few threads of this process,
    which start immediately and suffice for a few thousand images.
    """
    with warnings.catch_warnings():
        # Limits, strict decoding and flags replace Pillow's warnings.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if runner is None:
            yield from _threaded(function, items)
        else:
            from annotation_platform.storage import engine

            yield from engine.map_each(function, items, runner=runner)


def _threaded(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> Iterator[_Result]:
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[Future[_Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
