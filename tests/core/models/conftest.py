"""Images drawn for these tests: red and blue rectangles on grey noise, 120 × 80 pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy import ndimage

from annotation_platform.models.cards import ModelCard
from annotation_platform.models.detection.training import train_detector
from annotation_platform.models.network_inputs import TrainingExample
from annotation_platform.models.protocols import Detections
from annotation_platform.models.training import TrainedNetwork
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import as_boxes
from annotation_platform.schema.ontology import Ontology

WIDTH, HEIGHT = 120, 80
COLORS = {"blue": (40, 60, 220), "red": (220, 50, 40)}


@dataclass(frozen=True)
class Drawn:
    """Examples and the same as a dataset."""

    examples: list[TrainingExample]
    dataset: Dataset


def draw(folder: Path, count: int, seed: int) -> Drawn:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    examples, labels = [], []
    for number in range(count):
        pixels = rng.integers(90, 150, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        boxes, names = [], []
        for slot, name in enumerate(rng.permutation(sorted(COLORS))):
            # One object in each half, so that none hides another.
            w, h = rng.integers(22, 45, 2)
            x, y = slot * 60 + rng.integers(0, 60 - w + 1), rng.integers(0, HEIGHT - h + 1)
            pixels[y : y + h, x : x + w] = COLORS[str(name)]
            boxes.append([x, y, x + w, y + h])
            names.append(str(name))
        image_id = f"image-{number:02d}"
        Image.fromarray(pixels).save(folder / f"{image_id}.png")
        examples.append(
            TrainingExample(
                image_id, folder / f"{image_id}.png", np.array(boxes, dtype=float), names
            )
        )
        labels += [[image_id, n, *map(float, b)] for n, b in zip(names, boxes, strict=True)]
    images = [[e.image_id, f"{e.image_id}.png", "", WIDTH, HEIGHT] for e in examples]
    return Drawn(
        examples,
        Dataset(
            pd.DataFrame(images, columns=IMAGE_COLUMNS),
            pd.DataFrame(labels, columns=LABEL_COLUMNS),
            Ontology.from_names(sorted(COLORS)),
        ),
    )


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Drawn:
    return draw(tmp_path_factory.mktemp("drawn"), 12, seed=3)


@pytest.fixture(scope="session")
def trained(drawn, store) -> TrainedNetwork:
    """A detector trained on the twelve images for a hundred epochs."""
    policy = TrainingPolicy(steps=300, image_width=128, batch_size=4, learning_rate=2e-3)
    return store.once(
        "trained",
        lambda: train_detector(drawn.examples, class_names=sorted(COLORS), policy=policy, seed=0),
    )


class ColorDetector:
    """Finds red and blue areas, each pixel of them, in images with nothing else so bright."""

    class_names = ("blue", "red")
    device = "cpu"

    def __init__(self, digest="c" * 64, score=1.0):
        self.digest = digest
        self.score = score
        self.sizes = []

    def predict(self, images, *, minimum_score=0.05):
        self.sizes += [image.shape[1::-1] for image in images]
        found = [self._found(image) for image in images]
        return [one.of(np.flatnonzero(one.scores >= minimum_score)) for one in found]

    def _found(self, image):
        boxes, names = [], []
        for name in self.class_names:
            areas, _ = ndimage.label((image == COLORS[name]).all(axis=2))
            for rows, columns in ndimage.find_objects(areas):
                boxes.append([columns.start, rows.start, columns.stop, rows.stop])
                names.append(name)
        return Detections(as_boxes(boxes), np.full(len(boxes), self.score), names)


@pytest.fixture
def color_detector():
    return ColorDetector


@pytest.fixture
def card() -> ModelCard:
    return ModelCard(
        architecture="small-fcos",
        class_names=("blue", "red"),
        image_width=128,
        dataset_tag="training-set@v1.0.0",
        started_from="",
        train_images=12,
        cpu_seconds=10.0,
        seed=0,
        policy_digest="0" * 64,
    )
