"""Many pictures at once, on the cores of this machine."""

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_WORKERS = 2
_AHEAD = 8
"""So many results may wait for one to be taken: a slow picture lets no others pile up."""


def map_each(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the result for each item, in order, a few at a time; what fails ends it."""
    with warnings.catch_warnings(), ThreadPoolExecutor(_WORKERS) as pool:
        # What Pillow remarks upon is decided here by limits, strict decoding and flags.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        waiting: deque[Future[Result]] = deque()
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
