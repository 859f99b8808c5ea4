"""A kind of model of one's own goes through the loop of all kinds; see add-a-model.md."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.kinds import TrainingInputs, judge, train_model
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, TrainingPolicy
from annotation_platform.schema.ontology import LabelClass, Ontology
from tests.core.models.toy_kind import BrightnessThresholds

NAMES = ("night", "day")


@pytest.fixture
def kind(tmp_path):
    """Return the toy kind on eight images: four to train on, four to test on, of both classes."""

    def make(tag, *, wrong=False):
        rows = []
        for number in range(8):
            shade, name = (40, 200)[number % 2], NAMES[number % 2]
            image = Image.fromarray(np.full((4, 4, 3), shade + number, np.uint8))
            image.save(tmp_path / f"{number}.png")
            split = "train" if number < 4 else "test"
            if wrong and split == "train":
                name = NAMES[0] if number < 3 else NAMES[1]
            rows.append((str(number), "png", name, split))
        table = pd.DataFrame(rows, columns=["image_id", "extension", "class_name", "split"])
        classes = tuple(LabelClass(id=n, name=each, shape="choice") for n, each in enumerate(NAMES))
        policy = Policy(ontology=Ontology(classes=classes))
        inputs = TrainingInputs(table, tag, lambda one, end: tmp_path / f"{one}.{end}", policy)
        return BrightnessThresholds(ModelRegistry(tmp_path / "models"), inputs, NAMES)

    return make


def test_a_kind_of_ones_own_is_trained_tested_and_promoted(kind):
    first = kind("training-set@v1.0.0")
    stored = train_model(first, TrainingPolicy(), TrainingOptions())
    # Night is 40 and 42, day 201 and 203: the threshold is between their means.
    threshold = json.loads(first.registry.read(stored.weights_sha256))["threshold"]
    assert threshold == pytest.approx((41 + 202) / 2)
    assert first.registry.card(stored.weights_sha256).dataset_tag == "training-set@v1.0.0"
    judged = judge(first, stored.weights_sha256)
    assert (judged.new, judged.promoted, judged.decision.promoted) == (1.0, None, True)
    assert first.registry.promoted() == stored.weights_sha256


def test_a_worse_model_of_ones_own_kind_is_not_promoted(kind):
    good, poor = kind("training-set@v1.0.0"), kind("training-set@v1.1.0", wrong=True)
    first = train_model(good, TrainingPolicy(), TrainingOptions())
    judge(good, first.weights_sha256)
    second = train_model(poor, TrainingPolicy(), TrainingOptions())
    assert second.trained.started_from == first.weights_sha256
    worse = poor.registry.add(b'{"threshold": 250.0}', poor.registry.card(second.weights_sha256))
    judged = judge(poor, worse)
    assert (judged.new, judged.promoted, judged.decision.promoted) == (0.5, 1.0, False)
    assert judged.decision.reason == "Worse than the promoted threshold."
    assert (judged.best_sha256, poor.registry.promoted()) == (first.weights_sha256,) * 2
