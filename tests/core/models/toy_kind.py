"""A kind of model in one file, as docs/how-to/add-a-model.md shows it: a class by brightness."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from annotation_platform.models.classification.calibration import Temperature
from annotation_platform.models.fitting import TrainingEnd, TrainingOptions
from annotation_platform.models.kinds import NotJudged, TrainingInputs
from annotation_platform.models.network_inputs import Augmentation, image_paths, read_image
from annotation_platform.models.registry import ModelRegistry, ProfileCalibration
from annotation_platform.models.training import TrainedNetwork, TrainingSetup
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.tables import TrainingSet

PROFILE = "brightness"


@dataclass(frozen=True)
class BrightnessThresholds:
    """Images are ``classes[1]`` above a brightness, which is learned, and else ``classes[0]``."""

    registry: ModelRegistry
    inputs: TrainingInputs
    classes: tuple[str, str]
    noun: str = "threshold"

    def train(self, budget: TrainingPolicy, options: TrainingOptions) -> TrainedNetwork:  # noqa: ARG002
        dark, light = (
            [value for value, name in self._pairs("train") if name == wanted]
            for wanted in self.classes
        )
        threshold = (sum(dark) / len(dark) + sum(light) / len(light)) / 2
        return TrainedNetwork(
            state=json.dumps({"threshold": threshold}).encode(),
            setup=TrainingSetup(
                architecture="threshold",
                class_names=self.classes,
                side=1,
                setting="training.weights",
                weights="",
                weights_sha256="",
                augmentation=Augmentation(),
                batch_size=1,
                examples=len(dark) + len(light),
                images=len(dark) + len(light),
            ),
            architecture="threshold",
            started_from=options.start_from.stem if options.start_from else "",
            epochs=1.0,
            cpu_seconds=0.0,
            final_loss=0.0,
            steps=1,
            skipped_steps=0,
            images_at_a_time=1,
            device="cpu",
            ended_by=TrainingEnd.STEPS,
        )

    def calibrate(self, state: bytes) -> ProfileCalibration[Temperature]:  # noqa: ARG002
        return ProfileCalibration(PROFILE, Temperature(choose="one", images=0))

    @property
    def untestable(self) -> str:
        return "" if self._pairs("test") else "There is no test image."

    def test(self, weights: str) -> float:
        threshold = json.loads(self.registry.read(weights))["threshold"]
        pairs = self._pairs("test")
        return sum(self.classes[value > threshold] == name for value, name in pairs) / len(pairs)

    def decide(self, new: float, before: Mapping[str, float], *, later: str) -> NotJudged:  # noqa: ARG002
        worse = [name for name, accuracy in before.items() if new < accuracy]
        return NotJudged(f"Worse than {worse[0]}." if worse else "Not worse.", promoted=not worse)

    def best(self, known: Mapping[str, float]) -> str:
        return max(reversed(list(known)), key=lambda weights: known[weights])

    def _pairs(self, split: str) -> list[tuple[float, str]]:
        rows = self.inputs.split(split)
        paths = image_paths(rows, self.inputs.image_path)
        names = zip(rows[TrainingSet.image_id], rows[TrainingSet.class_name], strict=True)
        return [(float(read_image(paths[image]).mean()), name) for image, name in names]
