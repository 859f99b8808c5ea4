"""Labels that exist already, from the files of every format to the sidecars of their images."""

import io
import json
import math
from xml.sax.saxutils import escape

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.coco import render_coco
from annotation_platform.formats.files import write_files
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.formats.yolo import render_yolo
from annotation_platform.ingestion.labels import (
    ImageLabels,
    LabelFiles,
    match_labels,
    read_labels,
    sidecar_labels,
)
from annotation_platform.ingestion.sidecars import ImportedBox, read_sidecar
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label

POLICY = CleaningPolicy()
NAMES = ["boat", "Würfel <b>", "猫"]
IN_ANY_FOLDER = settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def image(width, height, *, orientation=1):
    sink = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (width, height)).save(sink, format="JPEG", exif=exif)
    return sink.getvalue()


def edges(side):
    low = st.sampled_from([0.0, side - 1.0]) | st.floats(0, side - 1)
    return low.flatmap(
        lambda x: st.tuples(
            st.just(x), st.sampled_from([x + 1, float(side)]) | st.floats(x + 1, side)
        )
    )


@st.composite
def datasets(draw):
    images, labels = [], []
    for number in range(draw(st.integers(1, 4))):
        split = draw(st.sampled_from(["train", "val", "test"]))
        width, height = draw(st.integers(2, 60)), draw(st.integers(2, 60))
        images.append([f"p{number}", f"images/{split}/p{number}.jpg", split, width, height])
        # Label Studio and VOC have no list of classes but their boxes.
        for _ in range(draw(st.integers(0 if number else 1, 3))):
            x1, x2 = draw(edges(width))
            y1, y2 = draw(edges(height))
            labels.append([f"p{number}", draw(st.sampled_from(NAMES)), x1, y1, x2, y2])
    return Dataset(
        images=pd.DataFrame(images, columns=IMAGE_COLUMNS),
        labels=pd.DataFrame(labels, columns=LABEL_COLUMNS),
        ontology=Ontology.from_names(NAMES),
    )


def boxes_of(dataset, image_id):
    rows = dataset.labels[dataset.labels["image_id"] == image_id]
    return [Label.box(*row) for row in rows[["class_name", *BOX_COLUMNS]].to_numpy().tolist()]


def as_coco(dataset, folder):
    write_files(render_coco(dataset), folder)
    return folder / "coco"


def as_yolo(dataset, folder):
    write_files(render_yolo(dataset), folder)
    return folder


def as_voc(dataset, folder):
    for image_id, name, _, width, height in dataset.images.to_numpy().tolist():
        objects = "".join(
            f"<object><name>{escape(box.class_name)}</name><bndbox><xmin>{box.x1!r}</xmin>"
            f"<ymin>{box.y1!r}</ymin><xmax>{box.x2!r}</xmax><ymax>{box.y2!r}</ymax></bndbox></object>"
            for box in boxes_of(dataset, image_id)
        )
        size = f"<size><width>{width}</width><height>{height}</height></size>"
        text = f"<annotation><filename>{name}</filename>{size}{objects}</annotation>"
        (folder / f"{image_id}.xml").write_text(text, encoding="utf-8")
    return folder


def as_label_studio(dataset, folder):
    tasks = []
    for image_id, name, _, width, height in dataset.images.to_numpy().tolist():
        result = write_result(boxes_of(dataset, image_id), width, height)
        annotation = {"id": 1, "result": result, "was_cancelled": False}
        data = {"image": f"s3://bucket/{name}"}
        tasks.append({"id": image_id, "data": data, "annotations": [annotation]})
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


@IN_ANY_FOLDER
@given(dataset=datasets())
@pytest.mark.parametrize("write", [as_coco, as_yolo, as_voc, as_label_studio])
def test_labels_written_in_any_format_land_as_they_were(tmp_path_factory, write, dataset):
    path = write(dataset, tmp_path_factory.mktemp("labels"))
    read = read_labels(path)
    assert read.problems == ()
    sizes = {
        f"set/{name}": (width, height) for _, name, _, width, height in dataset.images.to_numpy()
    }
    matched = match_labels(read, list(sizes))
    assert matched.unmatched == ()
    assert set(matched.by_image) == set(sizes)
    for (name, size), image_id in zip(sizes.items(), dataset.images["image_id"], strict=True):
        found = sidecar_labels(matched.by_image[name], image(*size), POLICY)
        # Through the sidecar as it is written and read.
        landed = read_sidecar(json.dumps({"labels": found}, ensure_ascii=False).encode()).labels
        assert (landed.width, landed.height) == size
        assert landed.origin.endswith(f":{path.name}")
        assert_same_boxes(boxes_of(dataset, image_id), landed.boxes)


def assert_same_boxes(ours, theirs):
    assert len(ours) == len(theirs)
    left = list(theirs)
    for box in ours:
        # Each has its like, to two millionths of a pixel; in which order does not matter.
        like = next(other for other in left if is_same(box, other))
        left.remove(like)


