"""What the demo tells while it works: which stage, how far, how long already."""

import threading
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_QUIET_SECONDS = 20.0


class Narrator:
    """A progress bar where somebody watches, and a line at each stage where nobody does.

    Everything goes to standard error: standard output is for results.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._lock = threading.Lock()
        self._began = self._spoke_at = time.monotonic()
        self._stage, self._done, self._total = "", 0, 0
        self._task = self._bar.add_task("", total=None, visible=False)

    def say(self, text: str) -> None:
        """Print a line that stays, with the time since the beginning."""
        with self._lock:
            self._spoke_at = time.monotonic()
            minutes, seconds = divmod(int(self._spoke_at - self._began), 60)
            self._console.print(f"[dim]{minutes:2d}:{seconds:02d}[/dim] {text}", soft_wrap=True)

    def stage(self, text: str, *, total: int = 0) -> None:
        """Begin a stage of ``total`` steps; 0 where nobody knows how many."""
        with self._lock:
            self._stage, self._done, self._total = text, 0, total
            self._bar.reset(
                self._task, description=text, total=total or None, completed=0, visible=True
            )
        if not self._console.is_terminal:
            self.say(f"{text} …")

    def step(self) -> None:
        """One step of the stage is done; may be called from any thread."""
        with self._lock:
            self._done += 1
            self._bar.update(self._task, completed=self._done)
        self.breathe()

    def breathe(self) -> None:
        """Say in a log, now and then, that the stage goes on; a bar shows it by itself."""
        quiet = time.monotonic() - self._spoke_at > _QUIET_SECONDS
        if quiet and not self._console.is_terminal:
            share = f" {self._done} of {self._total}" if self._total else ""
            self.say(f"{self._stage}{share} …")

    def close(self) -> None:
        """Take the bar away, so that results can be printed."""
        self._bar.stop()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
