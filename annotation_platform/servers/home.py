"""The lock of a home: two sets of servers cannot share its databases."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annotation_platform.errors import SettingsError


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Lock a home for this process until the block ends.

    The lock is a file next to the home, so that the home itself can be replaced. The system
    releases it when the process ends in any way.

    Raises:
        SettingsError: another process holds the lock, or the file cannot be written.
    """
    lock = home.with_name(f".{home.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise SettingsError(
            f"{home}: cannot be written ({error.strerror}). Choose another folder: --home for the "
            "demo, ANNOTATION_HOME otherwise."
        ) from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise SettingsError(
                f"{home}: another annotation-platform uses this folder. Stop it, or choose another."
            ) from error
        yield
