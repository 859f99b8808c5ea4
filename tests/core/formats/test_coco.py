"""COCO: every shape comes back, files of other tools are read, and hostile files are refused."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.coco import (
    coco_losses,
    read_coco,
    read_coco_boxes,
    render_coco,
)
from annotation_platform.formats.files import write_files
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.shapes.overlap import labels_of
from tests.core.formats.every_shape import ALL, ONTOLOGY, assert_same_labels, datasets, row

IN_ANY_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
REGIONS = [shape for shape in ALL if shape != "choice"]


def dataset_of(*rows, width=20, height=10):
    images = [["a", "a.jpg", "", width, height]]
    return Dataset(
        pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"]),
        pd.DataFrame(list(rows)),
        ONTOLOGY,
    )


def annotations(dataset):
    return json.loads(render_coco(dataset)["coco/annotations.json"])["annotations"]


@IN_ANY_FOLDER
@given(dataset=datasets(shapes=REGIONS))
def test_every_shape_object_and_attribute_comes_back(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("coco")
    write_files(render_coco(dataset), folder)
    read = read_coco(folder)
    assert read.ontology.id_of == ONTOLOGY.id_of
    assert_same_labels(read, dataset)
    assert coco_losses(dataset) == []
    # A dataset that was read is written in the same bytes, names of objects included.
    assert render_coco(read) == render_coco(dataset)


@IN_ANY_FOLDER
@given(dataset=datasets(), seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_change_a_byte_of_any_shape(dataset, seed):
    labels = dataset.labels.sample(frac=1.0, random_state=seed)
    images = dataset.images.sample(frac=1.0, random_state=seed)
    assert render_coco(Dataset(images, labels, ONTOLOGY)) == render_coco(dataset)


def test_ids_and_boxes_do_not_depend_on_what_else_is_in_the_dataset():
    box, point = row("a", Label.box("猫", 1, 2, 3, 4)), row("a", Label.keypoint("nose", 1, 1))
    # sha256 of "a/2/1.0/2.0/2.0/2.0/0" begins with these 13 digits, worked out by sha256sum.
    assert annotations(dataset_of(box))[0]["id"] == int("1c79a42c6c6f7", 16)
    assert annotations(dataset_of(box))[0]["id"] in {
        each["id"] for each in annotations(dataset_of(point, box))
    }


def test_an_object_is_one_annotation_with_its_points_in_order():
    rows = [
        row("a", Label.keypoint("eye", 5, 1), "o", '{"hidden": 1}'),
        row("a", Label.box("猫", 1, 1, 9, 9), "o", '{"crowd": 1, "occluded": 1}'),
        row("a", Label.keypoint("nose", 4, 2), "o"),
        row("a", Label.keypoint("eye", 3, 1), "o"),
    ]
    found = json.loads(render_coco(dataset_of(*rows))["coco/annotations.json"])
    (one,) = found["annotations"]
    cat = next(each for each in found["categories"] if each["name"] == "猫")
    assert cat["keypoints"] == ["nose", "eye", "eye"]
    assert one["keypoints"] == [4.0, 2.0, 2, 3.0, 1.0, 2, 5.0, 1.0, 1]
    assert (one["num_keypoints"], one["iscrowd"], one["instance"]) == (3, 1, "o")
    assert one["attributes"] == {"occluded": 1}
    assert one["area"] == 64


def test_areas_are_those_of_the_shapes():
    ring = np.zeros((10, 20), dtype=bool)
    ring[2:5, 2:5] = True
    ring[3, 3] = False
    rows = [
        row("a", Label.rotated_box("猫", 8, 5, 4, 2, 45)),
        row("a", Label.polygon("猫", [[0, 0, 4, 0, 0, 4], [10, 0, 12, 0, 12, 2, 10, 2]])),
        row("a", Label.mask("猫", ring)),
        row("a", Label.keypoint("nose", 3, 4)),
    ]
    # 4 × 2; half of 4 × 4 and 2 × 2; a ring of eight pixels; nothing.
    assert sorted(each["area"] for each in annotations(dataset_of(*rows))) == [0, 8, 8, 12]


def test_losses_are_reported():
    rows = [
        row("a", Label.choice("night")),
        row("a", Label.choice("night")),
        row("a", Label.box("猫", 1, 1, 9, 9), "o"),
        row("a", Label.keypoint("nose", 4, 2), "o", '{"occluded": 1}'),
    ]
    assert coco_losses(dataset_of(*rows)) == [
        "2 choices are left out",
        "1 keypoint of an object loses its attributes",
    ]


def test_a_label_without_a_position_is_refused():
    unplaced = row("a", Label.box("猫", 1, 1, float("nan"), 9))
    with pytest.raises(DataError, match="has no position"):
        render_coco(dataset_of(unplaced))


def test_the_smallest_numbers_are_written_as_json(tmp_path):
    write_files(
        render_coco(dataset_of(row("a", Label.box("猫", 0.000002, 0, 1e-6, 1e-5 + 1e-6)))), tmp_path
    )
    text = (tmp_path / "coco" / "annotations.json").read_text()
    assert json.loads(text)["annotations"][0]["bbox"] == [2e-6, 0.0, -1e-6, 1.1e-5]


# -- files of others ------------------------------------------------------------------------------


def coco_file(tmp_path, *entries, categories=None, **image):
    image_file = {"id": 1, "file_name": "a.jpg", "width": 5, "height": 4, **image}
    classes = categories or [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    listed = [{"id": n, "image_id": 1, "category_id": 1, **each} for n, each in enumerate(entries)]
    path = tmp_path / "train.json"
    data = {"images": [image_file], "annotations": listed, "categories": classes}
    path.write_text(json.dumps(data))
    return path


BOX = {"bbox": [1, 1, 2, 2]}


def test_run_lengths_as_numbers_and_as_text_are_the_same_mask(tmp_path):
    plain = {"segmentation": {"size": [4, 5], "counts": [5, 2, 13]}, "iscrowd": 1}
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 1] = True
    label = Label.mask("a", mask)
    read = read_coco(coco_file(tmp_path, plain, {"segmentation": label.values}))
    assert labels_of(read.labels) == [label, label]
    assert read.labels["attributes"].tolist() == ['{"crowd": 1}', ""]


def test_a_crowd_may_be_a_box(tmp_path):
    read = read_coco(coco_file(tmp_path, {**BOX, "iscrowd": 1}))
    assert read.labels[["shape", "attributes"]].iloc[0].tolist() == ["box", '{"crowd": 1}']


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"segmentation": [[1, 1, 2, 2]]}, r"an outline \[1, 1, 2, 2\] .* three points"),
        ({"segmentation": [[1, 1, 2, 2, 3]]}, "an outline"),
        ({"segmentation": [[1, 1, 2, 2, 3, float("nan")]]}, "an outline"),
        ({"segmentation": [1, 1, 2, 2, 3, 3]}, "an outline 1"),
        ({"segmentation": "x"}, "an outline None"),
        ({"segmentation": {"size": [5, 4], "counts": [20]}}, r"size \[5, 4\], expected .*\[4, 5\]"),
        ({"segmentation": {"size": [4, 5], "counts": [3, 4]}}, "do not add up to 5 × 4"),
        ({"segmentation": {"size": [4, 5], "counts": [20]}}, "covers no pixel"),
        ({"segmentation": {"size": [4, 5], "counts": [21, -1]}}, "neither a list of run lengths"),
        ({"segmentation": {"size": [4, 5], "counts": [10**400]}}, "neither a list of run lengths"),
        ({"segmentation": {"size": [4, 5], "counts": [True, 19]}}, "neither a list of run lengths"),
        (
            {"segmentation": {"size": [4, 5], "counts": "oooooooooooooooo0"}},
            "not in COCO's compressed form",
        ),
        ({"segmentation": {"size": [4, 5], "counts": "zzz"}}, "not in COCO's compressed form"),
        ({"segmentation": {"size": [4, 5]}}, "neither a list of run lengths"),
        ({"rotated_box": [1, 2, 3, 4]}, "rotated_box"),
        ({"rotated_box": [1, 2, -3, 4, 5]}, "rotated_box"),
        ({**BOX, "keypoints": [1, 2]}, "expected x, y and visibility"),
        ({**BOX, "keypoints": "x"}, "expected x, y and visibility"),
        ({**BOX, "attributes": [1]}, "expected an object"),
        ({**BOX, "attributes": {"x": float("inf")}}, "cannot be written as JSON"),
        ({**BOX, "instance": []}, "expected a string"),
        ({"segmentation": []}, "bbox None"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path, entry, says):
    with pytest.raises(FormatError, match=rf"train\.json: annotations\[0\] has .*{says}"):
        read_coco(coco_file(tmp_path, entry))


@pytest.mark.parametrize(
    "name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg", "..\\a.jpg", "C:\\a.jpg", "a\0.jpg"]
)
def test_an_image_outside_the_folder_is_refused(tmp_path, name):
    with pytest.raises(FormatError, match="leads out of the folder"):
        read_coco(coco_file(tmp_path, file_name=name))


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "elsewhere").mkdir()
    secret = coco_file(tmp_path / "elsewhere", BOX)
    (tmp_path / "coco" / "val.json").symlink_to(secret)
    with pytest.raises(FormatError, match="a link out of"):
        read_coco(tmp_path / "coco")
    assert len(read_coco_boxes(tmp_path / "coco").labels) == 1


def test_two_annotations_of_one_id_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"annotations\[1\] has the id 7 of another"):
        read_coco(coco_file(tmp_path, {**BOX, "id": 7}, {**BOX, "id": 7}))


def test_a_huge_image_with_a_mask_costs_no_memory(tmp_path):
    side = 60_000
    runs = {"size": [side, side], "counts": [0, 1, side * side - 1]}
    read = read_coco(coco_file(tmp_path, {"segmentation": runs}, width=side, height=side))
    assert read.labels[BOX_COLUMNS].iloc[0].tolist() == [0, 0, 1, 1]
    runs = {"size": [2**16, 2**16], "counts": [0, 1, 2**32 - 1]}
    with pytest.raises(FormatError, match="more than 32 bits can count"):
        read_coco(coco_file(tmp_path, {"segmentation": runs}, width=2**16, height=2**16))


def read_sample(public, name):
    dataset = read_coco(public("formats_datumaro") / "coco_dataset" / name)
    facts = dataset.images[["image_id", "split", "width", "height"]]
    assert facts.to_numpy().tolist() == [["a", "train", 10, 5], ["b", "val", 5, 10]]
    return dataset


CROWD = Label.mask("b", np.pad(np.ones((10, 2), dtype=bool), ((0, 0), (0, 3))))


@pytest.mark.parametrize("name", ["coco_instances", "mmdet_coco", "coco_roboflow"])
def test_instances_that_datumaro_reads_are_read(public, name):
    dataset = read_sample(public, name)
    # A box; an outline around 1 × 2 pixels; a crowd of 20 pixels from the top left down.
    assert labels_of(dataset.labels) == [
        Label.box("b", 2, 2, 5, 3),
        Label.polygon("a", [[0, 0, 1, 0, 1, 2, 0, 2]]),
        CROWD,
    ]
    assert dataset.labels["attributes"].tolist() == ["", '{"x": 1, "y": "hello"}', '{"crowd": 1}']
    assert dataset.ontology.id_of == {"a": 1, "b": 2, "c": 4}


def test_keypoints_that_datumaro_reads_are_read(public):
    dataset = read_sample(public, "coco_person_keypoints")
    assert labels_of(dataset.labels) == [
        Label.box("b", 2, 2, 5, 3),
        # Of three the first is not labelled, and the second is hidden.
        Label.keypoint("b 2", 0, 2),
        Label.keypoint("b 3", 4, 1),
        Label.polygon("a", [[0, 0, 1, 0, 1, 2, 0, 2]]),
        *(Label.keypoint(f"a {n}", x, y) for n, x, y in [(1, 1, 2), (2, 3, 4), (3, 2, 3)]),
        CROWD,
        *(Label.keypoint(f"b {n}", x, y) for n, x, y in [(1, 2, 4), (2, 4, 4), (3, 4, 2)]),
    ]
    assert dataset.labels["instance"].tolist() == ["1"] * 3 + ["1"] * 4 + ["2"] * 4
    assert dataset.labels["attributes"].tolist()[1] == '{"hidden": 1}'


def test_other_files_of_datumaros_are_read_or_refused(public):
    stuff = read_sample(public, "coco_stuff").labels
    # Of 5 × 10 pixels, 10 down from the third column, and 10 after five more: two columns each.
    assert stuff[BOX_COLUMNS].iloc[0].tolist() == [2, 0, 7, 5]
    chosen = read_sample(public, "coco_labels").labels
    assert labels_of(chosen) == [Label.choice("b"), Label.choice("a"), Label.choice("b")]
    for name, says in [
        ("coco_captions", "category 0, which is not listed"),
        ("coco_image_info", "its classes cannot be used"),
        ("coco_panoptic", "category_id None"),
        ("coco", r"several kinds \(instances, labels, person_keypoints, stuff\)"),
    ]:
        with pytest.raises(FormatError, match=says):
            read_sample(public, name)


def test_an_empty_dataset_is_written_and_read(tmp_path):
    empty = Dataset(
        pd.DataFrame(columns=["image_id", "file_name", "split", "width", "height"]),
        pd.DataFrame(columns=["image_id", "class_name", *BOX_COLUMNS]),
        Ontology.from_names(["a"]),
    )
    write_files(render_coco(empty), tmp_path)
    read = read_coco(tmp_path)
    assert (len(read.images), len(read.labels), read.ontology.names) == (0, 0, ["a"])
    assert coco_losses(empty) == []
