"""Progress of the demo: the stage, its share done, the time since the start."""

import threading
import time
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

_QUIET_SECONDS = 20.0


class Narrator:
    """A progress bar on a terminal, and a line per stage in a log.

    All output goes to standard error; standard output is for results.
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
        self._began = self._printed_at = time.monotonic()
        self._stage, self._done, self._total = "", 0, 0
        self._task = self._bar.add_task("", total=None, visible=False)

    def say(self, text: str) -> None:
        """Print a permanent line with the time since the start."""
        with self._lock:
            self._printed_at = time.monotonic()
            minutes, seconds = divmod(int(self._printed_at - self._began), 60)
            self._console.print(f"[dim]{minutes:2d}:{seconds:02d}[/dim] {text}", soft_wrap=True)

    def stage(self, text: str, *, total: int = 0) -> None:
        """Begin a stage of ``total`` steps; 0 if the number is unknown."""
        with self._lock:
            self._stage, self._done, self._total = text, 0, total
            self._bar.reset(
                self._task, description=text, total=total or None, completed=0, visible=True
            )
        if not self._console.is_terminal:
            self.say(f"{text} …")

    def step(self) -> None:
        """Count one finished step of the stage; may be called from any thread."""
        with self._lock:
            self._done += 1
            self._bar.update(self._task, completed=self._done)
        self.breathe()

    def breathe(self) -> None:
        """Print a line to a log if the stage has been silent for 20 seconds; a bar needs none."""
        quiet = time.monotonic() - self._printed_at > _QUIET_SECONDS
        if quiet and not self._console.is_terminal:
            share = f" {self._done} of {self._total}" if self._total else ""
            self.say(f"{self._stage}{share} …")

    def close(self) -> None:
        """Remove the bar, so that results can be printed."""
        self._bar.stop()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
