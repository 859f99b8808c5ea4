"""Error analysis of a round's model: on drawn images, with noise in the labels."""

import hashlib
import io
import re
from base64 import b64decode
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from annotation_platform.cli.image.selection import relabel
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.models.error_analysis import analyze_errors
from annotation_platform.models.evaluation.findings import image_weights
from annotation_platform.models.kinds import TrainingInputs
from annotation_platform.models.loop import evaluate_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy
from annotation_platform.reporting.previews import findings_preview
from annotation_platform.schema.tables import ModelErrors
from annotation_platform.selection.overrides import SelectionOverrides

ROUND = "round-0001"
TEST = 6


class AnalysedRound:
    """The drawn images as a training set: six of each split, a class of each split noisy."""

    def __init__(self, drawn, trained, card, folder):
        paths = {example.image_id: example.path for example in drawn.examples}
        self.ids = {name: hashlib.sha256(name.encode()).hexdigest() for name in sorted(paths)}
        self.paths = {self.ids[name]: path for name, path in paths.items()}
        table = drawn.dataset.images.drop(columns=["split", "file_name"])
        table = table.merge(drawn.dataset.labels, on="image_id")
        table["image_id"] = table["image_id"].map(self.ids)
        table["label_id"] = [f"{number:03d}" for number in range(len(table))]
        facts = {"shape": "box", "extension": "png", "geometry": "", "round_id": ROUND}
        table = table.assign(source="pier", device=None, **facts)
        names = list(self.ids.values())
        self.noisy = [names[0], names[TEST]]
        swapped = table["class_name"].map({"red": "blue", "blue": "red"})
        table["class_name"] = table["class_name"].mask(table["image_id"].isin(self.noisy), swapped)
        table["split"] = np.where(table["image_id"].isin(names[:TEST]), "test", "train")
        self.table = table
        self.images = pd.DataFrame({"image_id": names, "brightness": 120.0, "sharpness": 50.0})
        self.registry = ModelRegistry(folder / "models")
        self.policy = Policy(ontology=drawn.dataset.ontology)
        self.weights = self.registry.add(trained.state, card)

    def image_path(self, image_id, _extension):
        return self.paths[image_id]

    def evaluate(self, weights, version="1.0.0"):
        row = {"dataset_tag": f"training-set@v{version}", "weights_sha256": weights}
        return evaluate_round(
            ROUND,
            pd.DataFrame([row]),
            TrainingInputs(self.table, row["dataset_tag"], self.image_path, self.policy),
            registry=self.registry,
        )

    def analyze(self):
        return analyze_errors(
            ROUND,
            self.evaluate(self.weights),
            self.table,
            self.images,
            registry=self.registry,
            image_path=self.image_path,
            policy=self.policy,
        )


@pytest.fixture
def round_(drawn, trained, card, tmp_path):
    return AnalysedRound(drawn, trained, card, tmp_path)


def test_swapped_labels_of_the_test_split_are_found_and_those_of_the_train_split_are_missed(round_):
    found = round_.analyze()
    swapped = found.findings[found.findings["image_id"] == round_.noisy[0]]
    assert set(swapped["kind"]) == {"classification"}
    assert len(swapped) == 2
    assert (swapped["class_name"] != swapped["true_class"]).all()
    tested = set(round_.table.loc[round_.table["split"] == "test", "image_id"])
    assert set(found.findings["image_id"]) <= tested

    missed = found.missed[found.missed["image_id"] == round_.noisy[1]]
    assert len(missed) == 2
    assert image_weights(found.missed)[round_.noisy[1]] == 3.0
    assert set(found.missed["weights_sha256"]) == {round_.registry.promoted()}
    assert not set(found.missed["image_id"]) & tested

    classes = found.slices[found.slices["kind"] == "class"].set_index("name")
    assert list(classes.loc[["blue", "red"], "images"]) == [TEST, TEST]
    assert set(found.slices["kind"]) <= {"class", "size"}  # one round, one source, one brightness


