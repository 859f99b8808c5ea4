"""Detectors as a kind of model, with the inputs of a round's training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from annotation_platform.models.detection.calibration import Calibration
from annotation_platform.models.detection.detector import predict_files
from annotation_platform.models.detection.training import examples_of, train_detector
from annotation_platform.models.evaluation.evaluation import Evaluation, evaluate
from annotation_platform.models.evaluation.promotion import Promotion, best_of, decide_promotion
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.kinds import TrainingInputs
from annotation_platform.models.network_inputs import image_paths
from annotation_platform.models.predictions import calibrate_new
from annotation_platform.models.registry import ModelRegistry, ProfileCalibration
from annotation_platform.models.training import TrainedNetwork
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import Dataset


@dataclass(frozen=True)
class TestedDetector:
    """A detector's evaluation on the test images, and its predictions for them."""

    evaluation: Evaluation
    predictions: pd.DataFrame


@dataclass(frozen=True)
class Detectors:
    """The kind of model that predicts boxes of objects; see ``ModelKind``.

    ``weights`` say how often each image is used, see ``train_detector``.
    """

    registry: ModelRegistry
    inputs: TrainingInputs
    weights: Mapping[str, float] | None = None
    noun: str = "model"

    def train(self, budget: TrainingPolicy, options: TrainingOptions) -> TrainedNetwork:
        """Return a detector trained on the areas of the train split, as boxes."""
        dataset, paths = self._split("train")
        return train_detector(
            examples_of(dataset, paths, tile_side=budget.tile_side),
            class_names=self.inputs.policy.ontology.areas,
            policy=budget,
            seed=self.inputs.policy.seed,
            weights=self.weights,
            options=options,
        )

    def calibrate(self, state: bytes) -> ProfileCalibration[Calibration]:
        """Fit and store the calibration of new weights; see ``calibrate_new``."""
        dataset, paths = self._split("val")
        return calibrate_new(self.registry, state, dataset, paths, policy=self.inputs.policy)

    @property
    def untestable(self) -> str:
        """A sentence on why no detector can be tested; empty if there is a test image."""
        if len(self.inputs.split("test")):
            return ""
        return (
            "Not promoted: the test split has no image yet, so no model can be judged. "
            "It grows with every round; label more images, or raise splits.test in params.yaml."
        )

    def test(self, weights: str) -> TestedDetector:
        """Return the evaluation on the test split."""
        truth, paths = self._test_split
        predictions = predict_files(self.registry.load(weights), paths)
        return TestedDetector(evaluate(truth, predictions), predictions)

    def decide(
        self, new: TestedDetector, before: Mapping[str, TestedDetector], *, later: str
    ) -> Promotion:
        """Return the decision of ``decide_promotion``."""
        others = {name: one.evaluation for name, one in before.items()}
        return decide_promotion(new.evaluation, others, later=later)

    def best(self, known: Mapping[str, TestedDetector]) -> str:
        """Return the weights with the highest mAP; of equal ones the last."""
        return best_of({weights: one.evaluation for weights, one in known.items()})

    @cached_property
    def _test_split(self) -> tuple[Dataset, dict[str, Path]]:
        return self._split("test")

    def _split(self, name: str) -> tuple[Dataset, dict[str, Path]]:
        rows: pd.DataFrame = self.inputs.split(name)
        boxes = Dataset.from_training_set(rows, self.inputs.policy.ontology).boxes()
        return boxes, image_paths(rows, self.inputs.image_path)
