"""The parameters that resolve one task, learned from all annotations of a round.

They are stored with the labels of the round, and resolve a single task again in a millisecond, for
example with some of its annotations left out.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from annotation_platform.consensus.classes import Naming, Size
from annotation_platform.consensus.fusion import Spread
from annotation_platform.consensus.weights import Weights


@dataclass(frozen=True)
class Common:
    """The learned parameters of a round.

    Attributes:
        weights: weights of the annotators, for the presence and the location of objects.
        regions: evidence that breaks ties between classes of regions.
        choices: the same for classes of whole images.
        spread: deviation of the annotators' regions from the truth.
        choose_one: whether one class is chosen for an image.
        extent: width and height in pixels of an image whose size is unknown.
        method: method that decided the classes; ``majority``, unless gold favoured a model.
    """

    weights: Weights
    regions: Naming
    choices: Naming
    spread: Spread
    choose_one: bool
    extent: tuple[float, float]
    method: str = field(default="")

    def to_dict(self) -> dict[str, Any]:
        """Return a value for JSON, from which the numbers are restored exactly."""
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
        """Return the parameters from the result of ``to_dict``."""
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
