"""Classifiers of whole images: trained, calibrated, evaluated. Drawn: by day, by night, in rain."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from annotation_platform.errors import DataError, ModelError, NotReadyError
from annotation_platform.models.classification.calibration import Temperature, fit_temperature
from annotation_platform.models.classification.classifier import (
    ImageClassifier,
    predict_classifications,
)
from annotation_platform.models.classification.metrics import (
    ClassificationTruth,
    classification_figures,
    evaluate_classifications,
    promote_classifier,
)
from annotation_platform.models.classification.training import (
    ClassificationExample,
    train_classifier,
)
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.network_inputs import read_image
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.ontology import LabelClass, Ontology

NAMES = ("day", "night", "rain")
POLICY = TrainingPolicy(steps=25, image_width=64, batch_size=4)
ROUND = "round-0001"


def draw(folder, count, seed):
    """Dark or light images, every third striped, with their classes."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number in range(count):
        night, rain = number % 2 == 1, number % 3 == 0
        blocks = rng.integers(0, 90, (6, 8, 3)) + (20 if night else 140)
        pixels = blocks.repeat(12, axis=0).repeat(12, axis=1).astype(np.uint8)
        if rain:
            pixels[:, ::4] = 250 if night else 0
        path = folder / f"{seed}-{number:02d}.png"
        Image.fromarray(pixels).save(path)
        chosen = ("night" if night else "day", *(["rain"] if rain else []))
        examples.append(ClassificationExample(path.stem, path, chosen))
    return examples


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("choices"), 18, seed=1)


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("others"), 18, seed=2)


def alone(examples):
    """The same examples with the light as their only class."""
    return [ClassificationExample(one.image_id, one.path, one.chosen[:1]) for one in examples]


def train(examples, choose="one", policy=POLICY, **more):
    names = NAMES if choose == "many" else NAMES[:2]
    return train_classifier(
        examples, **{"class_names": names, "choose": choose, "policy": policy, "seed": 0, **more}
    )


def probabilities(trained, examples, class_names, choose):
    classifier = ImageClassifier.from_bytes(trained.state, where="memory")
    paths = {one.image_id: one.path for one in examples}
    return predict_classifications(classifier, paths, class_names=class_names, choose=choose)


def share_right(found, names, examples):
    best = zip(found.argmax(axis=1), examples, strict=True)
    return np.mean([names[index] in one.chosen for index, one in best])


@pytest.fixture(scope="session")
def light(images):
    return train(alone(images))


def test_one_of_two_classes_is_learned_and_probabilities_add_up(light, others):
    found = probabilities(light, others, NAMES[:2], "one")
    assert found.sum(axis=1) == pytest.approx(1.0)
    assert share_right(found, NAMES[:2], others) >= 0.9
    assert (light.steps, light.setup.images, light.started_from) == (25, 18, "")


def test_any_number_of_classes_is_learned_each_by_itself(images, others):
    trained = train(images, "many", POLICY.model_copy(update={"steps": 60}))
    found = probabilities(trained, others, NAMES, "many")
    labelled = np.array([[name in one.chosen for name in NAMES] for one in others])
    assert ((found >= 0.5) == labelled).mean() >= 0.85


def test_the_same_seed_and_steps_give_the_same_weights(light, images):
    assert train(alone(images)).state == light.state
    assert train(alone(images), seed=1).state != light.state


def test_training_continues_from_known_classes_and_initialises_new_ones(
    light, images, others, tmp_path
):
    path = tmp_path / "light.pt"
    path.write_bytes(light.state)
    slow = POLICY.model_copy(update={"steps": 1, "learning_rate": 1e-6})
    further = train(
        alone(images),
        policy=slow,
        options=TrainingOptions(path),
        class_names=("dusk", "night", "day"),
    )
    assert further.started_from == hashlib.sha256(light.state).hexdigest()
    found = probabilities(further, others, ("night", "day"), "one")
    assert share_right(found, ("night", "day"), others) >= 0.9


def test_classes_that_a_classifier_does_not_know_have_no_chance(light, others):
    found = probabilities(light, others[:2], ("night", "dusk"), "one")
    assert found.tolist() == [[1.0, 0.0]] * 2
    assert probabilities(light, others[:1], ("dusk", "dawn"), "one").tolist() == [[0.5, 0.5]]


