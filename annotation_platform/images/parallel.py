"""Many images at once: on the cores of this machine, or by the engine of a deployment."""

import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORKERS = 2
_AHEAD = 8
"""So many results may wait for one to be taken: a slow image lets no others pile up."""


def map_each(
    function: Callable[[Item], Result], items: Sequence[Item], *, runner: str | None = None
) -> Iterator[Result]:
    """Yield the result for each item, in order, a few at a time; what fails ends it.

    ``runner`` is that of `storage.engine.map_each`; None is a few threads of this process, which
    start at once and are enough for some thousand images.
    """
    with warnings.catch_warnings():
        # What Pillow remarks upon is decided here by limits, strict decoding and flags.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        if runner is None:
            yield from _threaded(function, items)
        else:
            from annotation_platform.storage import engine

            yield from engine.map_each(function, items, runner=runner)


def _threaded(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    with ThreadPoolExecutor(_WORKERS) as pool:
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
