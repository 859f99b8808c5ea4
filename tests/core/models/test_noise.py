"""Injected label noise: exactly the given share of the boxes, and only in training labels."""

import hashlib
import json
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

from annotation_platform.cli.model import noise_curve as command
from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.models.evaluation.label_noise import inject_label_noise, noise_curve
from annotation_platform.models.from_version import noise_curve_on_version
from annotation_platform.policy import Policy, TrainingPolicy
from annotation_platform.schema.geometry import BOX_COLUMNS, iou_matrix
from tests.core.models.test_from_version import make_version

BOXES = 24


def changes(before, after):
    """Return the kind of error of each box, by its number; a class occurs once in an image."""
    kinds = {}
    for number, row in before.reset_index(drop=True).iterrows():
        here = after[after["image_id"] == row["image_id"]]
        same = here[(here[BOX_COLUMNS].to_numpy() == row[BOX_COLUMNS].to_numpy(float)).all(axis=1)]
        moved = here[here["class_name"] == row["class_name"]]
        if len(same):
            if same["class_name"].iloc[0] != row["class_name"]:
                kinds[number] = "swapped"
        else:
            overlap = iou_matrix(
                row[BOX_COLUMNS].to_numpy(float)[None], moved[BOX_COLUMNS].to_numpy(float)
            )
            kinds[number] = "dropped" if overlap.size == 0 else "moved"
            assert (overlap < 0.5).all()
    return kinds


def test_exactly_the_share_is_noisy_and_a_larger_one_contains_the_same_errors(drawn):
    before = drawn.dataset.labels.copy()
    found, errors = {}, {}
    for share in (0.0, 0.125, 0.5):
        noisy = inject_label_noise(drawn.dataset, share, seed=4)
        found[share] = changes(before, noisy.dataset.labels)
        errors[share] = noisy.errors
        assert noisy.boxes == BOXES
        assert len(noisy.dataset.labels) == BOXES - noisy.errors["dropped"]
        assert len(noisy.dataset.images) == len(drawn.dataset.images)
        corners = noisy.dataset.labels[BOX_COLUMNS].to_numpy()
        assert ((corners >= 0) & (corners <= [120, 80, 120, 80])).all()
    assert errors[0.0] == {"swapped": 0, "moved": 0, "dropped": 0}
    assert errors[0.125] == {"swapped": 1, "moved": 1, "dropped": 1}
    assert errors[0.5] == {"swapped": 4, "moved": 4, "dropped": 4}
    # If both boxes of an image have errors, their kinds cannot be determined from the labels.
    assert found[0.0] == {}
    assert set(found[0.125]) <= set(found[0.5])
    assert len(found[0.125]) == 3
    pd.testing.assert_frame_equal(before, drawn.dataset.labels)


def test_a_box_as_large_as_its_image_is_cut_and_a_share_is_one(drawn):
    whole = drawn.dataset.labels.assign(x1=0.0, y1=0.0, x2=120.0, y2=80.0)
    dataset = type(drawn.dataset)(drawn.dataset.images, whole, drawn.dataset.ontology)
    noisy = inject_label_noise(dataset, 1.0, seed=0)
    corners = noisy.dataset.labels[BOX_COLUMNS].to_numpy()
    areas = np.prod(corners[:, 2:] - corners[:, :2], axis=1)
    assert sorted(set(areas)) == [2400.0, 9600.0]
    assert (areas == 2400.0).sum() == noisy.errors["moved"] == BOXES / 3
    with pytest.raises(DataError, match="from 0 to 1"):
        inject_label_noise(drawn.dataset, 1.5, seed=0)


def digests(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.long
def test_wrong_labels_reduce_accuracy_and_the_version_stays_unchanged(drawn, trained, tmp_path):
    version, weights = tmp_path / "v", tmp_path / "good.pt"
    make_version(version, drawn, ["train"] * 8 + ["test"] * 4)
    weights.write_bytes(trained.state)
    before = digests(version)
    # From a model that finds the objects: a few steps on clean labels keep that, wrong ones do not.
    policy = TrainingPolicy(
        image_width=128, batch_size=4, learning_rate=2e-3, steps=30, weights=str(weights)
    )
    shares = []
    curve = noise_curve_on_version(version, policy, 0, shares=(0.0, 0.9), progress=shares.append)
    assert list(curve["boxes"]) == [16, 16]
    assert list(curve[["swapped", "moved", "dropped"]].sum(axis=1)) == [0, round(0.9 * 16)]
    clean, wrong = curve.iloc[0], curve.iloc[1]
    assert clean["map"] > wrong["map"] + 0.2
    assert clean["difference"] == clean["difference_low"] == clean["difference_high"] == 0
    assert wrong["difference"] == pytest.approx(wrong["map"] - clean["map"])
    assert wrong["difference_high"] < 0
    assert (np.diff(shares) >= 0).all()
    assert (shares[29], shares[-1]) == (0.5, 1.0)
    assert digests(version) == before


def test_the_command_writes_a_table_a_chart_and_json(drawn, tmp_path):
    make_version(tmp_path / "v", drawn, ["train"] * 9 + ["test"] * 3)
    training = TrainingPolicy(image_width=64, batch_size=4, steps=1)
    policy = Policy(ontology=drawn.dataset.ontology, training=training)
    (tmp_path / "params.yaml").write_text(policy.to_yaml())
    app = typer.Typer()
    app.command()(command)
    paths = ["--data", str(tmp_path / "v"), "--policy", str(tmp_path / "params.yaml")]
    arguments = [*paths, "--shares", "0,50", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.exception
    rows = json.loads(done.stdout.splitlines()[-1])["curve"]
    assert [row["share"] for row in rows] == [0.0, 0.5]
    assert [row["swapped"] + row["moved"] + row["dropped"] for row in rows] == [0, 9]
    table = pd.read_csv(tmp_path / "out" / "noise-curve.csv")
    assert list(table["share"]) == [0.0, 0.5]
    chart = ET.fromstring((tmp_path / "out" / "noise-curve.svg").read_bytes())
    words = ["".join(each.itertext()) for each in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert {"0%", "50%", "mAP"} <= set(words)

    both = CliRunner().invoke(app, [*paths, "--version", "1.0.0"])
    assert "one of them" in str(both.exception)
    refused = CliRunner().invoke(app, [*paths, "--shares", "many"])
    assert "give percents" in str(refused.exception)


def test_without_a_test_split_there_is_no_curve(drawn):
    empty = type(drawn.dataset)(
        drawn.dataset.images.iloc[:0], drawn.dataset.labels.iloc[:0], drawn.dataset.ontology
    )
    with pytest.raises(NotReadyError, match="no test images yet"):
        noise_curve(drawn.dataset, empty, {}, policy=TrainingPolicy(), seed=0)
