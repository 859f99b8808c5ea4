import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from annotation_platform.demo.truth import read_truth
from annotation_platform.errors import DataError
from annotation_platform.images.decoding import encode_png
from annotation_platform.schema.dataset import LABEL_COLUMNS

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", "../shared/data"))


def image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_png(np.full((40, 60, 3), value, dtype=np.uint8)))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def voc(path, file_name, *boxes):
    path.parent.mkdir(parents=True, exist_ok=True)
    objects = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2 in boxes
    )
    path.write_text(
        f"<annotation><filename>{file_name}</filename><size><width>60</width>"
        f"<height>40</height></size>{objects}</annotation>"
    )


def coco(path, images, boxes):
    content = {
        "images": [
            {"id": n, "file_name": name, "width": 60, "height": 40} for n, name in enumerate(images)
        ],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": xywh}
            for n, (image, category, xywh) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "boat"}, {"id": 2, "name": "buoy"}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.skipif(
    not (DATA / "bccd").is_dir(),
    reason=f"The blood cell images are not in {DATA / 'bccd'}; set ANNOTATION_TEST_DATA.",
)
def test_the_blood_cells_are_read_by_content_without_two_boxes_of_no_area():
    folder = DATA / "bccd" / "BCCD"
    truth = read_truth(folder / "JPEGImages", folder / "Annotations")
    assert len(truth.dataset.images) == 364
    assert len(truth.dataset.labels) == 4888 - 2
    assert truth.dataset.ontology.names == ["RBC", "WBC", "Platelets"]
    flat = [problem for problem in truth.problems if "no area" in problem]
    assert len(flat) == 2
    assert "BloodImage_00338" in flat[0]
    first = truth.dataset.images.iloc[0]
    data = (folder / "JPEGImages" / first["file_name"]).read_bytes()
    assert first["image_id"] == hashlib.sha256(data).hexdigest()
    assert set(truth.dataset.labels["image_id"]) <= set(truth.dataset.images["image_id"])
    # The folder above, as the data set is published, gives the same.
    assert read_truth(folder / "JPEGImages", folder).dataset.labels.equals(truth.dataset.labels)


def test_coco_is_read_by_content_and_classes_begin_with_the_most_frequent(tmp_path):
    a = image(tmp_path / "images" / "a.png", 1)
    b = image(tmp_path / "images" / "val" / "b.png", 2)
    boxes = [
        (0, 2, [1, 2, 10, 20]),
        (1, 2, [0, 0, 5, 5]),
        (1, 1, [5, 5, 5, 5]),
        (0, 1, [3, 3, 0, 4]),
    ]
    file = coco(tmp_path / "truth.json", ["a.png", "elsewhere/b.png"], boxes)
    truth = read_truth(tmp_path / "images", file)
    assert dict(truth.dataset.images[["file_name", "image_id"]].to_numpy()) == {
        "a.png": a,
        "val/b.png": b,
    }
    assert truth.dataset.ontology.names == ["buoy", "boat"]
    ours = truth.dataset.labels.query("image_id == @a")[LABEL_COLUMNS].to_dict("records")
    assert ours == [
        {"image_id": a, "class_name": "buoy", "x1": 1.0, "y1": 2.0, "x2": 11.0, "y2": 22.0}
    ]
    assert truth.problems == ("a.png: a box of class 'boat' has no area",)


def test_skipped_entries_are_named(tmp_path):
    image(tmp_path / "images" / "a.png", 1)
    image(tmp_path / "images" / "b.png", 1)
    image(tmp_path / "images" / "c.png", 3)
    for name in ("a", "b", "gone"):
        voc(tmp_path / "truth" / f"{name}.xml", f"{name}.png", ("boat", 1, 1, 9, 9))
    truth = read_truth(tmp_path / "images", tmp_path / "truth")
    assert list(truth.dataset.images["file_name"]) == ["a.png"]
    assert len(truth.dataset.labels) == 1
    text = " | ".join(truth.problems)
    assert "gone.xml" in text
    assert "1 images have no ground truth: c.png" in text
    assert "b.png: the same bytes as a.png" in text


def test_an_image_without_objects_is_part_of_the_truth(tmp_path):
    image(tmp_path / "images" / "a.png", 1)
    empty = image(tmp_path / "images" / "b.png", 2)
    file = coco(tmp_path / "truth.json", ["a.png", "b.png"], [(0, 1, [1, 1, 5, 5])])
    truth = read_truth(tmp_path / "images", file)
    assert empty in set(truth.dataset.images["image_id"])
    assert empty not in set(truth.dataset.labels["image_id"])


def test_a_missing_or_empty_folder_names_the_option_to_pass(tmp_path):
    with pytest.raises(DataError, match=r"no such folder.*--images"):
        read_truth(tmp_path / "none", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in it.*--images"):
        read_truth(tmp_path / "empty", tmp_path)
    image(tmp_path / "images" / "a.png")
    with pytest.raises(DataError, match=r"no such file or folder.*--truth"):
        read_truth(tmp_path / "images", tmp_path / "none")


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_a_truth_of_other_images_is_an_error(tmp_path, kind):
    image(tmp_path / "images" / "a.png")
    truth = tmp_path / "truth"
    if kind == "voc":
        voc(truth / "other.xml", "other.png", ("boat", 1, 1, 9, 9))
    else:
        truth.mkdir()
        coco(truth / "truth.json", ["other.png"], [])
    with pytest.raises(DataError, match=r"names no image of .*other.*--images"):
        read_truth(tmp_path / "images", truth)


def test_a_file_of_another_format_is_an_error(tmp_path):
    image(tmp_path / "images" / "a.png")
    (tmp_path / "truth").mkdir()
    with pytest.raises(DataError):
        read_truth(tmp_path / "images", tmp_path / "truth")
    (tmp_path / "truth" / "notes.json").write_text("[]")
    with pytest.raises(DataError, match="COCO"):
        read_truth(tmp_path / "images", tmp_path / "truth")


def test_images_and_annotations_are_found_in_the_subfolders_of_a_data_set(tmp_path):
    image_id = image(tmp_path / "set" / "JPEGImages" / "a.png")
    voc(tmp_path / "set" / "Annotations" / "a.xml", "a.png", ("boat", 1, 1, 9, 9))
    truth = read_truth(tmp_path, tmp_path)
    assert truth.dataset.images["image_id"].tolist() == [image_id]
    assert truth.dataset.images["file_name"].tolist() == ["set/JPEGImages/a.png"]
    assert len(truth.dataset.labels) == 1