def is_same(box, other):
    edges_apart = [abs(getattr(box, edge) - getattr(other, edge)) for edge in BOX_COLUMNS]
    return box.class_name == other.class_name and max(edges_apart) <= 2e-6


def labels_for(*names):
    boxes = (ImportedBox("boat", 1, 2, 3, 4),)
    return LabelFiles(tuple(ImageLabels(name, "coco:a", 9, 9, boxes) for name in names), ())


@pytest.mark.parametrize(
    ("labels", "images", "expected"),
    [
        pytest.param(["a/1.jpg"], ["a/1.jpg", "b/1.jpg"], {"a/1.jpg": "a/1.jpg"}, id="whole path"),
        pytest.param(["a/1.jpg"], ["x/a/1.jpg", "b/1.jpg"], {"x/a/1.jpg": "a/1.jpg"}, id="ending"),
        pytest.param(["old/1.jpg"], ["x/1.jpg"], {"x/1.jpg": "old/1.jpg"}, id="file name"),
        pytest.param(["./1.jpg"], ["1.jpg"], {"1.jpg": "./1.jpg"}, id="dot"),
        pytest.param(["1.jpg"], ["a/1.jpg", "b/1.jpg"], {}, id="one name, two images"),
        pytest.param(["1.jpg"], ["1.jpg", "b/1.jpg"], {"1.jpg": "1.jpg"}, id="one is meant"),
        pytest.param(["a/1.jpg", "b/1.jpg"], ["1.jpg"], {}, id="two labels, one image"),
        pytest.param(
            ["a/1.jpg", "b/1.jpg"], ["x/a/1.jpg"], {"x/a/1.jpg": "a/1.jpg"}, id="the closer one"
        ),
        pytest.param(["1.jpg"], ["1.png"], {}, id="another extension"),
        pytest.param(["1"], ["1.png", "1.txt"], {"1.png": "1"}, id="no extension"),
        pytest.param(["1"], ["1.png", "1.jpg"], {}, id="no extension, two images"),
        pytest.param(["t/1"], ["i/t/1.png", "i/v/1.png"], {"i/t/1.png": "t/1"}, id="split"),
        pytest.param(["1.jfif"], ["1.jfif"], {"1.jfif": "1.jfif"}, id="rare extension"),
        pytest.param(["a.b"], ["a.b.jpg", "a.jpg"], {"a.b.jpg": "a.b"}, id="dot in the name"),
        pytest.param(["1.jpg"], [], {}, id="no image"),
        pytest.param(["11.jpg"], ["1.jpg"], {}, id="half a name"),
    ],
)
def test_labels_go_to_the_one_image_they_can_mean(labels, images, expected):
    matched = match_labels(labels_for(*labels), images)
    assert {name: found.name for name, found in matched.by_image.items()} == expected
    # Whoever got no image is named.
    for name in set(labels) - set(expected.values()):
        assert any(repr(name) in sentence for sentence in matched.unmatched)
    assert bool(matched.unmatched) == (len(expected) < len(labels))


