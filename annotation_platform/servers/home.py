"""One set of servers for a home: two would share databases that are not made for it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annotation_platform.errors import SettingsError


@contextmanager
def locked_home(home: Path) -> Iterator[None]:
    """Hold a home for this process; a SettingsError if another one has it, or it cannot be made.

    The lock lies beside the home, so that the home can be made anew under it. The system takes it
    back when the process ends, however it ends.
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
                f"{home}: another annotation-platform runs there. Stop it, or choose another."
            ) from error
        yield
