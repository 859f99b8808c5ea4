"""The classes that weights can predict."""

from dataclasses import dataclass

from annotation_platform.models.detection.custom import open_detector
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy


@dataclass(frozen=True)
class ClassCoverage:
    """Returns the classes that weights, given by SHA-256, can predict, as in ``model_predictions``.

    Weights are those of the registry and its classifiers, or the custom detector that ``policy``
    names. A custom detector is opened, since its class mapping decides which names it predicts.
    """

    registry: ModelRegistry
    policy: Policy

    def __call__(self, weights: str) -> set[str]:
        """Return the classes; unknown weights are a ModelError."""

        policy = self.policy
        if policy.prediction.weights or policy.prediction.architecture:
            masked = policy.masking.classes
            detector = open_detector(policy.prediction, policy.ontology, masked=masked)
            if detector.digest == weights:
                return set(detector.class_names)
        known = self.registry.classifiers
        registry = known if known.has(weights) else self.registry
        return set(registry.card(weights).class_names)
