"""Limits the rate of requests to a server."""

import threading
import time
from dataclasses import dataclass

from annotation_platform.errors import SettingsError


class RateLimiter:
    """Spaces requests, whichever thread sends them.

    Args:
        requests_per_second: above 0; None does not limit.
    """

    def __init__(self, requests_per_second: float | None) -> None:
        if requests_per_second is not None and not requests_per_second > 0:
            raise SettingsError(
                f"{requests_per_second:g} requests a second is not a rate. Set a number above "
                "0, or none for no limit."
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
    """Timeouts, waits and request rate of a Label Studio client.

    Attributes:
        timeout_seconds: for connecting, and for each wait for bytes.
        retry_seconds: the first wait before a failed request is repeated.
        settle_seconds: how long an import with a lost response may still be running; it is not sent
            again before.
        requests_per_second: the most requests that a client sends; None is unlimited.
    """

    timeout_seconds: float = 30.0
    retry_seconds: float = 0.5
    settle_seconds: float = 10.0
    requests_per_second: float | None = None