def test_training_can_start_from_torchvisions_file(images, tmp_path):
    path = tmp_path / "resnet18.pth"
    torch.save(resnet18().state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    policy = POLICY.model_copy(
        update={"steps": 1, "classifier_weights": str(path), "classifier_weights_sha256": digest}
    )
    trained = train(alone(images), policy=policy)
    assert (trained.architecture, trained.started_from) == ("resnet18", digest)
    other = policy.model_copy(update={"classifier_weights_sha256": "0" * 64})
    with pytest.raises(ModelError, match=r"refused: its SHA-256 is"):
        train(alone(images), policy=other)
    with pytest.raises(ModelError, match="has none of our classes"):
        ImageClassifier.from_bytes(path.read_bytes(), where=str(path))


def test_files_that_are_not_classifiers_are_refused(tmp_path, images, trained):
    for content, problem in [
        (b"no weights", "refused|damaged"),
        (trained.state, "is not a tensor"),
    ]:
        with pytest.raises(ModelError, match=problem):
            ImageClassifier.from_bytes(content, where="the file")
    with pytest.raises(NotReadyError, match="no image has a classification"):
        train([])
    with pytest.raises(DataError, match=r"'rain' is not a classification of the ontology"):
        train([ClassificationExample("a", images[0].path, ("rain",))])
    with pytest.raises(DataError, match=r"2 classifications, where one may be chosen"):
        train([ClassificationExample("a", images[0].path, ("day", "night"))])


def test_a_single_image_gets_the_same_probabilities_as_in_a_batch(light, others):
    classifier = ImageClassifier.from_bytes(light.state, where="memory")
    pixels = [read_image(one.path) for one in others[:5]]
    together = classifier.predict(pixels)
    assert classifier.predict(pixels[2:3])[0] == pytest.approx(together[2], abs=1e-5)
    assert classifier.predict([]).shape == (0, 2)


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def test_the_temperature_of_an_overconfident_classifier_is_found():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (2000, 4))
    exact = softmax(logits)
    drawn = (rng.random((2000, 1)) < exact.cumsum(axis=1)).argmax(axis=1)
    truth = np.eye(4, dtype=bool)[drawn]
    found = fit_temperature(softmax(2 * logits), truth, choose="one")
    assert found.temperature == pytest.approx(2.0, abs=0.15)
    assert found.apply(softmax(2 * logits)) == pytest.approx(exact, abs=0.03)
    assert found.error_after < 0.03 < found.error_before
    assert Temperature.from_json(found.to_json(), where="memory") == found
    # The most probable class stays the same.
    assert (found.apply(exact).argmax(axis=1) == exact.argmax(axis=1)).all()


def test_the_temperature_of_an_overconfident_multi_label_classifier_is_found():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (1000, 3))
    truth = rng.random((1000, 3)) < 1 / (1 + np.exp(-logits))
    found = fit_temperature(1 / (1 + np.exp(-3 * logits)), truth, choose="many")
    assert found.temperature == pytest.approx(3.0, abs=0.3)


def test_few_images_change_nothing_or_little():
    sure, truth = np.array([[0.99, 0.01]] * 4), np.array([[True, False]] * 4)
    few = fit_temperature(sure, truth, choose="one")
    assert (few.temperature, few.effective_digest, few.images) == (1.0, "", 4)
    more = fit_temperature(sure.repeat(2, axis=0), truth.repeat(2, axis=0), choose="one")
    assert 0.3 < more.temperature < 1.0
    assert more.effective_digest == more.digest


ONTOLOGY = Ontology(
    classes=tuple(LabelClass(id=n, name=name, shape="choice") for n, name in enumerate(NAMES))
)


def labels(*rows):
    return pd.DataFrame(rows, columns=["image_id", "shape", "class_name"])


def test_images_without_a_class_or_with_two_where_one_holds_are_left_out():
    table = labels(
        ["c", "choice", "day"],
        ["a", "choice", "night"],
        ["a", "choice", "night"],
        ["b", "box", "boat"],
        ["d", "choice", "day"],
        ["d", "choice", "rain"],
    )
    truth = ClassificationTruth.from_labels(table, ONTOLOGY)
    assert truth.image_ids == ["a", "c"]
    assert [truth.names_of(row) for row in range(2)] == [("night",), ("day",)]
    both = ClassificationTruth.from_labels(table, ONTOLOGY.model_copy(update={"choose": "many"}))
    assert both.image_ids == ["a", "c", "d"]
    assert both.names_of(2) == ("day", "rain")


