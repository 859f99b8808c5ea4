"""What a response of Label Studio says, without repeating a secret."""

import json
import math
from typing import Any


def without_query(location: str) -> str:
    """Return an address without its query, which may hold a secret."""
    return location.split("?", 1)[0] or "nowhere"


def parsed_json(body: bytes) -> Any:
    """Return the JSON of a response; a number that is not finite becomes a text."""
    # JSON has no NaN and no infinity, but Label Studio stores any content. Such a number becomes a
    # text: it must not make all other annotations unreadable, nor pass as a number.
    return json.loads(body, parse_constant=str, parse_float=_finite)


def _finite(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def refusal_reason(body: bytes) -> str:
    """Return the server's reason for a refusal, on one line of at most 300 characters."""
    try:
        reason = parsed_json(body)
    except (ValueError, RecursionError):
        return "it gave no reason"
    if isinstance(reason, dict):
        reason = reason.get("validation_errors") or reason.get("detail") or reason
    return " ".join(str(reason).split())[:300]
