"""The protocol of detectors, and their results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from annotation_platform.images.decoding import Pixels
from annotation_platform.schema.geometry import Boxes, FloatArray

LOWEST_SCORE = 0.05
"""Default lower limit of a detector's own scores: boxes below it get no row."""


@dataclass(frozen=True)
class Detections:
    """The boxes found in one image, best first; possibly none."""

    boxes: Boxes  # (N, 4), absolute pixels of the given image
    scores: FloatArray  # (N,), 0 to 1
    class_names: list[str]  # N
    dropped: int = 0  # outputs of the network that were not finite
    passes: int = 1  # forward passes over the image or a part of it

    @classmethod
    def nothing(cls, *, dropped: int = 0, passes: int = 0) -> Self:
        """Return the detections of an image without any."""
        return cls(np.zeros((0, 4)), np.zeros(0), [], dropped, passes)

    def of(self, indices: Sequence[int]) -> "Detections":
        """Return the detections at ``indices``, in that order."""
        chosen = np.asarray(indices, dtype=np.intp)
        names = [self.class_names[index] for index in chosen]
        return Detections(self.boxes[chosen], self.scores[chosen], names, self.dropped, self.passes)


class Detector(Protocol):
    """Predicts boxes: a network of ours, a published one, or a custom model."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes that it can predict."""
        ...

    @property
    def digest(self) -> str:
        """SHA-256 of its file of weights."""
        ...

    @property
    def device(self) -> str:
        """Device in use: ``cpu`` or ``cuda``."""
        ...

    def predict(
        self, images: Sequence[Pixels], *, minimum_score: float = LOWEST_SCORE
    ) -> list[Detections]:
        """Return the detections of each of the ``(H, W, 3)`` RGB images, in their order.

        Boxes are in absolute pixels of the given image, inside it, none without an area. Outputs
        that are not finite are left out and counted.
        """
        ...
