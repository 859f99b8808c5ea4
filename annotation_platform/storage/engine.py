"""One function applied to many items, on all cores or on a Ray cluster: the pass over images."""

import asyncio
import ctypes
import logging
import os
import pickle
import re
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

from annotation_platform.errors import SettingsError

T = TypeVar("T")
R = TypeVar("R")

_CLUSTER = re.compile(r"(ray://)?[\w.-]+:\d+")
_QUIET = {
    "DAFT_ANALYTICS_ENABLED": "0",
    "DAFT_PROGRESS_BAR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_DASHBOARD": "1",
}
"""Switches off telemetry, and progress bars in logs, of both engines."""
_ROWS = 64
"""Items in a full batch, which costs 1 ms in Daft and 10 ms in Ray; a 64th of fewer items."""
_PROCESSES_FROM = 5_000
"""From this number of items on, processes repay the second that they take to start."""


@dataclass
class _Gate:
    """Limits how many items the plan may be ahead of the reader of its results."""

    ahead: int
    taken: int = 0
    closed: bool = False

    async def passed(self, position: int) -> bool:
        """Wait until an item may enter; return False once the reader has stopped."""
        while position >= self.taken + self.ahead and not self.closed:
            await asyncio.sleep(0.005)
        return not self.closed


def map_each(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    runner: str = "",
    processes: bool | None = None,
) -> Iterator[R]:
    """Yield ``function(item)`` for each item, in order, as soon as all earlier ones are yielded.

    The pass is one Daft plan. On one machine it stays a few batches ahead of the reader, so memory
    does not grow with the number of items, and it stops soon after the reader. A cluster does not
    wait for the reader; the work of a worker or node that died is repeated by another one, so
    ``function`` may be called twice with an item there.

    Args:
        function: can be pickled and reads its input itself. An exception in it is a bug and ends
            the pass; from another process it is a RuntimeError that contains the traceback.
        items: small values, such as ids; they are pickled, as are the results.
        runner: empty for this machine; ``ray`` for a Ray started on it; ``host:port`` or
            ``ray://host:port`` for a cluster on which this package is installed. The first runner
            of a process is its only one.
        processes: whether one machine uses a process per core instead of a thread; by default
            from 5,000 items on. A cluster uses threads in one process per node, which it replaces.
    """
    _start(runner)
    import daft

    rows = max(1, min(_ROWS, len(items) // 64))
    gate = _Gate(ahead=len(items) if runner else 3 * rows * (os.cpu_count() or 1))
    if processes is None:
        processes = len(items) >= _PROCESSES_FROM

    def results(batch: Any) -> list[bytes]:
        _keep_freed_memory()
        # A thread sees a closed gate here; another process has a copy of the gate.
        return [
            b"" if gate.closed else pickle.dumps(function(pickle.loads(item)))
            for item in batch.to_pylist()
        ]

    each = daft.func.batch(
        return_dtype=daft.DataType.binary(),
        batch_size=rows,
        # Ray replaces a node's process that died, but not the processes of that process.
        use_process=processes and not runner,
    )(results)
    plan = _plan(items, rows, gate, tasks=bool(runner))
    plan = plan.select("position", each(daft.col("item")).alias("result"))
    yield from _in_order(plan, gate, len(items))


def _in_order(plan: Any, gate: _Gate, count: int) -> Iterator[Any]:
    """Yield the ``count`` results of a plan by position, and close the gate at the end."""
    waiting: dict[int, bytes] = {}
    with closing(plan.iter_rows()) as done:
        try:
            for row in done:
                waiting[row["position"]] = row["result"]
                while gate.taken in waiting:
                    yield pickle.loads(waiting.pop(gate.taken))
                    gate.taken += 1
        except KeyboardInterrupt:
            # Python aborts if it exits while a thread is processing an item.
            gate.closed = True
            time.sleep(0.5)
            raise
        finally:
            gate.closed = True
    if gate.taken != count or waiting:
        raise RuntimeError(f"Daft lost items: {gate.taken} of {count} came back in order.")


def _plan(items: Sequence[T], rows: int, gate: _Gate, *, tasks: bool) -> Any:
    """Return a Daft plan of ``items`` in batches: each a task if ``tasks``, or else in sequence."""
    from daft import DataType, Schema
    from daft.io import DataSource, DataSourceTask
    from daft.recordbatch import RecordBatch

    columns = Schema.from_pydict({"position": DataType.int64(), "item": DataType.binary()})

    class Items(DataSourceTask):  # type: ignore[misc]
        schema = columns

        def __init__(self, first: int, items: Sequence[T]) -> None:
            self.first, self.items = first, items

        async def read(self) -> AsyncIterator[RecordBatch]:
            for start in range(0, len(self.items), rows):
                if not await gate.passed(start):
                    return
                batch = [pickle.dumps(item) for item in self.items[start : start + rows]]
                positions = list(range(self.first + start, self.first + start + len(batch)))
                yield RecordBatch.from_pydict({"position": positions, "item": batch})

    class Source(DataSource):  # type: ignore[misc]
        name = "items"
        schema = columns

        async def get_tasks(self, pushdowns: object) -> AsyncIterator[Items]:  # noqa: ARG002
            size = rows if tasks else max(1, len(items))
            for first in range(0, len(items), size):
                yield Items(first, items[first : first + size])

    return Source().read()


@cache
def _start(runner: str) -> None:
    """Set ``runner`` as the engine of this process."""
    if runner not in {"", "ray"} and not _CLUSTER.fullmatch(runner):
        raise SettingsError(
            f"ANNOTATION_RUNNER is {runner!r}. Leave it empty for this machine, or set it to ray,"
            " to host:port or to ray://host:port."
        )
    os.environ.update(_QUIET)
    import daft

    if runner:
        _start_ray("local" if runner == "ray" else runner)
    try:
        if runner:
            daft.set_runner_ray()
        else:
            daft.set_runner_native()
    except daft.exceptions.DaftCoreException as error:
        raise SettingsError(
            f"ANNOTATION_RUNNER cannot become {runner!r}: this process already uses another"
            " engine, and Daft cannot change it. Start a new process."
        ) from error


def _start_ray(address: str) -> None:
    try:
        import ray
    except ImportError as error:
        raise SettingsError(
            "ANNOTATION_RUNNER requires Ray, which is not installed:"
            " pip install 'annotation-platform[cluster]'"
        ) from error
    try:
        if address != "local":
            # Ray itself retries an unreachable address for minutes.
            host, port = address.removeprefix("ray://").split(":")
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(
            address,
            include_dashboard=False if address == "local" else None,
            runtime_env={"env_vars": _QUIET},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except OSError as error:
        raise SettingsError(
            f"ANNOTATION_RUNNER is {address}, where no Ray accepts a connection ({error}). Start"
            " the cluster, correct the address, or set its token (RAY_AUTH_MODE=token and"
            " RAY_AUTH_TOKEN)."
        ) from error


@cache
def _keep_freed_memory() -> None:
    """Make this process reuse the memory of one image for the next.

    The GNU C library otherwise returns it to the system and requests it again page by page, which
    takes a quarter of the time of cleaning. Other C libraries have no ``mallopt``.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_threshold = -1, -3
        mallopt(m_mmap_threshold, 32 << 20)
        mallopt(m_trim_threshold, 128 << 20)
