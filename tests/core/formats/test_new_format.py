"""A further format is a module and an entry in the registry; ``convert`` then knows it."""

import json
import sys
from types import ModuleType

import pytest

from annotation_platform.errors import FormatError
from annotation_platform.formats import known
from annotation_platform.formats.conversion import convert
from annotation_platform.formats.files import make_dataset, make_ontology, read_json
from annotation_platform.formats.known import FORMATS, find_format
from annotation_platform.formats.losses import LEFT_OUT, shape_losses
from annotation_platform.schema.shapes import Label

MODULE = "annotation_platform.formats.corners"
HOLDS = ("box",)


def render_corners(dataset):
    """Return ``corners.json``: by file name, the size of the image and the corners of its boxes."""
    boxes = dataset.labels[dataset.labels["shape"] == "box"]
    content = {
        image["file_name"]: {
            "size": [image["width"], image["height"]],
            "boxes": boxes.loc[
                boxes["image_id"] == image["image_id"], ["class_name", "x1", "y1", "x2", "y2"]
            ].to_numpy().tolist(),
        }
        for image in dataset.images.to_dict("records")
    }  # fmt: skip
    return {"corners.json": json.dumps(content).encode()}


def read_corners(path):
    """Return the dataset of a ``corners.json``."""
    file = path / "corners.json"
    content = read_json(file)
    images, labels = [], []
    for name, image in content.items():
        width, height = image["size"]
        key = name.partition(".")[0]
        images.append(
            {"image_id": key, "file_name": name, "split": "", "width": width, "height": height}
        )
        for class_name, *corners in image["boxes"]:
            label = Label.box(class_name, *corners)
            fields = ["shape", "class_name", "geometry", "x1", "y1", "x2", "y2"]
            labels.append({"image_id": key, **{each: getattr(label, each) for each in fields}})
    classes = sorted({label["class_name"] for label in labels})
    if not classes:
        raise FormatError(str(file), 0, "no box", "Draw one.")
    return make_dataset(images, labels, make_ontology(dict(enumerate(classes)), where=file))


def corners_losses(dataset):
    """Return what is left out: all labels that are not boxes."""
    return shape_losses(dataset, HOLDS, areas=LEFT_OUT)


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The functions of this file as a module of the package, and its entry in the registry."""
    module = ModuleType(MODULE)
    for each in (render_corners, read_corners, corners_losses):
        setattr(module, each.__name__, each)
    module.HOLDS = HOLDS
    monkeypatch.setitem(sys.modules, MODULE, module)
    monkeypatch.setitem(FORMATS, "corners", known._plain("corners", "Corners", "corners"))


@pytest.fixture
def source(tmp_path):
    """Two boxes and a polygon, in JSON Lines."""
    shapes = [
        ("a", Label.box("boat", 1, 2, 30, 40)),
        ("b", Label.box("buoy", 3, 4, 5, 6)),
        ("b", Label.polygon("boat", [[0, 0, 9, 0, 9, 9]])),
    ]
    images = [
        {"image_id": key, "file_name": f"{key}.png", "split": "", "width": 64, "height": 48}
        for key in "ab"
    ]
    fields = ["shape", "class_name", "geometry", "x1", "y1", "x2", "y2"]
    labels = [
        {"image_id": key, **{each: getattr(label, each) for each in fields}}
        for key, label in shapes
    ]
    dataset = make_dataset(images, labels, make_ontology({0: "boat", 1: "buoy"}, where=tmp_path))
    folder = tmp_path / "source"
    folder.mkdir()
    find_format("jsonl").write(dataset, folder, {}, None)
    return folder


def test_a_new_format_is_written_and_read_and_counts_its_losses(source, tmp_path):
    corners, lines = find_format("corners"), find_format("jsonl")
    written = convert(source, tmp_path / "out", read_as=lines, write_as=corners)
    assert written.losses == ("1 polygon is left out",)
    back = corners.read(tmp_path / "out", None).dataset.labels
    boxes = back.sort_values("image_id")[["class_name", "x1", "y1", "x2", "y2"]]
    assert boxes.to_numpy().tolist() == [["boat", 1, 2, 30, 40], ["buoy", 3, 4, 5, 6]]
    again = convert(tmp_path / "out", tmp_path / "again", read_as=corners, write_as=lines)
    assert (again.labels, again.losses) == (2, ())


def test_a_bad_file_of_it_is_named(tmp_path):
    (tmp_path / "corners.json").write_text('{"a.png": {"size": [4, 4], "boxes": []}}')
    with pytest.raises(FormatError, match="no box"):
        find_format("corners").read(tmp_path, None)
