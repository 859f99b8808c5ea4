"""Change signals from Label Studio, and the schedule of polling it.

A signal only makes the next poll come sooner: every poll reads Label Studio itself, and polls also
happen regularly without signals.
"""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from annotation_platform.errors import SettingsError

# The clocks of the sender and the poller may differ by this. A signal may also come before its
# annotation can be read, so a poll this soon after a signal is followed by another one.
_SKEW = timedelta(seconds=2)


@dataclass(frozen=True)
class ChangeSignals:
    """The time of the last change signal, kept as the modification time of a file.

    Any number of threads and processes may give and read signals; simultaneous ones are one. Only
    the time of a signal is kept.
    """

    path: Path

    def give(self) -> None:
        """Record that something changed now; a SettingsError if the file cannot be written."""
        # The sender's own clock: a file server's may differ.
        now = time.time_ns()
        try:
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.utime(self.path, ns=(now, now))
        except OSError as error:
            raise SettingsError(
                f"{self.path}: no change signal can be recorded ({error.strerror}). Make "
                "ANNOTATION_HOME a writable folder; until then polling finds annotations."
            ) from error

    def last(self) -> datetime | None:
        """Return the time of the last signal, UTC; None if there was none."""
        try:
            return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(
                f"{self.path}: the last change signal cannot be read ({error.strerror}). Make the "
                "file readable, or delete it: it is empty."
            ) from error


@dataclass(frozen=True)
class PollSchedule:
    """How often a deployment polls for annotations.

    Args:
        signals: where change signals are kept.
        poll_seconds: the longest time between two polls; with 0 a poll is always due.
    """

    signals: ChangeSignals
    poll_seconds: float = 0.0

    def due(self, now: datetime, polled_at: datetime | None) -> bool:
        """Return whether a poll is due: none yet, the interval is over, or a signal came since.

        Clocks may differ by 2 s: a signal up to 2 s older than the last poll counts as newer. A
            signal
        more than 2 s ahead of ``now`` is left from a clock that was set back and is ignored; a last
        poll ahead of ``now`` counts as none.

        Args:
            now: the time, UTC.
            polled_at: when the last poll *began*; None if there was none.
        """
        if polled_at is None or polled_at > now:
            return True
        if (now - polled_at).total_seconds() >= self.poll_seconds:
            return True
        signalled_at = self.signals.last()
        return signalled_at is not None and polled_at - _SKEW <= signalled_at <= now + _SKEW
