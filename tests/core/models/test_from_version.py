import json
import shutil
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from annotation_platform.errors import NotReadyError
from annotation_platform.formats.coco import render_coco
from annotation_platform.formats.files import write_files
from annotation_platform.models.cards import ModelCard
from annotation_platform.models.from_version import evaluate_on_version, train_on_version
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import Dataset

POLICY = TrainingPolicy(cpu_seconds=1.0, image_width=128, batch_size=4)


def make_version(folder, drawn, splits):
    """Write the drawn images as a version's folder; the first get ``splits`` in turn."""
    images = drawn.dataset.images.copy()
    images["split"] = splits
    images["file_name"] = "images/" + images["split"] + "/" + images["image_id"] + ".png"
    for example, name in zip(drawn.examples, images["file_name"], strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(example.path, folder / name)
    write_files(render_coco(Dataset(images, drawn.dataset.labels, drawn.dataset.ontology)), folder)


def test_training_logs_can_be_read_by_tensorboard_and_dvc(drawn, tmp_path):
    make_version(tmp_path / "v", drawn, ["train"] * 8 + ["val"] * 2 + ["test"] * 2)
    policy = POLICY.model_copy(update={"steps": 4, "tensorboard": True, "dvclive": True})
    train_on_version(tmp_path / "v", policy, 0, tmp_path / "out")
    (events,) = (tmp_path / "out" / "tensorboard").iterdir()
    values = [
        (event.step, value.tag, value.simple_value)
        for event in event_file_loader(events)
        for value in event.summary.value
    ]
    steps = [step for step, tag, _ in values if tag == "train/loss"]
    assert steps == [1, 2, 3, 4]
    lines = (tmp_path / "out/dvclive/plots/metrics/train/loss.tsv").read_text().splitlines()
    assert lines[0].split("\t") == ["step", "loss"]
    assert [float(line.split("\t")[1]) for line in lines[1:]] == pytest.approx(
        [loss for _, tag, loss in values if tag == "train/loss"], rel=1e-4
    )
    summary = json.loads((tmp_path / "out/dvclive/metrics.json").read_text())
    assert summary["step"] == 4


def event_file_loader(path):
    """Yield the events of a TensorBoard file: records of length, checks and a message."""
    data, position = path.read_bytes(), 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        yield Event.FromString(data[position + 12 : position + 12 + length])
        position += 12 + length + 4


def test_a_model_is_trained_and_tested_on_a_version(drawn, trained, tmp_path):
    make_version(tmp_path / "v", drawn, ["train"] * 6 + ["val"] * 2 + ["test"] * 4)
    shares = []
    train_on_version(tmp_path / "v", POLICY, 7, tmp_path / "out", shares.append, dataset_tag="t")
    card = ModelCard.from_json((tmp_path / "out/card.json").read_bytes(), where="card")
    assert (card.train_images, card.seed, card.dataset_tag) == (6, 7, "t")
    assert card.class_names == ("blue", "red")
    assert shares[-1] == 1.0

    metrics = tmp_path / "out" / "metrics.json"
    evaluate_on_version(tmp_path / "v", tmp_path / "out/detector.pt", metrics)
    assert json.loads(metrics.read_text())["test_images"] == 4

    # A model trained on the images has high figures only if the right truth is compared.
    (tmp_path / "good.pt").write_bytes(trained.state)
    result = evaluate_on_version(tmp_path / "v", tmp_path / "good.pt", metrics)
    written = json.loads(metrics.read_text())
    assert written["map50"] == pytest.approx(result.map50, abs=1e-6)
    assert written["map50"] > 0.5
    assert set(written) == {"map50", "map", "test_images", "per_class"}


def test_a_version_without_test_images_cannot_be_tested_on(drawn, trained, tmp_path):
    make_version(tmp_path / "v", drawn, ["train"] * 12)
    (tmp_path / "good.pt").write_bytes(trained.state)
    with pytest.raises(NotReadyError, match="no test images yet"):
        evaluate_on_version(tmp_path / "v", tmp_path / "good.pt", tmp_path / "metrics.json")
    assert not (tmp_path / "metrics.json").exists()


def test_a_version_without_training_images_cannot_be_trained_on(drawn, tmp_path):
    make_version(tmp_path / "v", drawn, ["test"] * 12)
    with pytest.raises(NotReadyError, match="no image to train on"):
        train_on_version(tmp_path / "v", POLICY, 0, tmp_path / "out")
