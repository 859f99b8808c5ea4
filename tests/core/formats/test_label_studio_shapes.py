"""Label Studio's JSON: every written shape is read, and so are the shapes of other projects."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import write_files
from annotation_platform.formats.label_studio.reading import read_label_studio
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.formats.label_studio.writing import (
    label_studio_losses,
    render_label_studio,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import UNSURE, Label
from annotation_platform.schema.shapes.overlap import labels_of
from tests.core.formats.every_shape import ONTOLOGY, assert_same_labels, datasets, row

IN_ANY_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TRIANGLE = Label.polygon("cat", [[10, 10, 30, 10, 10, 40]])


def read(tmp_path, *results, size=(100, 50)):
    data = [{"image": f"{number}.jpg"} for number in range(len(results))]
    path = tmp_path / "export.json"
    path.write_text(
        json.dumps(
            [
                {"id": number, "data": data[number], "annotations": [{"id": 1, "result": result}]}
                for number, result in enumerate(results)
            ]
        )
    )
    return read_label_studio(path)


def regions(*labels):
    return write_result(labels, 100, 50)


@IN_ANY_FOLDER
@given(dataset=datasets())
def test_every_shape_comes_back(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("label-studio")
    write_files(render_label_studio(dataset, prefix="s3://bucket/"), folder)
    if dataset.labels.empty:
        with pytest.raises(FormatError, match=r"no region or choice|no list of tasks"):
            read_label_studio(folder / "label_studio.json")
        return
    found = read_label_studio(folder / "label_studio.json")
    # The same choice twice of an image is one.
    choices = dataset.labels["shape"] == "choice"
    twice = choices & dataset.labels.duplicated(["image_id", "class_name", "shape"])
    written = Dataset(dataset.images, dataset.labels[~twice], ONTOLOGY)
    assert_same_labels(found.dataset, written, attributes=False)
    assert found.dataset.images["file_name"].tolist() == dataset.images["file_name"].tolist()


@IN_ANY_FOLDER
@given(dataset=datasets(), seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_change_a_byte(dataset, seed):
    labels = dataset.labels.sample(frac=1.0, random_state=seed)
    images = dataset.images.sample(frac=1.0, random_state=seed)
    shuffled = Dataset(images, labels, ONTOLOGY)
    assert render_label_studio(shuffled) == render_label_studio(dataset)


def test_each_rectangle_of_a_class_is_rotated_or_not(tmp_path):
    upright = Label.box("cat", 10, 10, 30, 20)
    turned = Label.rotated_box("cat", 50, 25, 20, 10, 30)
    found = read(tmp_path, regions(upright, turned))
    assert [label.shape for label in labels_of(found.dataset.labels)] == ["box", "rotated_box"]
    assert found.problems == ()


def test_a_class_may_be_drawn_in_several_ways(tmp_path):
    drawn = [Label.box("cat", 10, 10, 30, 20), TRIANGLE, Label.choice("cat")]
    found = read(tmp_path, regions(*drawn))
    assert [label.shape for label in labels_of(found.dataset.labels)] == [
        "box",
        "polygon",
        "choice",
    ]
    assert found.dataset.ontology.names == ["cat"]


def test_outlines_under_another_are_part_of_it_and_points_are_of_its_object(tmp_path):
    two = Label.polygon("cat", [*TRIANGLE.values, [60, 10, 80, 10, 60, 40]])
    drawn = regions(Label.keypoint("nose", 15, 15), two)
    drawn[0]["parentID"] = drawn[1]["id"]
    found = read(tmp_path, drawn)
    # In the order drawn; the polygon has both outlines.
    point, polygon = labels_of(found.dataset.labels)
    assert len(polygon.values) == 2
    assert point.shape == "keypoint"
    assert found.dataset.labels["instance"].tolist() == ["polygon-1", "polygon-1"]


def test_an_unsure_annotation_is_left_out(tmp_path):
    found = read(tmp_path, regions(TRIANGLE), regions(TRIANGLE, UNSURE))
    assert found.dataset.images["file_name"].tolist() == ["0.jpg"]
    assert "task 1 is left out: its annotator was unsure" in found.problems[0]


def test_an_unusable_region_excludes_its_image(tmp_path):
    broken = {**regions(TRIANGLE)[0], "value": {"points": [[1, 1]], "polygonlabels": ["cat"]}}
    ellipse = {**regions(TRIANGLE)[0], "type": "ellipselabels"}
    about = {"type": "choices", "id": "c", "value": {"choices": ["cat"], "x": 1, "y": 1}}
    results = [regions(TRIANGLE), *([bad] for bad in (broken, ellipse, about, None))]
    found = read(tmp_path, *results)
    assert found.dataset.images["file_name"].tolist() == ["0.jpg"]
    for number, says in enumerate(
        ["different points", "'ellipselabels' is not used", "about another region", "pixels"], 1
    ):
        assert any(f"task {number} is left out" in each and says in each for each in found.problems)


def test_an_image_without_labels_keeps_its_size_and_split(tmp_path):
    images = [["a", "a.jpg", "test", 30, 20], ["b", "b.jpg", "", 0, 0], ["c", "c.jpg", "", 9, 9]]
    dataset = Dataset(
        pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"]),
        pd.DataFrame([row("c", Label.choice("night"))]),
        ONTOLOGY,
    )
    write_files(render_label_studio(dataset), tmp_path)
    found = read_label_studio(tmp_path / "label_studio.json").dataset
    assert found.images.to_numpy().tolist() == images
    without_size = Dataset(
        dataset.images, pd.DataFrame([row("b", Label.box("猫", 1, 1, 2, 2))]), ONTOLOGY
    )
    with pytest.raises(DataError, match="image b: an image of 0 × 0"):
        render_label_studio(without_size)


def test_losses_are_reported():
    rows = [
        row("a", Label.box("猫", 1, 1, 2, 2), "o", '{"crowd": 1}'),
        row("a", Label.box("猫", 1, 1, 3, 3), "o"),
        row("a", Label.keypoint("nose", 1, 1), "o", '{"hidden": 1}'),
    ]
    ontology = Ontology(
        classes=(*ONTOLOGY.classes[:3], LabelClass(id=5, name="other", color="#000000"))
    )
    images = [["a", "a.jpg", "", 30, 20]]
    frame = pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"])
    assert label_studio_losses(Dataset(frame, pd.DataFrame(rows), ontology)) == [
        "1 label loses its crowd",
        "1 keypoint loses its attributes",
        "2 labels become objects of their own",
        "2 classes without a label are left out",
        "2 classes get other ids",
        "the class list loses its colours",
    ]


def test_exports_of_a_real_server_are_read_with_every_shape(public):
    folder = public("label_studio_samples")
    labels = read_label_studio(folder / "export_JSON.json").dataset.labels
    assert {json.loads(geometry)[4] for geometry in labels["geometry"]} == {15.0}
    drawn = read_label_studio(folder / "export_ui_project.json").dataset.labels
    assert list(zip(drawn["class_name"], drawn["shape"], strict=True)) == [
        ("ok", "choice"),
        ("Cat", "rotated_box"),
        ("Cat", "box"),
        ("Dog", "box"),
        ("Dog", "box"),
        ("CatP", "polygon"),
        ("Nose", "keypoint"),
        ("Mask", "mask"),
    ]


def test_the_converters_sample_is_read(public):
    found = read_label_studio(
        public("formats_ls_converter") / "data" / "test_export_yolo" / "data.json"
    )
    boxes = found.dataset.labels
    assert boxes["class_name"].tolist() == ["parasites", "white", "white", "white"]
    # Of the annotation changed last; 37.8871 and 3.8251 percent of 2800 pixels.
    assert boxes.iloc[0]["x1"] == pytest.approx(37.88706739526412 * 28)
    assert boxes.iloc[0]["x2"] == pytest.approx((37.88706739526412 + 3.8251366120218573) * 28)
