"""The names under which fields are stored in plans, the ledger and packages for vendors.

These files are never rewritten, so their keys keep the names of release 0.1.0.
"""

from collections.abc import Mapping
from typing import Any

_STORED = {
    "assignment": "place",
    "fills_assignment": "stands_for",
    "pre_annotations": "proposed",
    "without_predictions": "blind",
}
_FIELDS = {stored: field for field, stored in _STORED.items()}


def to_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an object under their stored names, in the same order."""
    return {_STORED.get(name, name): value for name, value in content.items()}


def from_stored(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored content under the names of the object's fields, in the same order."""
    return {_FIELDS.get(name, name): value for name, value in content.items()}
