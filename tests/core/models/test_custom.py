import hashlib
import io
import pickle
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torchvision.models import detection, get_model_weights

from annotation_platform.errors import ModelError, SettingsError
from annotation_platform.models.detection.custom import checked_bytes, open_detector
from annotation_platform.models.detection.custom_networks import check_script
from annotation_platform.models.known_classes import ClassCoverage
from annotation_platform.models.network_inputs import read_image
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import MaskingPolicy, Policy, PredictionPolicy
from annotation_platform.schema.ontology import Ontology

ONTOLOGY = Ontology.from_names(["vehicle", "person"])
IMAGE = np.full((60, 120, 3), 128, dtype=np.uint8)
# An image of 120 x 60 fills a square of 64 from row 16 to 48, at 64 / 120 of its size.
IN_SQUARE = [[16.0, 24.0, 48.0, 40.0]]
IN_IMAGE = [[30.0, 15.0, 90.0, 45.0]]


def policy(path, data, **settings):
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    return PredictionPolicy(
        **{"weights": str(path), "weights_sha256": sha256, "image_side": 64, **settings}
    )


def graph(outputs, shape=(1, 3, 64, 64)):
    """An ONNX graph with these outputs for any image; the image is an input of them."""
    given = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))
    nodes, values, facts = [], [], []
    for name, array in outputs.items():
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        values.append(
            helper.make_tensor(f"{name}_is", kind, array.shape, array.tobytes(), raw=True)
        )
        nodes.append(helper.make_node("Identity", [f"{name}_is"], [name]))
        facts.append(helper.make_tensor_value_info(name, kind, array.shape))
    made = helper.make_graph(nodes, "detector", [given], facts, values)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return model


def yolo(scores=((0.1, 0.9, 0.2),)):
    x1, y1, x2, y2 = IN_SQUARE[0]
    row = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *scores[0]]
    return np.array([row], dtype=np.float32).T[None]


