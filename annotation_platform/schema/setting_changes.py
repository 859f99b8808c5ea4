"""Which settings of two policies differ."""

from collections.abc import Mapping
from typing import Any


def changed_settings(
    before: Mapping[str, Any], now: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ, each with what it was and what it is.

    Args:
        before: the older policy, as JSON knows it; it may be of an earlier form.
        now: the newer one.

    Returns:
        By its key, such as ``review.gate``; what is in a list of things with an ``id`` by that:
        ``ontology.classes.3.name``. What there is in one of them only is None in the other.
    """
    was, is_ = _flat(before), _flat(now)
    keys = sorted(was.keys() | is_.keys())
    return {key: (was.get(key), is_.get(key)) for key in keys if was.get(key) != is_.get(key)}


def _flat(content: Mapping[str, Any], beginning: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in content.items():
        inner = _by_id(value)
        if isinstance(inner, dict) and inner:
            found |= _flat(inner, f"{beginning}{key}.")
            if inner is not value:
                # Their order is a setting too.
                found[f"{beginning}{key}"] = list(inner)
        else:
            found[f"{beginning}{key}"] = value
    return found


def _by_id(value: Any) -> Any:
    """Return a list of things with an id as a mapping; anything else as it is."""
    if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
        ids = [str(each.get("id", "")) for each in value]
        if all(ids) and len(set(ids)) == len(ids):
            return dict(zip(ids, value, strict=True))
    return value