def test_the_best_model_is_recorded_and_a_worse_one_is_not_promoted(round_, card, drawn):
    good = round_.evaluate(round_.weights)
    assert good.table["promoted"].all()
    assert list(good.table["best_sha256"]) == [round_.weights]
    row = good.table.iloc[0]
    assert row["map_low"] <= row["map"] <= row["map_high"]

    untrained = _untrained(card)
    poor = round_.evaluate(round_.registry.add(untrained, card))
    row = poor.table.iloc[0]
    assert not row["promoted"]
    assert row["reason"].startswith("Kept the promoted model: the new one is worse by more than")
    assert row["promoted_map"] == good.table["map"].iloc[0]
    assert row["best_sha256"] == round_.registry.promoted() == round_.weights
    assert row["difference"] == pytest.approx(row["map"] - row["promoted_map"])


def test_the_best_model_is_still_known_after_a_round_was_trained_again(round_, card, trained):
    registry = round_.registry
    best, last = round_.weights, registry.add(_as_wide_as(trained, 129), card)
    registry.promote(best, "the first", best_sha256=best)
    registry.promote(last, "not worse", best_sha256=best)
    for _ in range(2):
        again = round_.evaluate(registry.add(_untrained(card), card))
        assert list(again.table["promoted"]) == [False]
        assert list(again.table["best_sha256"]) == [best]
    near = round_.evaluate(registry.add(_as_wide_as(trained, 127), card))
    assert near.table["promoted"].all()
    assert registry.history()[-1].best_sha256 == near.table["best_sha256"].iloc[0]


def test_an_old_round_judged_again_does_not_replace_a_later_one(round_, card, trained):
    registry = round_.registry
    fifth = card.model_copy(update={"dataset_tag": "training-set@v1.10.0"})
    good = registry.add(_as_wide_as(trained, 129), fifth)
    poor = registry.add(_untrained(card), fifth)
    registry.promote(good, "the first", best_sha256=good)
    old = round_.evaluate(round_.weights, "1.9.0").table.iloc[0]
    assert not old["promoted"]
    assert old["difference_low"] <= 0 <= old["difference_high"]
    assert old["reason"].startswith("Kept the promoted model, which was trained on a later version")
    assert "the promoted model, of training-set@v1.10.0, on the same 6 test" in old["reason"]
    assert old["best_sha256"] == registry.promoted() == good
    # In order the same model would have been promoted, and a truly better one still is.
    assert round_.evaluate(round_.weights, "1.11.0").table["promoted"].all()
    registry.promote(poor, "by hand", best_sha256=poor)
    assert round_.evaluate(good, "1.9.0").table["promoted"].all()
    assert registry.promoted() == good


def _as_wide_as(trained, width):
    """Return the trained weights as another file with nearly the same detections."""
    from annotation_platform.models.weight_files import DETECTOR_FILES

    file = DETECTOR_FILES.read(trained.state, where="here")
    facts = {"architecture": file.architecture, "class_names": file.class_names}
    return DETECTOR_FILES.write(DETECTOR_FILES.network(file, where="here"), **facts, side=width)


def _untrained(card):
    from annotation_platform.models.detection.networks import build_network
    from annotation_platform.models.weight_files import DETECTOR_FILES

    network = build_network(card.architecture, classes=len(card.class_names))
    facts = {"architecture": card.architecture, "class_names": card.class_names}
    return DETECTOR_FILES.write(network, **facts, side=card.image_width)


def test_the_worst_findings_are_shown_as_small_crops(round_):
    found = round_.analyze()
    text = findings_preview(
        found.findings, round_.table, lambda image_id, _: round_.paths[image_id].read_bytes()
    )
    assert len(text) < 100_000
    data = re.search(r"base64,([^)]*)", text).group(1)
    with Image.open(io.BytesIO(b64decode(data))) as sheet:
        assert sheet.width > 170
    assert findings_preview(ModelErrors.empty(), round_.table, None).startswith("![")


def test_images_with_findings_are_included_with_the_actors_name(round_, tmp_path, monkeypatch):
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    lake = open_lake(tmp_path / "home" / "lake", tmp_path / "home" / "landing")
    lake.tables.write(ModelErrors, ROUND, round_.analyze().findings)
    app = typer.Typer()
    app.command()(relabel)
    done = CliRunner().invoke(app, ["--round", ROUND, "--by", "ann", "--kind", "classification"])
    assert done.exit_code == 0, done.exception
    overrides = SelectionOverrides(lake.store).read()
    override = overrides[round_.noisy[0]]
    assert (override.wanted, override.by) == (True, "ann")
    assert override.reason.startswith("round-0001: the model disagrees: 2 class")
    assert override.at < datetime.now(UTC)
