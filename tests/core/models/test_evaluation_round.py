"""A round's model examined: on drawn pictures, with labels that were spoilt on purpose."""

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

from annotation_platform.cli_models import relabel
from annotation_platform.lake import open_lake
from annotation_platform.models.examination import examine_round
from annotation_platform.models.findings import image_weights
from annotation_platform.models.loop import evaluate_round
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.reporting.previews import findings_preview
from annotation_platform.schema.tables import empty_table
from annotation_platform.selection.pins import Pins

ROUND = "round-0001"
TEST = 6


class Examined:
    """The drawn pictures as a training set: six of each split, a class of each split spoilt."""

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
        self.spoilt = [names[0], names[TEST]]
        swapped = table["class_name"].map({"red": "blue", "blue": "red"})
        table["class_name"] = table["class_name"].mask(table["image_id"].isin(self.spoilt), swapped)
        table["split"] = np.where(table["image_id"].isin(names[:TEST]), "test", "train")
        self.table = table
        self.images = pd.DataFrame({"image_id": names, "brightness": 120.0, "sharpness": 50.0})
        self.registry = ModelRegistry(folder / "models")
        self.policy = Params(ontology=drawn.dataset.ontology)
        self.weights = self.registry.add(trained.state, card)

    def picture_path(self, image_id, _extension):
        return self.paths[image_id]

    def evaluate(self, weights, evaluations=None):
        row = {"dataset_tag": "training-set@v1.0.0", "weights_sha256": weights}
        return evaluate_round(
            ROUND,
            pd.DataFrame([row]),
            self.table,
            registry=self.registry,
            picture_path=self.picture_path,
            ontology=self.policy.ontology,
            evaluations=evaluations,
        )

    def examine(self):
        return examine_round(
            ROUND,
            self.evaluate(self.weights),
            self.table,
            self.images,
            registry=self.registry,
            picture_path=self.picture_path,
            policy=self.policy,
        )


@pytest.fixture
def round_(drawn, trained, card, tmp_path):
    return Examined(drawn, trained, card, tmp_path)


def test_swapped_labels_of_the_test_split_are_found_and_those_of_the_train_split_are_missed(round_):
    found = round_.examine()
    swapped = found.findings[found.findings["image_id"] == round_.spoilt[0]]
    assert set(swapped["kind"]) == {"class"}
    assert len(swapped) == 2
    assert (swapped["class_name"] != swapped["true_class"]).all()
    tested = set(round_.table.loc[round_.table["split"] == "test", "image_id"])
    assert set(found.findings["image_id"]) <= tested

    missed = found.missed[found.missed["image_id"] == round_.spoilt[1]]
    assert len(missed) == 2
    assert image_weights(found.missed)[round_.spoilt[1]] == 3.0
    assert set(found.missed["weights_sha256"]) == {round_.registry.promoted()}
    assert not set(found.missed["image_id"]) & tested

    classes = found.slices[found.slices["kind"] == "class"].set_index("name")
    assert list(classes.loc[["blue", "red"], "images"]) == [TEST, TEST]
    assert set(found.slices["kind"]) <= {"class", "size"}  # one round, one source, one brightness


def test_the_best_model_is_remembered_while_a_worse_one_is_kept_out(round_, card, drawn):
    good = round_.evaluate(round_.weights)
    assert good.table["promoted"].all()
    assert list(good.table["best_sha256"]) == [round_.weights]
    row = good.table.iloc[0]
    assert row["map_low"] <= row["map"] <= row["map_high"]

    untrained = _untrained(card)
    poor = round_.evaluate(round_.registry.add(untrained, card), good.table)
    row = poor.table.iloc[0]
    assert not row["promoted"]
    assert row["reason"].startswith("Kept the promoted model: the new one is worse by more than")
    assert row["promoted_map"] == good.table["map"].iloc[0]
    assert row["best_sha256"] == round_.registry.promoted() == round_.weights
    assert row["difference"] == pytest.approx(row["map"] - row["promoted_map"])


def _untrained(card):
    from annotation_platform.models.networks import build_network
    from annotation_platform.models.weight_files import write_weights

    network = build_network(card.architecture, classes=len(card.class_names))
    facts = {"architecture": card.architecture, "class_names": card.class_names}
    return write_weights(network, **facts, image_width=card.image_width)


def test_the_worst_findings_are_shown_cut_out_and_small(round_):
    found = round_.examine()
    text = findings_preview(
        found.findings, round_.table, lambda image_id, _: round_.paths[image_id].read_bytes()
    )
    assert len(text) < 100_000
    data = re.search(r"base64,([^)]*)", text).group(1)
    with Image.open(io.BytesIO(b64decode(data))) as sheet:
        assert sheet.width > 170
    assert findings_preview(empty_table("model_findings"), round_.table, None).startswith("![")


def test_images_with_findings_are_pinned_in_the_name_of_whoever_asked(
    round_, tmp_path, monkeypatch
):
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    lake = open_lake(tmp_path / "home" / "lake", tmp_path / "home" / "landing")
    lake.tables.write("model_findings", ROUND, round_.examine().findings)
    app = typer.Typer()
    app.command()(relabel)
    done = CliRunner().invoke(app, ["--round", ROUND, "--by", "ann", "--kind", "class"])
    assert done.exit_code == 0, done.exception
    pins = Pins(lake.store).read()
    pin = pins[round_.spoilt[0]]
    assert (pin.wanted, pin.by) == (True, "ann")
    assert pin.reason.startswith("round-0001: the model disagrees: 2 class")
    assert pin.at < datetime.now(UTC)
