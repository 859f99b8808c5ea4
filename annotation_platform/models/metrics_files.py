"""Training logs, step by step, as files for TensorBoard and DVCLive.

TensorBoard's event files are written by tensorboardX, which needs neither TensorBoard nor torch;
DVCLive's by DVCLive. Both are optional: ``pip install annotation-platform[metrics]``.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from annotation_platform.errors import SettingsError
from annotation_platform.models.fitting import RecordStep
from annotation_platform.policy import TrainingPolicy

TENSORBOARD = "tensorboard"
DVCLIVE = "dvclive"
# Enough points for a curve, few enough to keep the files of a long training small.
_POINTS = 200


@contextmanager
def metrics_files(policy: TrainingPolicy, folder: Path) -> Iterator[RecordStep | None]:
    """Yield the step callback that writes the files; None where the policy asks for no files.

    ``<folder>/tensorboard`` and ``<folder>/dvclive``, as far as the policy asks for them, hold loss
    and learning rate at about 200 steps. They are complete when the context ends.

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


def _thinned(writers: list[_Write]) -> RecordStep:
    """Return a callback that passes about ``_POINTS`` steps to the writers, the first included."""
    last_point = -1

    def record(step: int, loss: float, learning_rate: float, share: float) -> None:
        nonlocal last_point
        if int(share * _POINTS) > last_point:
            last_point = int(share * _POINTS)
            for write in writers:
                write(step, {"train/loss": loss, "train/learning_rate": learning_rate})

    return record


@contextmanager
def _tensorboard(folder: Path) -> Iterator[_Write]:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise _missing("tensorboard", "tensorboardX") from error
    # Only files: no console log, no comet hook.
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
    # No experiment and no report: versions are published elsewhere.
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
