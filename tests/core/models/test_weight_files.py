import io
import pickle

import numpy as np
import pytest
import torch
from torchvision.models import resnet18

from annotation_platform.errors import ModelError
from annotation_platform.models.cards import RESNET50_FCOS, SMALL_FCOS
from annotation_platform.models.detection.detector import NetworkDetector
from annotation_platform.models.detection.networks import build_network
from annotation_platform.models.detection.training import train_detector
from annotation_platform.models.weight_files import DETECTOR_FILES
from annotation_platform.policy import TrainingPolicy


class _RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def saved(content):
    sink = io.BytesIO()
    torch.save(content, sink)
    return sink.getvalue()


def small(class_names=("blue", "red"), seed=0):
    torch.manual_seed(seed)
    network = build_network(SMALL_FCOS, classes=len(class_names))
    return DETECTOR_FILES.write(
        network, architecture=SMALL_FCOS, class_names=tuple(class_names), side=96
    )


def test_a_pickle_is_refused_and_none_of_its_code_runs(tmp_path):
    marker = tmp_path / "executed"
    for data in (
        pickle.dumps(_RunsCode(marker)),
        saved({"tensors": _RunsCode(marker)}),
    ):
        with pytest.raises(ModelError, match=r"evil\.pt: refused: it holds more than weights"):
            NetworkDetector.from_bytes(data, where="evil.pt")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "damaged, or not a file of weights", id="empty"),
        pytest.param(b"not weights" * 50, "not a file of weights", id="text"),
        pytest.param(small()[:5000], "damaged", id="cut off"),
        pytest.param(saved([1, 2]), "holds no named weights", id="a list"),
        pytest.param(saved({"a": 1}), "'a' is not a tensor", id="not a tensor"),
        pytest.param(saved({"a": torch.tensor(float("nan"))}), "not finite", id="not a number"),
        pytest.param(saved(resnet18().state_dict()), "not a ResNet-50", id="another network"),
    ],
)
def test_files_that_are_not_weights_are_refused_with_a_reason(data, problem):
    with pytest.raises(ModelError, match=rf"w\.pt: .*{problem}"):
        DETECTOR_FILES.read(data, where="w.pt")


def test_weights_of_another_shape_are_refused():
    content = torch.load(io.BytesIO(small()), weights_only=True)
    content["class_names"] = ["one", "two", "three"]
    with pytest.raises(ModelError, match="do not fit a 'small-fcos' of 3 classes"):
        NetworkDetector.from_bytes(saved(content), where="w.pt")
    del content["architecture"]
    with pytest.raises(ModelError, match="its head is damaged"):
        NetworkDetector.from_bytes(saved(content), where="w.pt")


def test_training_can_start_from_a_published_backbone_but_it_is_no_detector():
    network = build_network(RESNET50_FCOS, classes=2)
    # As torchvision publishes it: the bare network, its names without a prefix.
    prefix = "backbone.body."
    bare = {
        name.removeprefix(prefix): tensor.clone()
        for name, tensor in network.state_dict().items()
        if name.startswith(prefix)
    }
    data = saved(bare)
    with pytest.raises(ModelError, match="has none of our classes"):
        NetworkDetector.from_bytes(data, where="resnet50.pth")
    file = DETECTOR_FILES.read(data, where="resnet50.pth")
    torch.nn.init.zeros_(network.backbone.body.layer3[1].conv2.weight)
    DETECTOR_FILES.start(network, file, class_names=("blue", "red"), where="resnet50.pth")
    taken = network.state_dict()["backbone.body.layer3.1.conv2.weight"]
    assert torch.equal(taken, file.tensors["layer3.1.conv2.weight"])
    found = network.eval()([torch.zeros(3, 64, 96)])
    assert set(found[0]) == {"boxes", "scores", "labels", "dropped"}


def test_classes_known_before_keep_what_they_learned():
    file = DETECTOR_FILES.read(small(("cat", "dog")), where="w.pt")
    network = build_network(SMALL_FCOS, classes=3)
    fresh = network.state_dict()["head.classification_head.cls_logits.weight"].clone()
    DETECTOR_FILES.start(network, file, class_names=("bird", "dog", "cat"), where="w.pt")
    now = network.state_dict()["head.classification_head.cls_logits.weight"]
    before = file.tensors["head.classification_head.cls_logits.weight"]
    assert torch.equal(now[1], before[1])
    assert torch.equal(now[2], before[0])
    assert torch.equal(now[0], fresh[0])


def test_the_error_for_missing_default_weights_names_a_remedy(drawn, tmp_path, monkeypatch):
    # A proxy that refuses every connection simulates a machine without a network.
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ModelError, match=r"cannot be fetched .* or leave it empty"):
        train_detector(
            drawn.examples,
            class_names=["blue", "red"],
            policy=TrainingPolicy(weights="DEFAULT"),
            seed=0,
        )


def test_outputs_that_are_not_finite_are_dropped_and_counted():
    network = build_network(SMALL_FCOS, classes=2)
    torch.nn.init.constant_(network.head.regression_head.bbox_ctrness.bias, float("nan"))
    detector = NetworkDetector(
        network, architecture=SMALL_FCOS, class_names=["blue", "red"], image_width=96, device="cpu"
    )
    found = detector.predict([np.zeros((64, 96, 3), dtype=np.uint8)])[0]
    assert len(found.boxes) == 0
    # 96 × 64 pixels are 12 × 8, 6 × 4 and 3 × 2 locations, each with two classes.
    assert found.dropped == 2 * (12 * 8 + 6 * 4 + 3 * 2)
