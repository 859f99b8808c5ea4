"""No more requests in a second than a server is to be sent."""

import threading
import time
from dataclasses import dataclass

from annotation_platform.errors import SettingsError


class Pace:
    """Keeps requests apart, whichever thread sends them.

    Args:
        requests_per_second: Above 0; None keeps nothing apart.
    """

    def __init__(self, requests_per_second: float | None) -> None:
        if requests_per_second is not None and not requests_per_second > 0:
            raise SettingsError(
                f"Label Studio cannot be sent {requests_per_second:g} requests a second. Give a "
                "number above 0, or none for as fast as it can."
            )
        self._gap = 1 / requests_per_second if requests_per_second else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Sleep until the next request may be sent."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            at = max(now, self._next)
            self._next = at + self._gap
        time.sleep(at - now)


@dataclass(frozen=True)
class Timing:
    """How long a client waits for Label Studio, and how fast it asks.

    Attributes:
        timeout_seconds: for connecting, and for each wait for bytes.
        retry_seconds: the first wait before a failed request is repeated.
        settle_seconds: how long an import whose reply was lost may still be under way; before
            that is over, it is not sent again.
        requests_per_second: the most that a client sends; None is as fast as it can.
    """

    timeout_seconds: float = 30.0
    retry_seconds: float = 0.5
    settle_seconds: float = 10.0
    requests_per_second: float | None = None
