"""When Label Studio last hinted that something changed, and whether to look at it now.

A hint is a reason to look sooner and nothing else: whoever looks asks Label Studio itself, and
looks every so often without any hint.
"""

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from annotation_platform.errors import SettingsError

# By so much the clocks of who hints and who looks may differ. An answer can be hinted at a moment
# before it can be read, too: a look this soon after a hint is followed by one more.
_SKEW = timedelta(seconds=2)


@dataclass(frozen=True)
class ChangeSignals:
    """The moment of the last hint, kept as the modification time of a file.

    Any number of threads and processes may give and read hints at once; several at the same
    moment are one. Nothing of a hint but its moment is kept.
    """

    path: Path

    def give(self) -> None:
        """Remember that something changed just now; a SettingsError if the file cannot be made."""
        # The giver's own clock: that of a file server may be another one.
        now = time.time_ns()
        try:
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600))
            os.utime(self.path, ns=(now, now))
        except OSError as error:
            raise SettingsError(
                f"{self.path}: no hint can be kept ({error.strerror}). Make ANNOTATION_HOME a "
                "folder that can be written; until then answers are found by polling."
            ) from error

    def last(self) -> datetime | None:
        """Return when the last hint came, in UTC; None if none ever did."""
        try:
            return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SettingsError(
                f"{self.path}: the last hint cannot be read ({error.strerror}). Make it readable, "
                "or remove it: it holds nothing."
            ) from error


@dataclass(frozen=True)
class PollSchedule:
    """How often a deployment looks at what people answered.

    Args:
        hints: Where hints are kept.
        poll_seconds: The longest time between two looks; with 0 one is due always.
    """

    hints: ChangeSignals
    poll_seconds: float = 0.0

    def due(self, now: datetime, looked_at: datetime | None) -> bool:
        """Return whether to look now: never looked, the interval is over, or a hint came since.

        Clocks may differ by 2 s: a hint that is up to 2 s older than the last look counts as newer.
        One that is more than 2 s ahead of ``now`` is left over from a clock that was set back and
        counts for nothing; a last look that is ahead of ``now`` counts as none.

        Args:
            now: In UTC.
            looked_at: When the last look *began*; None if there was none.
        """
        if looked_at is None or looked_at > now:
            return True
        if (now - looked_at).total_seconds() >= self.poll_seconds:
            return True
        hinted_at = self.hints.last()
        return hinted_at is not None and looked_at - _SKEW <= hinted_at <= now + _SKEW