class Scripted(torch.nn.Module):
    """Predicts a box whose score is the mean of the image, which must be in [0, 1]."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        score = image.mean().reshape(1)
        box = torch.tensor([32.0, 32.0, 32.0, 16.0], device=image.device)
        row = torch.cat([box, torch.zeros(1, device=image.device), score])
        return row.reshape(1, 6, 1)


class Writes(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        torch.save(image, "/tmp/somewhere-a-detector-has-no-business")
        return image


def script(module):
    sink = io.BytesIO()
    torch.jit.save(torch.jit.script(module), sink)
    return sink.getvalue()


def test_an_onnx_file_with_yolo_outputs_predicts_classes_of_the_ontology(tmp_path):
    data = graph({"output": yolo()}).SerializeToString()
    names = {"class_names": ("person", "car", "tree"), "classes": {"car": "vehicle"}}
    detector = open_detector(policy(tmp_path / "yolo.onnx", data, **names), ONTOLOGY)
    found = detector.predict([IMAGE, IMAGE])
    assert len(found) == 2
    assert found[0].class_names == ["vehicle"]
    assert found[0].boxes == pytest.approx(np.array(IN_IMAGE))
    assert found[0].scores == pytest.approx([0.9])
    assert detector.class_names == ("person", "vehicle")
    assert detector.digest == hashlib.sha256(data).hexdigest()


def test_a_masked_class_need_not_be_in_the_ontology(tmp_path):
    data = graph({"output": yolo()}).SerializeToString()
    names = {"class_names": ("person", "visage", "tree"), "classes": {"visage": "face"}}
    prediction = policy(tmp_path / "yolo.onnx", data, **names)
    detector = open_detector(prediction, ONTOLOGY, masked=("face",))
    assert detector.predict([IMAGE])[0].class_names == ["face"]
    masking = MaskingPolicy(classes=("face",))
    whole = Policy(ontology=ONTOLOGY, prediction=prediction, masking=masking)
    known = ClassCoverage(ModelRegistry(tmp_path / "models"), whole)
    assert known(detector.digest) == {"person", "face"}
    with pytest.raises(ModelError, match="no weights"):
        known("0" * 64)


def test_an_onnx_file_with_three_outputs_is_read_too(tmp_path):
    outputs = {
        "boxes": np.array([*IN_SQUARE, [0, 0, 9, 9], [0, 20, 9, 30]], dtype=np.float32),
        "labels": np.array([2, 1, 0]),
        "scores": np.array([0.8, np.nan, 0.7], dtype=np.float32),
    }
    data = graph(outputs, shape=(3, 64, 64)).SerializeToString()
    names = {"class_names": ("background", "person", "vehicle")}
    detector = open_detector(policy(tmp_path / "three.onnx", data, **names), ONTOLOGY)
    found = detector.predict([IMAGE])[0]
    assert (found.class_names, found.dropped) == (["vehicle"], 1)
    assert found.boxes == pytest.approx(np.array(IN_IMAGE))


def test_a_graph_that_reads_other_files_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(np.float32([1, 2, 3, 4]).tobytes())
    model = graph({"output": yolo()})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(tmp_path / "secret"))
    made = policy(tmp_path / "reads.onnx", model.SerializeToString(), class_names=("person",))
    with pytest.raises(ModelError, match=r"reads\.onnx: cannot be opened as ONNX"):
        open_detector(made, ONTOLOGY)


def test_files_that_are_not_onnx_are_refused(tmp_path):
    made = policy(tmp_path / "text.onnx", b"not a graph", class_names=("person",))
    with pytest.raises(ModelError, match=r"text\.onnx: cannot be opened as ONNX"):
        open_detector(made, ONTOLOGY)


def test_a_torchscript_program_predicts(tmp_path):
    data = script(Scripted())
    made = policy(tmp_path / "detector.ts", data, class_names=("person", "vehicle"))
    found = open_detector(made, ONTOLOGY).predict([np.full((50, 50, 3), 204, dtype=np.uint8)])[0]
    assert found.class_names == ["vehicle"]
    # 204 of 255; rows 16 pixels high at 50 / 64.
    assert found.scores == pytest.approx([0.8], abs=1e-3)
    assert found.boxes[0] == pytest.approx([12.5, 18.75, 37.5, 31.25])


def test_a_program_with_forbidden_names_is_refused_before_it_is_loaded(tmp_path):
    made = policy(tmp_path / "writes.ts", script(Writes()), class_names=("person",))
    with pytest.raises(ModelError, match=r"writes\.ts: refused: .* names '.*save.*', which no"):
        open_detector(made, ONTOLOGY)


class _RunsCode:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_pickles_in_any_container_are_refused_and_none_runs(tmp_path):
    marker = tmp_path / "executed"
    evil = pickle.dumps(_RunsCode(marker))
    sink = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(script(Scripted()))) as sound,
        zipfile.ZipFile(sink, "w") as bad,
    ):
        for name in sound.namelist():
            bad.writestr(name, evil if name.endswith("data.pkl") else sound.read(name))
    whole = io.BytesIO()
    torch.save({"model": _RunsCode(marker)}, whole)
    for name, data, message in (
        ("plain.pt", evil, "refused"),
        ("program.ts", sink.getvalue(), r"refused: .*data\.pkl would load 'io open"),
        ("whole.pt", whole.getvalue(), "refused"),
    ):
        with pytest.raises(ModelError, match=message):
            open_detector(policy(tmp_path / name, data, class_names=("person",)), ONTOLOGY)
    assert not marker.exists()


def test_a_harmless_program_passes_the_check(tmp_path):
    check_script(script(Scripted()), where="sound.ts")
    for name in ("op = ops.mine.run(x)", "torch.from_file(x)", "def __setstate__(self)"):
        sink = io.BytesIO()
        with zipfile.ZipFile(sink, "w") as archive:
            archive.writestr("d/code/__torch__/x.py", name)
        with pytest.raises(ModelError, match="refused"):
            check_script(sink.getvalue(), where="d.ts")


def test_a_file_is_only_opened_with_the_configured_digest(tmp_path):
    path = tmp_path / "w.onnx"
    path.write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert checked_bytes(path, sha256) == b"weights"
    with pytest.raises(ModelError, match=f"refused: its SHA-256 is {sha256}, .* is {'0' * 64}"):
        checked_bytes(path, "0" * 64)
    with pytest.raises(SettingsError, match="weights_sha256 is empty"):
        checked_bytes(path, "")
    with pytest.raises(ModelError, match="the weights cannot be read"):
        checked_bytes(tmp_path / "gone.onnx", sha256)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({}, "class_names is empty", id="no names"),
        pytest.param(
            {"class_names": ("car",)}, r"none of the detector's classes \(car\)", id="none"
        ),
        pytest.param(
            {"class_names": ("car",), "classes": {"car": "auto"}}, "auto is no class", id="unknown"
        ),
    ],
)
def test_classes_that_do_not_fit_the_ontology_are_named(tmp_path, settings, message):
    data = graph({"output": yolo()}).SerializeToString()
    with pytest.raises(SettingsError, match=message):
        open_detector(policy(tmp_path / "yolo.onnx", data, **settings), ONTOLOGY)


def test_a_published_network_predicts_as_in_torchvision_with_our_names(tmp_path):
    name = "ssdlite320_mobilenet_v3_large"
    torch.manual_seed(0)
    network = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=91).eval()
    sink = io.BytesIO()
    torch.save(network.state_dict(), sink)
    categories = get_model_weights(name).DEFAULT.meta["categories"]
    # An untrained network has low scores: map its most frequent label to a class of ours.
    image = np.random.default_rng(0).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    with torch.inference_mode():
        tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        output = network([tensor])[0]
    label = int(output["labels"].mode().values)
    classes = {categories[label]: "vehicle"}
    made = policy(tmp_path / "ssd.pth", sink.getvalue(), architecture=name, classes=classes)
    found = open_detector(made, ONTOLOGY).predict([image], minimum_score=0.0)[0]
    ours = output["labels"] == label
    assert len(found.scores) == int(ours.sum()) > 0
    assert set(found.class_names) == {"vehicle"}
    assert found.scores == pytest.approx(np.sort(output["scores"][ours].numpy())[::-1], abs=1e-5)
    with pytest.raises(SettingsError, match="torchvision publishes no 'yolo12'"):
        open_detector(PredictionPolicy(architecture="yolo12"), ONTOLOGY)


def test_weights_of_our_own_are_renamed_to_the_ontology(tmp_path, trained, drawn):
    ontology = Ontology.from_names(["crimson", "blue"])
    made = policy(tmp_path / "ours.pt", trained.state, classes={"red": "crimson"})
    detector = open_detector(made, ontology)
    pixels = read_image(drawn.examples[0].path)
    found = detector.predict([pixels])[0]
    assert set(found.class_names) == {"blue", "crimson"}
    assert detector.digest == hashlib.sha256(trained.state).hexdigest()
