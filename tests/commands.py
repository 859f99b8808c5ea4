"""Commands of the platform and of DVC in this process, which has imported what they import."""

import contextlib
import contextvars
import gc
import io
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import pytest

from annotation_platform.cli import main


def run_command(
    *arguments: object, environment: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command as its own process would, and return its exit code and what it printed.

    What a test asserts about the process itself (signals, imports, a missing terminal) needs a
    process: ``subprocess.run([sys.executable, "-m", "annotation_platform.cli", ...])``.

    Args:
        arguments: the words after ``annotation-platform``.
        environment: variables set for this command, in addition to those of the tests.
        cwd: the folder in which it runs; by default the present one.
    """
    words = [str(each) for each in arguments]
    streams = {name: io.TextIOWrapper(io.BytesIO(), "utf-8") for name in ("stdout", "stderr")}
    terminates, thresholds = signal.getsignal(signal.SIGTERM), gc.get_threshold()
    with (
        mock.patch.dict(os.environ, environment or {}),
        mock.patch.object(sys, "argv", ["annotation-platform", *words]),
        contextlib.redirect_stdout(streams["stdout"]),
        contextlib.redirect_stderr(streams["stderr"]),
        contextlib.chdir(cwd or Path.cwd()),
    ):
        try:
            # The author of what a command writes is a variable of its context.
            with pytest.raises(SystemExit) as ended:
                contextvars.copy_context().run(main)
        finally:
            signal.signal(signal.SIGTERM, terminates)
            gc.set_threshold(*thresholds)
            gc.unfreeze()
    code = ended.value.code
    assert isinstance(code, int)
    printed = {name: _text_of(stream) for name, stream in streams.items()}
    return subprocess.CompletedProcess(words, code, **printed)


def run_dvc(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> str:
    """Run DVC's own command in a folder, and return what it prints; it must succeed."""
    from dvc.cli import main as dvc

    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, environment or {}),
        contextlib.redirect_stdout(printed),
        contextlib.chdir(folder),
    ):
        code = dvc(list(arguments))
    assert code == 0, printed.getvalue()
    return printed.getvalue()


def _text_of(stream: io.TextIOWrapper) -> str:
    stream.flush()
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode()
