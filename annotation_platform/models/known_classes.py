"""Which classes weights can propose."""

from dataclasses import dataclass

from annotation_platform.models.detection.custom import open_detector
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy


@dataclass(frozen=True)
class ClassCoverage:
    """Says by their SHA-256 which classes weights can propose, as ``model_predictions`` names them.

    They are the registry's, those of its classifiers too, or the detector of the user's own that
    ``policy`` names, which is opened for it: what of its classes gets a name here is for it to say.
    """

    registry: ModelRegistry
    policy: Policy

    def __call__(self, weights: str) -> set[str]:
        """Return the classes; weights that nothing is known of are a ModelError."""
        policy = self.policy
        if policy.prediction.weights or policy.prediction.architecture:
            masked = policy.masking.classes
            detector = open_detector(policy.prediction, policy.ontology, masked=masked)
            if detector.digest == weights:
                return set(detector.class_names)
        known = self.registry.classifiers
        registry = known if known.has(weights) else self.registry
        return set(registry.card(weights).class_names)
