"""What the platform asks of a detector, whatever made it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from annotation_platform.images.decoding import Pixels
from annotation_platform.schema.geometry import Boxes, FloatArray

LOWEST_SCORE = 0.05
"""What a detector itself scores below this is not worth a row."""


@dataclass(frozen=True)
class Detections:
    """What was found in one image, best first; nothing found is a result like any other."""

    boxes: Boxes  # (N, 4), absolute pixels of the image that was given
    scores: FloatArray  # (N,), 0 to 1
    class_names: list[str]  # N
    dropped: int = 0  # outputs of the network that were no numbers
    passes: int = 1  # looks of a network at the image or a part of it

    @classmethod
    def nothing(cls, *, dropped: int = 0, passes: int = 0) -> Self:
        """Return an image in which nothing was found."""
        return cls(np.zeros((0, 4)), np.zeros(0), [], dropped, passes)

    def of(self, places: Sequence[int]) -> "Detections":
        """Return those at ``places``, in that order."""
        chosen = np.asarray(places, dtype=np.intp)
        names = [self.class_names[place] for place in chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], names, self.dropped, self.passes)


class Detector(Protocol):
    """Something that proposes boxes: our own network, a published one, a file of the user's."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes it may propose."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of the file that it was made from."""
        ...

    @property
    def device(self) -> str:
        """Where it runs: ``cpu`` or ``cuda``."""
        ...

    def predict(
        self, images: Sequence[Pixels], *, minimum_score: float = LOWEST_SCORE
    ) -> list[Detections]:
        """Return what is seen in each of the ``(H, W, 3)`` RGB images, in their order.

        Boxes are in absolute pixels of the image as given, inside it, none without an area.
        Outputs that are no numbers are left out and counted.
        """
        ...
