"""A server as a child process: its own process group, its output in a file, stopped as a whole."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from annotation_platform.errors import SettingsError

LOOPBACK = "127.0.0.1"
_BINDER = Path(__file__).with_name("bound_child.py")
_PATIENCE_SECONDS = 10.0


class ChildProcess:
    """A child process that, on Linux, never outlives this process.

    It also ends with the *thread* that started it, so start it from the main thread.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log_path: Path,
        umask: int = -1,
    ) -> None:
        log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path = log_path
        descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            self._process = subprocess.Popen(
                # -P keeps the folder of the binder's file off the module path.
                [sys.executable, "-P", str(_BINDER), str(os.getpid()), *command],
                env=dict(environment),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                umask=umask,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the process is alive."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while the process runs."""
        return self._process.poll()

    def wait(self, seconds: float) -> None:
        """Wait for ``seconds``, or until the process ends."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=seconds)

    def last_line(self) -> str:
        """Return the last line of its output that is not blank."""
        lines = self.log_path.read_text(errors="replace").splitlines()
        return next(
            (line.strip() for line in reversed(lines) if line.strip()), "It printed nothing."
        )

    def stop(self) -> None:
        """Stop the process and its whole group, by force after ten seconds."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self.wait(_PATIENCE_SECONDS)


def usable_port(port: int, *, remedy: str) -> int:
    """Return ``port`` if it is free, or any free port for 0.

    Args:
        port: the port on the loopback interface.
        remedy: how to choose another port, for the message.

    Raises:
        SettingsError: the port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port in TIME_WAIT is not taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise SettingsError(
                f"Port {port} on {LOOPBACK} cannot be used ({error.strerror}). "
                f"Stop the program that uses it, or {remedy}."
            ) from error
        return int(probe.getsockname()[1])
