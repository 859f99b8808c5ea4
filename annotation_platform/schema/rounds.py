"""Rounds: the unit in which images travel. A round is a fixed manifest of landed objects."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

RELEASED = "released:"
"""How the stamp of an image begins that was put back from quarantine; its image id follows."""

_ROUND = re.compile(r"round-(\d{4,})")


def round_name(number: int) -> str:
    """Return the key of round ``number`` (from 1): ``round-0001``."""
    if number < 1:
        raise ValueError(f"rounds are numbered from 1, not {number}")
    return f"round-{number:04d}"


def round_number(key: str) -> int:
    """Return the number in a round's key; anything that is not one is a ``ValueError``."""
    match = _ROUND.fullmatch(key)
    if match is None:
        raise ValueError(f"{key!r} is not a round; rounds are called round-0001, round-0002, …")
    return int(match.group(1))


def next_round(existing: Iterable[str]) -> str:
    """Return the key after the highest of ``existing``; the first is ``round-0001``."""
    return round_name(max((round_number(key) for key in existing), default=0) + 1)


@dataclass(frozen=True, order=True)
class Arrival:
    """One object in the landing zone, as it was when its round was formed.

    ``stamp`` tells two contents under one name apart without reading them: size and
    modification time in nanoseconds for a file, size and entity tag for an object in S3;
    ``released:`` and an image id for an image that was put back from quarantine. ``sidecar`` is
    the key of its metadata, empty if it has none; the same object with other metadata is no other
    object.
    """

    key: str
    stamp: str
    byte_size: int
    sidecar: str = field(default="", compare=False)


def part_key(key: str, index: int) -> str:
    """Return the name of an image among several in one arrival: ``a.clip/000003``."""
    return f"{key}/{index:06d}"


def whole_key(key: str) -> str:
    """Return the name of the arrival in the name of one of its images, see ``part_key``."""
    return key.rpartition("/")[0]
