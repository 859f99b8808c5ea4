"""What a network learned, step by step, as files that other tools read.

TensorBoard's event files are written by tensorboardX, which needs neither TensorBoard nor torch;
DVCLive's by DVCLive. Both are optional: ``pip install annotation-platform[metrics]``.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from annotation_platform.errors import SettingsError
from annotation_platform.models.fitting import Record
from annotation_platform.policy import TrainingPolicy

TENSORBOARD = "tensorboard"
DVCLIVE = "dvclive"
# Of a step a line is written so often that a curve shows, and a long training stays small.
_POINTS = 200


@contextmanager
def metrics_files(policy: TrainingPolicy, folder: Path) -> Iterator[Record | None]:
    """Give what ``train_detector`` tells its steps to; None where the policy asks for no files.

    ``<folder>/tensorboard`` and ``<folder>/dvclive`` hold loss and learning rate by step, about 200
    points of them, as far as the policy asks. They are whole when this ends.

    Raises:
        SettingsError: the tool that the policy names is not installed.
    """
    with ExitStack() as stack:
        writers = []
        if policy.tensorboard:
            writers.append(stack.enter_context(_tensorboard(folder / TENSORBOARD)))
        if policy.dvclive:
            writers.append(stack.enter_context(_dvclive(folder / DVCLIVE)))
        yield _thinned(writers) if writers else None


_Write = Callable[[int, dict[str, float]], None]


def _thinned(writers: list[_Write]) -> Record:
    """Return what hands about ``_POINTS`` steps to the writers, the first one always."""
    told = -1

    def record(step: int, loss: float, learning_rate: float, share: float) -> None:
        nonlocal told
        if int(share * _POINTS) > told:
            told = int(share * _POINTS)
            for write in writers:
                write(step, {"train/loss": loss, "train/learning_rate": learning_rate})

    return record


@contextmanager
def _tensorboard(folder: Path) -> Iterator[_Write]:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard", "tensorboardX") from error
    # Without a console log and its comet hook: files and nothing else.
    with SummaryWriter(str(folder), write_to_disk=True) as writer:

        def write(step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        yield write


@contextmanager
def _dvclive(folder: Path) -> Iterator[_Write]:
    try:
        from dvclive import Live
    except ImportError as error:
        raise _missing("dvclive", "DVCLive") from error
    # No experiment is saved and no report drawn: versions are the publisher's business.
    live: Any = Live(
        dir=str(folder), save_dvc_exp=False, report=None, dvcyaml=None, monitor_system=False
    )
    with live:

        def write(step: int, values: dict[str, float]) -> None:
            live.step = step
            for name, value in values.items():
                live.log_metric(name, value)
            live.make_summary()

        yield write


def _missing(setting: str, package: str) -> SettingsError:
    return SettingsError(
        f"training.{setting} is on, but {package} is not installed. "
        "Install annotation-platform[metrics], or turn it off in params.yaml."
    )
