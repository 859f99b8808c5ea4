"""The registry of sources whose arrivals hold several images; ``docs/how-to/add-a-source.md``."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol


@dataclass(frozen=True)
class PartImage:
    """One image of an arrival: its coded bytes, and seconds from the start if it has a time."""

    data: bytes
    timestamp_seconds: float | None = None


class ArrivalSource(Protocol):
    """Takes the images out of one landed object, such as a video."""

    def __call__(self, data: bytes, /) -> Iterator[PartImage]:
        """Yield the images of a landed object, in order.

        The same bytes yield the same images, because a repeated ingestion calls it again.

        Raises:
            DataError: the object is damaged or not allowed; none of its images is taken in.
        """


SOURCES: dict[str, ArrivalSource] = {}
"""Sources by the suffix of their files in lower case, ``.clip``; any other arrival is one image."""


def source_of(key: str) -> ArrivalSource | None:
    """Return the source of an arrival by its name; None if the arrival is one image."""
    return SOURCES.get(PurePosixPath(key).suffix.lower())
