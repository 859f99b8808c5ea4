"""The ``Retry-After`` header of HTTP."""

import email.utils
from datetime import UTC, datetime


def asked_seconds(retry_after: str) -> float:
    """Return the seconds to wait by a ``Retry-After`` header; 0 if it is missing or unusable."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        at = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    # A date without a zone is in UTC, as every date of HTTP.
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