def judged(wrong, count=40):
    """A classifier that is wrong on the first ``wrong`` images, which are all by day."""
    truth = ClassificationTruth.from_labels(
        labels(*([f"{n:03d}", "choice", "day"] for n in range(count))), ONTOLOGY
    )
    chances = np.tile([0.8, 0.1, 0.1], (count, 1))
    chances[:wrong] = [0.1, 0.8, 0.1]
    return evaluate_classifications(truth, chances)


def test_figures_by_hand():
    truth = ClassificationTruth.from_labels(
        labels(*([image, "choice", "day"] for image in "abc"), ["d", "choice", "night"]), ONTOLOGY
    )
    chances = np.array([[0.6, 0.4, 0.0], [0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [np.nan] * 3])
    found = evaluate_classifications(truth, chances)
    assert found.accuracy.value == 0.5
    assert found.accuracy.low < 0.2
    assert found.accuracy.high > 0.8
    figures = classification_figures(ROUND, "a" * 64, found).set_index("class_name")
    assert figures[["labelled", "predicted", "correct"]].to_numpy().tolist() == [
        [4, 3, 2],
        [3, 2, 2],
        [1, 1, 0],
    ]
    assert figures["f1"].tolist() == pytest.approx([4 / 7, 4 / 5, 0.0])
    assert figures["accuracy"].tolist() == pytest.approx([0.5, 2 / 3, 0.0])


@pytest.mark.parametrize(
    ("wrong", "later", "promoted", "reason"),
    [
        pytest.param(4, "", True, "Promoted: accuracy", id="as good"),
        pytest.param(5, "", True, "Promoted: accuracy", id="one image worse is chance"),
        pytest.param(20, "", False, "worse beyond chance", id="worse"),
        pytest.param(4, "the last", False, "of a later version", id="as good as a later one"),
        pytest.param(2, "the last", False, "of a later version", id="hardly better than it"),
    ],
)
def test_a_classifier_is_promoted_if_it_is_not_worse_beyond_chance(wrong, later, promoted, reason):
    decision = promote_classifier(judged(wrong), {"the last": judged(4)}, later=later)
    assert decision.promoted == promoted
    assert reason in decision.reason
    assert decision.difference.value == pytest.approx((4 - wrong) / 40)


def test_the_first_classifier_is_promoted_and_other_images_are_not_compared():
    assert promote_classifier(judged(9), {}).promoted
    with pytest.raises(DataError, match="Evaluate both on the test split"):
        promote_classifier(judged(1), {"the last": judged(1, count=39)})


class Tight(torch.nn.Module):
    """Accepts a limited number of images at once, and only on the processor."""

    def __init__(self, room):
        super().__init__()
        self.room, self.batches = room, []

    def forward(self, images):
        self.batches.append((images.device.type, len(images)))
        if len(images) > self.room or images.device.type != "cpu":
            raise torch.OutOfMemoryError("out of memory")
        brightness = images.mean(dim=(1, 2, 3))
        return torch.stack([brightness, -brightness], dim=1)


def tight(room, device):
    network = Tight(room)
    known = ImageClassifier(
        network, class_names=("day", "night"), choose="one", side=8, device=device
    )
    return network, known


def test_the_classifier_halves_batches_if_memory_is_too_small_and_keeps_the_order():
    shades = [np.full((8, 8, 3), 40 * n, dtype=np.uint8) for n in range(6)]
    network, known = tight(2, "cpu")
    found = known.predict(shades)
    assert [size for _, size in network.batches] == [6, 3, 2, 2, 2]
    assert (np.diff(found[:, 0]) > 0).all()
    # torch's "meta" device represents an accelerator without memory for an image.
    network, known = tight(2, "meta")
    known.predict(shades[:2])
    assert network.batches == [("meta", 2), ("meta", 1), ("cpu", 1), ("cpu", 1)]
    assert known.device == "cpu"
    with pytest.raises(ModelError, match="too small for an image"):
        tight(0, "cpu")[1].predict(shades[:1])