@given(
    st.lists(st.sampled_from(["a", "b", "x/a", "y/a", "x/b"]), unique=True),
    st.lists(st.sampled_from(["a", "b", "x/a", "y/a", "z/x/b"]), unique=True),
    st.randoms(use_true_random=False),
)
def test_matching_does_not_depend_on_the_order(labels, images, random):
    names = [f"{name}.jpg" for name in images]
    once = match_labels(labels_for(*(f"{name}.jpg" for name in labels)), names)
    random.shuffle(names)
    shuffled = random.sample(labels, len(labels))
    again = match_labels(labels_for(*(f"{name}.jpg" for name in shuffled)), names)
    assert once.by_image == again.by_image
    # Every image has one label at most and no label two images.
    assert len({found.name for found in once.by_image.values()}) == len(once.by_image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_shares_are_of_the_upright_image(orientation):
    found = ImageLabels("a", "yolo:x", 0, 0, (ImportedBox("boat", 0.0, 0.5, 0.25, 1.0),), True)
    landed = sidecar_labels(found, image(40, 20, orientation=orientation), POLICY)
    width, height = (40, 20) if orientation < 5 else (20, 40)
    assert (landed["width"], landed["height"]) == (width, height)
    assert landed["boxes"] == [{"class": "boat", "box": [0, height / 2, width / 4, height]}]


def test_a_size_that_labels_say_is_not_asked_of_the_image():
    found = labels_for("a.jpg").images[0]
    assert sidecar_labels(found, b"no image", POLICY)["width"] == 9


def test_a_image_without_a_readable_size_gets_no_labels():
    found = ImageLabels("a", "voc:x", 0, 0, ())
    assert sidecar_labels(found, b"no image", POLICY) is None
    assert sidecar_labels(found, image(40, 40), CleaningPolicy(maximum_pixels=100)) is None


def test_a_yolo_image_without_a_text_file_was_not_labelled(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [boat]\n")
    for name in ("images/a.jpg", "images/b.jpg", "labels/a.txt", "labels/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")  # the images are never opened
    assert [found.name for found in read_labels(tmp_path).images] == ["a", "c"]


def test_yolo_labels_of_one_name_in_two_splits_are_left_out(tmp_path):
    (tmp_path / "data.yaml").write_text("names: [boat]\n")
    for name in ("labels/train/a.txt", "labels/val/a.txt", "labels/val/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("0 0.5 0.5 0.5 0.5\n")
    read = read_labels(tmp_path)
    assert [found.name for found in read.images] == ["val/b"]
    assert "'a' has labels in two splits" in read.problems[0]


VOC = """<annotation><filename>{name}</filename><size><width>9</width><height>9</height></size>
<object><name>dog</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>{right}</xmax><ymax>9</ymax>
</bndbox></object></annotation>"""


def test_a_voc_file_with_a_flat_box_is_left_out_whole_and_an_empty_one_is_not(tmp_path):
    (tmp_path / "flat.xml").write_text(VOC.format(name="flat.jpg", right=1))
    (tmp_path / "sound.xml").write_text(VOC.format(name="sound.jpg", right=5))
    (tmp_path / "empty.xml").write_text("<annotation></annotation>")
    read = read_labels(tmp_path)
    assert [(found.name, len(found.boxes)) for found in read.images] == [
        ("empty", 0),
        ("sound.jpg", 1),
    ]
    assert "object 1 (dog) has no area" in read.problems[0]


COCO = {
    "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],
    "annotations": [],
    "categories": [{"id": 1, "name": "boat"}],
}


def coco_with(file_name="a.jpg", bbox=(1, 2, 3, 4)):
    image = {**COCO["images"][0], "file_name": file_name}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": list(bbox)}
    return json.dumps({**COCO, "images": [image], "annotations": [box]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (coco_with("../../etc/passwd"), "leads out of the folder"),
        (coco_with("a\0.jpg"), "not a file name"),
        (coco_with(bbox=(1, 2, 1e300, 4)), "too large"),
    ],
)
def test_labels_that_no_sidecar_may_hold_are_named(tmp_path, text, says):
    (tmp_path / "instances.json").write_text(text)
    read = read_labels(tmp_path / "instances.json")
    assert read.images == ()
    assert says in read.problems[0]


def test_the_origin_names_format_and_file(tmp_path):
    (tmp_path / "instances_train.json").write_text(coco_with())
    assert read_labels(tmp_path / "instances_train.json").images[0].origin == (
        "coco:instances_train.json"
    )
    assert read_labels(tmp_path, "coco").images[0].origin == f"coco:{tmp_path.name}"


ENTITIES = '<!DOCTYPE a [<!ENTITY b "{}">]><annotation>&b;</annotation>'


@pytest.mark.parametrize(
    ("name", "text", "format_name", "error", "says"),
    [
        ("a.xml", ENTITIES.format("x" * 9), None, FormatError, "not followed"),
        ("a.xml", "<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a>", None, FormatError, "a.xml"),
        ("a.json", "[" * 100_000, None, FormatError, "not JSON"),
        ("a.json", "17", None, DataError, "no labels of a known format"),
        ("a.txt", "", None, DataError, "no labels of a known format"),
        ("a.json", json.dumps(COCO), "label-studio", FormatError, "not a JSON export"),
        ("a.json", json.dumps(COCO), "datumaro", DataError, "labels can be coco, yolo, voc"),
    ],
)
def test_what_are_no_labels_is_refused(tmp_path, name, text, format_name, error, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=says):
        read_labels(tmp_path / name, format_name)


def test_nothing_and_two_things_at_once_are_refused(tmp_path):
    with pytest.raises(DataError, match="there are no labels"):
        read_labels(tmp_path / "none")
    with pytest.raises(DataError, match="no labels of a known format"):
        read_labels(tmp_path)
    (tmp_path / "a.xml").write_text(VOC.format(name="a.jpg", right=5))
    (tmp_path / "a.json").write_text(json.dumps(COCO))
    with pytest.raises(DataError, match=r"two formats \(coco, voc\)"):
        read_labels(tmp_path)
    assert len(read_labels(tmp_path, "voc").images) == 1


def test_a_name_that_is_not_utf_8_keeps_no_sidecar_from_being_written(tmp_path):
    path = tmp_path / "a\udcff.json"
    path.write_text(coco_with())
    (found,) = read_labels(path).images
    assert json.dumps(sidecar_labels(found, b"", POLICY), ensure_ascii=False).encode()
    assert math.isfinite(found.boxes[0].x2)
