"""Images that are chosen about as a whole, with and without boxes in them."""

import hashlib
import io

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from annotation_platform.demo.crowd import SimulatedSession, SimulatedSubmission
from annotation_platform.demo.material import Material
from annotation_platform.labeling.backends.registry import decode
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.schema.annotations import Canvas
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import (
    ClassificationFigures,
    LabelIssues,
    ModelEvaluations,
    ModelPredictions,
    Splits,
    TrainingSet,
)
from tests.pipeline.conftest import open_platform

WIDTH, HEIGHT, IMAGES = 96, 72, 24
ONE, TWO = "round-0001", "round-0002"
DAY = LabelClass(id=0, name="day", shape="choice")
NIGHT = LabelClass(id=1, name="night", shape="choice")
BOAT = LabelClass(id=2, name="boat")


def draw(rng, *, night):
    """An image of blocks, dark at night, with a red boat; its file, and where the boat is."""
    blocks = rng.integers(0, 100, (6, 8, 3)) + (10 if night else 150)
    pixels = blocks.repeat(HEIGHT // 6, axis=0).repeat(WIDTH // 8, axis=1).astype(np.uint8)
    width, height = rng.integers(20, 40, 2)
    x, y = rng.integers(0, WIDTH - width), rng.integers(0, HEIGHT - height)
    pixels[y : y + height, x : x + width] = (230, 20, 20)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return sink.getvalue(), [x, y, x + width, y + height]


class Harbour:
    """Two batches of images, as many by day as by night, and what is true of each."""

    def __init__(self, *classes):
        rng = np.random.default_rng(5)
        self.ontology = Ontology(classes=classes)
        self.light, self.boat, images = {}, {}, []
        batches = []
        for _ in range(2):
            files = {}
            for number in range(IMAGES):
                data, box = draw(rng, night=bool(number % 2))
                image = hashlib.sha256(data).hexdigest()
                files[f"{image[:12]}.png"] = data
                self.light[image] = "night" if number % 2 else "day"
                self.boat[image] = [float(edge) for edge in box]
                images.append([image, f"{image[:12]}.png", "", WIDTH, HEIGHT])
            batches.append(files)
        known = pd.DataFrame(images, columns=IMAGE_COLUMNS)
        truth = Dataset(known, pd.DataFrame(columns=LABEL_COLUMNS), self.ontology)
        self.material = Material(batches, truth)

    def labels(self, image):
        labels = [Label.choice(self.light[image])]
        if BOAT in self.ontology.classes:
            labels.append(Label.box("boat", *self.boat[image]))
        return labels


def play(platform, harbour, batch, round_id, *, wrong=()):
    """Run a round, everybody answering what is true but for ``wrong``; return what was shown."""
    platform.land(batch)
    assert platform.start_round(round_id).success
    shown = {}
    for person in platform.people:
        session = SimulatedSession(platform.labeling, person.name)
        for place in session.open_assignments(round_id):
            labels = harbour.labels(place.image_id)
            if place.image_id in wrong:
                labels[0] = Label.choice("day" if labels[0].class_name == "night" else "night")
            session.submit(place, SimulatedSubmission(labels, WIDTH, HEIGHT), 5.0)
            read = decode(place.pre_annotations, Canvas(WIDTH, HEIGHT, harbour.ontology))
            assert not read.problems
            chosen = [label.class_name for label in read.labels if label.shape == "choice"]
            if chosen:
                shown[place.image_id] = chosen
    for job in ("merge_round", "release_round", "train_model"):
        assert platform.run(job, round_id).success
    return shown


def set_policy(platform, **sections):
    path = platform.settings.policy_path
    policy = yaml.safe_load(path.read_text())
    for name, values in sections.items():
        policy[name] = {**policy.get(name, {}), **values}
    path.write_text(yaml.safe_dump(policy))


@pytest.mark.parametrize("boxes", [False, True], ids=["choices alone", "boxes and choices"])
@pytest.mark.long
def test_the_second_round_proposes_choices_that_are_mostly_right(tmp_path, boxes):
    harbour = Harbour(DAY, NIGHT, *([BOAT] if boxes else []))
    with open_platform(tmp_path / "home", harbour.material) as platform:
        set_policy(
            platform,
            splits={"train": 0.5, "val": 0.25, "test": 0.25},
            review={"gate": "auto"},
            training={"steps": 40, "classification_share": 0.75},
            labeling={"annotations_per_task": 1, "without_predictions_share": 0.0},
        )
        tables = platform.lake.tables
        assert play(platform, harbour, 1, ONE) == {}
        assert tables.read(ModelPredictions, ONE).empty

        first = tables.read(ModelEvaluations, ONE).iloc[0]
        assert first["accuracy"] > 0.8
        assert first["accuracy_low"] < first["accuracy"] <= first["accuracy_high"]
        assert first["classifier_promoted"]
        assert first["classifier_reason"].startswith("Promoted: the first classifier, accuracy")
        assert (first["weights_sha256"] != "") == boxes
        models = ModelRegistry(platform.settings.models_path)
        assert (models.promoted() is not None) == boxes
        assert models.classifiers.promoted() == first["classifier_sha256"]
        assert models.classifiers.card(first["classifier_sha256"]).class_names == ("day", "night")
        if boxes:
            assert models.card(first["weights_sha256"]).class_names == ("boat",)
        figures = tables.read(ClassificationFigures, ONE).set_index("class_name")
        assert list(figures.index) == ["", "day", "night"]
        assert figures.loc[["day", "night"], "labelled"].sum() == first["classified_images"]

        mistaken = sorted(
            image for image in harbour.light if image not in set(tables.read(Splits, ONE)["key"])
        )[0]
        shown = play(platform, harbour, 2, TWO, wrong=[mistaken])
        proposed = tables.read(ModelPredictions, TWO)
        choices = proposed[proposed["shape"] == "choice"]
        assert len(choices) == 2 * IMAGES
        assert choices.groupby("image_id")["score"].sum().to_numpy() == pytest.approx(1.0)
        assert set(choices["weights_sha256"]) == {first["classifier_sha256"]}
        assert set(choices["profile"]) == {"whole-picture"}
        best = choices.loc[choices.groupby("image_id")["score"].idxmax()].set_index("image_id")
        right = [name == harbour.light[image] for image, name in best["class_name"].items()]
        assert np.mean(right) > 0.8
        # One of them is shown, where people may see proposals.
        assert shown
        assert shown == {image: [best.at[image, "class_name"]] for image in shown}

        issues = tables.read(LabelIssues, TWO).set_index("image_id")
        assert issues.loc[[mistaken], "class_name"].tolist() == [harbour.light[mistaken]]
        second = tables.read(ModelEvaluations, TWO).iloc[0]
        assert second["promoted_accuracy"] > 0.8
        labels = tables.read(TrainingSet, TWO)
        assert (labels["shape"] == "choice").sum() == 2 * IMAGES
