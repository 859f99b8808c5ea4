"""How long a server asks to be left alone."""

import email.utils
from datetime import UTC, datetime


def asked_seconds(retry_after: str) -> float:
    """Return the wait that a ``Retry-After`` header asks for; 0 where it says nothing usable."""
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
