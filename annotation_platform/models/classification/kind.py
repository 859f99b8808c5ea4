"""Classifiers of whole images as a kind of model, with the inputs of a round's training.

They have a registry of their own: one detector and one classifier are promoted, each by its own
test.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from annotation_platform.models.classification.calibration import Temperature, fit_temperature
from annotation_platform.models.classification.classifier import (
    ImageClassifier,
    predict_classifications,
)
from annotation_platform.models.classification.metrics import (
    ClassificationEvaluation,
    ClassificationTruth,
    ClassifierPromotion,
    evaluate_classifications,
    promote_classifier,
)
from annotation_platform.models.classification.predictions import PROFILE
from annotation_platform.models.classification.training import (
    ClassificationExample,
    train_classifier,
)
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.kinds import TrainingInputs
from annotation_platform.models.network_inputs import image_paths
from annotation_platform.models.registry import ModelRegistry, ProfileCalibration
from annotation_platform.models.training import TrainedNetwork
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.geometry import FloatArray


@dataclass(frozen=True)
class Classifiers:
    """The kind of model that predicts classes of whole images; see ``ModelKind``."""

    registry: ModelRegistry
    inputs: TrainingInputs
    noun: str = "classifier"

    def train(self, budget: TrainingPolicy, options: TrainingOptions) -> TrainedNetwork:
        """Return a classifier trained on the classifications of the train split."""
        policy, truth = self.inputs.policy, self._truth("train")
        examples = [
            ClassificationExample(image_id, self._paths[image_id], truth.names_of(row))
            for row, image_id in enumerate(truth.image_ids)
        ]
        return train_classifier(
            examples,
            class_names=policy.ontology.choices,
            choose=policy.ontology.choose,
            policy=budget,
            seed=policy.seed,
            options=options,
        )

    def calibrate(self, state: bytes) -> ProfileCalibration[Temperature]:
        """Fit and store the calibration of new weights, and of the promoted ones."""
        promoted = self.registry.promoted()
        if promoted is not None:
            self._calibrate(ImageClassifier.from_registry(self.registry, promoted))
        return self._calibrate(ImageClassifier.from_bytes(state, where="the new classifier"))

    @property
    def untestable(self) -> str:
        """A sentence on why no classifier can be tested; empty if a test image has a class."""
        if self._truth("test").image_ids:
            return ""
        return (
            "Not promoted: no test image has a classification yet, so no classifier can be judged. "
            "The test split grows with every round; label more images, or raise splits.test in "
            "params.yaml."
        )

    def test(self, weights: str) -> ClassificationEvaluation:
        """Return the evaluation on the classifications of the test split."""
        truth = self._truth("test")
        classifier = ImageClassifier.from_registry(self.registry, weights)
        return evaluate_classifications(truth, self._probabilities(classifier, truth))

    def decide(
        self,
        new: ClassificationEvaluation,
        before: Mapping[str, ClassificationEvaluation],
        *,
        later: str,
    ) -> ClassifierPromotion:
        """Return the decision of ``promote_classifier``."""
        return promote_classifier(new, before, later=later)

    def best(self, known: Mapping[str, ClassificationEvaluation]) -> str:
        """Return the weights with the highest accuracy; of equal ones the last."""
        return max(reversed(list(known)), key=lambda one: known[one].accuracy.value)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        return image_paths(self.inputs.training_set, self.inputs.image_path)

    def _truth(self, split: str) -> ClassificationTruth:
        return ClassificationTruth.from_labels(
            self.inputs.split(split), self.inputs.policy.ontology
        )

    def _calibrate(self, classifier: ImageClassifier) -> ProfileCalibration[Temperature]:
        truth = self._truth("val")
        probabilities = self._probabilities(classifier, truth)
        found = fit_temperature(probabilities, truth.chosen, choose=truth.choose)
        return self.registry.calibrate_better([classifier.digest], PROFILE, found)

    def _probabilities(self, classifier: ImageClassifier, truth: ClassificationTruth) -> FloatArray:
        return predict_classifications(
            classifier,
            {image_id: self._paths[image_id] for image_id in truth.image_ids},
            class_names=truth.class_names,
            choose=truth.choose,
        )
