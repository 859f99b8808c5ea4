import hashlib
import math

import pandas as pd
import pytest

from annotation_platform.models.cards import policy_digest
from annotation_platform.models.kinds import TrainingInputs, starting_weights
from annotation_platform.models.loop import evaluate_round, train_round
from annotation_platform.models.network_inputs import Augmentation
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, TrainingPolicy

TRAINING = TrainingPolicy(cpu_seconds=0.5, image_width=64, batch_size=4)
ONE, TWO, THREE = (f"training-set@v1.{minor}.0" for minor in range(3))


@pytest.fixture
def registry(tmp_path):
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def rounds(drawn, registry):
    return Rounds(drawn, registry)


class Rounds:
    """The drawn images as a training set, and the two steps of the loop on it."""

    def __init__(self, drawn, registry):
        self.registry = registry
        images = drawn.dataset.images.drop(columns=["split", "file_name"])
        table = images.merge(drawn.dataset.labels, on="image_id").assign(
            shape="box", extension="png"
        )
        table["label_id"] = table["image_id"] + ":" + table.groupby("image_id").cumcount().map(str)
        self.table = table
        self.folder = drawn.examples[0].path.parent
        self.policy = Policy(ontology=drawn.dataset.ontology, training=TRAINING)
        self.reported = []
        self.splits = {}

    def image_path(self, image_id, extension):
        return self.folder / f"{image_id}.{extension}"

    def split(self, *, test):
        """Return the training set with its first ``test`` images in the test split.

        ``splits`` says otherwise, by number of the image.
        """
        number = self.table["image_id"].rank(method="dense").astype(int) - 1
        wanted = self.splits or dict.fromkeys(range(test), "test")
        return self.table.assign(split=number.map(lambda one: wanted.get(one, "train")))

    def inputs(self, tag, test):
        return TrainingInputs(self.split(test=test), tag, self.image_path, self.policy)

    def train(self, tag, *, test=4):
        return train_round(
            "round-0001",
            self.inputs(tag, test),
            registry=self.registry,
            report=self.reported.append,
        )

    def evaluate(self, trained, *, test=4):
        return evaluate_round(
            "round-0001",
            trained,
            self.inputs(trained["dataset_tag"].iloc[0], test),
            registry=self.registry,
        )


@pytest.mark.parametrize(
    ("promoted", "tag", "expected"),
    [
        pytest.param([], ONE, None, id="nothing promoted yet"),
        pytest.param([ONE], TWO, 0, id="the version before"),
        pytest.param([ONE], ONE, None, id="the first version again"),
        pytest.param([ONE, TWO], TWO, 0, id="the second version again"),
        pytest.param([ONE, TWO, TWO], TWO, 0, id="the second version a third time"),
        pytest.param([ONE, TWO, TWO], THREE, 2, id="the newest of a version's two"),
        pytest.param([ONE, TWO], ONE, 1, id="an early version after a later one"),
    ],
)
def test_training_continues_from_the_last_promoted_model_of_another_version(
    registry, card, promoted, tag, expected
):
    added = []
    for number, its_tag in enumerate(promoted):
        weights = bytes([number])
        added.append(registry.add(weights, card.model_copy(update={"dataset_tag": its_tag})))
        registry.promote(added[-1], "better")
    assert starting_weights(registry, tag) == (None if expected is None else added[expected])


def test_training_does_not_continue_from_a_model_that_was_never_promoted(registry, card):
    registry.add(b"kept", card.model_copy(update={"dataset_tag": ONE}))
    assert starting_weights(registry, TWO) is None


def test_a_round_that_ran_to_its_promotion_runs_again_from_the_same_weights(rounds):
    registry = rounds.registry
    first = rounds.train(ONE)
    assert rounds.evaluate(first).table["promoted"].all()
    again = rounds.train(ONE)
    assert list(again["started_from"]) == list(first["started_from"]) == [""]

    promoted = registry.promoted()
    second = rounds.train(TWO)
    # Promoted by hand: half a second of learning may make it worse.
    registry.promote(second["weights_sha256"].iloc[0], "the crash came after this")
    third = rounds.train(TWO)
    assert list(third["started_from"]) == list(second["started_from"]) == [promoted]
    assert rounds.reported[-1] == "100 % of the training budget used"


def test_judging_again_compares_with_the_same_model_as_before(rounds, card, trained):
    registry = rounds.registry
    poor = rounds.train(ONE)
    registry.promote(poor["weights_sha256"].iloc[0], "the first model")
    good = registry.add(trained.state, card)
    row = pd.DataFrame({"dataset_tag": [TWO], "weights_sha256": [good]})
    once = rounds.evaluate(row)
    assert registry.promoted() == good
    again = rounds.evaluate(row)
    pd.testing.assert_frame_equal(once.table, again.table)
    assert once.table["promoted_map50"].notna().all()
    assert len(registry.history()) == 2


def test_without_a_test_image_nothing_is_judged_and_nothing_promoted(rounds):
    trained = rounds.train(ONE, test=0)
    assert list(trained["train_images"]) == [12]
    evaluated = rounds.evaluate(trained, test=0)
    row = evaluated.table.iloc[0]
    assert (row["test_images"], row["promoted"]) == (0, False)
    assert all(math.isnan(row[name]) for name in ("map50", "map", "promoted_map50"))
    assert row["reason"].startswith("Not promoted: the test split has no image yet, ")
    assert evaluated.per_class == {}
    assert rounds.registry.promoted() is None


def test_a_round_trained_again_with_the_same_seed_and_steps_is_equal(rounds):
    steps = TRAINING.model_copy(update={"steps": 3})
    rounds.policy = rounds.policy.model_copy(update={"training": steps})
    first, again = rounds.train(ONE), rounds.train(ONE)
    clock = ["cpu_seconds"]
    pd.testing.assert_frame_equal(first.drop(columns=clock), again.drop(columns=clock))
    row = first.iloc[0]
    assert (row["steps"], row["seed"], row["policy_digest"]) == (3, 0, policy_digest(steps))


def test_scores_are_calibrated_on_the_val_split_alone(rounds, trained, card):
    registry = rounds.registry
    rounds.splits = {0: "test", 1: "test", **dict.fromkeys(range(2, 8), "val")}
    # A trained model, and half a second of training that cannot make it worse.
    registry.promote(registry.add(trained.state, card.model_copy(update={"dataset_tag": TWO})), "")
    slow = TRAINING.model_copy(update={"steps": 1, "learning_rate": 1e-6, "image_width": 128})
    rounds.policy = rounds.policy.model_copy(update={"training": slow})
    row = rounds.train(ONE).iloc[0]
    assert (row["train_images"], row["calibration_images"]) == (4, 6)
    assert row["calibration_error"] < row["calibration_error_before"]
    made = registry.card(row["weights_sha256"])
    assert made.calibrations == {row["profile"]: row["calibration"]}
    known = registry.calibration([row["weights_sha256"]], row["profile"])
    assert known.digest == row["calibration"]
    # The promoted model is calibrated on the same images.
    assert registry.calibration([registry.promoted()], row["profile"]).images == 6


def test_the_card_of_a_round_records_its_training(rounds):
    row = rounds.train(ONE).iloc[0]
    card = rounds.registry.card(row["weights_sha256"])
    assert (card.dataset_tag, card.train_images, card.image_width) == (ONE, 8, 64)
    assert card.class_names == ("blue", "red")
    assert card.augmentation["zoom"] == Augmentation().zoom
    weights = rounds.registry.weights_path(row["weights_sha256"]).read_bytes()
    assert hashlib.sha256(weights).hexdigest() == row["weights_sha256"]
