"""What the answers to one task are judged by, learned from all answers of a round.

Kept beside the labels of the round, it resolves a single task again in a millisecond, with some of
its answers left out and everything else as it was.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from annotation_platform.consensus.classes import Naming, Size
from annotation_platform.consensus.fusion import Spread
from annotation_platform.consensus.weights import Weights


@dataclass(frozen=True)
class Common:
    """What a round has in common.

    Attributes:
        weights: of people, for whether an object is there and where.
        regions: what tells the classes of regions apart where votes are level.
        choices: the same of whole images.
        spread: by how much what people draw parts from the truth.
        choose_one: whether one class is chosen for an image.
        extent: width and height in pixels of an image whose size is not known.
        method: by which classes were decided; ``majority``, unless known answers spoke for a model.
    """

    weights: Weights
    regions: Naming
    choices: Naming
    spread: Spread
    choose_one: bool
    extent: tuple[float, float]
    method: str = field(default="")

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON knows it; the numbers come back exactly."""
        return {
            "reliability": self.weights.reliability,
            "precision": self.weights.precision,
            "regions": _naming_to_dict(self.regions),
            "choices": _naming_to_dict(self.choices),
            "spread": {shape: each.tolist() for shape, each in self.spread.of_shape.items()},
            "choose_one": self.choose_one,
            "extent": list(self.extent),
            "method": self.method,
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Common":
        """Return what ``to_dict`` gave."""
        width, height = content["extent"]
        spread = {shape: np.array(each) for shape, each in content["spread"].items()}
        return cls(
            Weights(content["reliability"], content["precision"]),
            _naming_from_dict(content["regions"]),
            _naming_from_dict(content["choices"]),
            Spread(spread),
            content["choose_one"],
            (width, height),
            content["method"],
        )


def _naming_to_dict(naming: Naming) -> dict[str, Any]:
    sizes = {"": naming.usual, **naming.by_class}
    return {
        "weight": naming.weight,
        "sizes": {
            name: [each.mean.tolist(), each.deviation.tolist()] for name, each in sizes.items()
        },
    }


def _naming_from_dict(content: dict[str, Any]) -> Naming:
    sizes = {name: Size(*map(np.array, each)) for name, each in content["sizes"].items()}
    return Naming(content["weight"], sizes.pop(""), sizes)
