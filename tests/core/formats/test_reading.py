"""Files of other tools: valid ones are read, and errors name file and problem."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from annotation_platform.errors import FormatError
from annotation_platform.formats.coco import read_coco, read_coco_boxes
from annotation_platform.formats.voc import read_voc
from annotation_platform.formats.yolo import read_yolo
from annotation_platform.schema.geometry import BOX_COLUMNS

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[4] / "shared" / "data"))
COCO = {
    "info": {"year": 2017},
    "images": [
        {"id": 1, "file_name": "train/0001.jpg", "width": 64, "height": 48, "license": 3},
        {"id": 2, "file_name": "train/0002.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {"id": 5, "image_id": 2, "category_id": 18, "bbox": [1, 2, 3.5, 4], "iscrowd": 0},
        {"id": 6, "image_id": 2, "category_id": 18, "bbox": [0, 0, 60, 40], "iscrowd": 1},
    ],
    "categories": [{"id": 18, "name": "dog", "supercategory": "animal"}],
}


def with_change(change) -> str:
    data = json.loads(json.dumps(COCO))
    change(data)
    return json.dumps(data)


def test_an_ordinary_coco_file_is_read_for_boxes_without_its_crowd_regions(tmp_path):
    path = tmp_path / "instances_train2017.json"
    path.write_text(json.dumps(COCO))
    for place in (path, tmp_path):
        read = read_coco_boxes(place)
        assert read.images["image_id"].tolist() == ["0001", "0002"]
        assert read.images["file_name"].tolist() == ["train/0001.jpg", "train/0002.jpg"]
        assert read.images["split"].tolist() == ["train", "train"]
        assert read.labels["image_id"].tolist() == ["0002"]
        assert read.labels[BOX_COLUMNS].iloc[0].tolist() == [1, 2, 4.5, 6]
        assert read.ontology.id_of == {"dog": 18}


def test_images_of_one_name_in_two_folders_keep_their_folder_in_the_id(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(with_change(lambda data: data["images"][0].update(file_name="val/0002.jpg")))
    assert read_coco(path).images["image_id"].tolist() == ["train/0002", "val/0002"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('{"images": [\n}', r"truth.json:2: not JSON", id="cut off"),
        pytest.param("[]", "not a COCO detection file", id="a list"),
        pytest.param('{"images": []}', "lacks images, annotations or categories", id="half"),
        pytest.param(
            with_change(lambda data: data["annotations"][0].update(image_id=9)),
            r"annotations\[0\] is on image 9, which is not listed",
            id="unknown image",
        ),
        pytest.param(
            with_change(lambda data: data["annotations"][0].update(category_id=9)),
            r"annotations\[0\] has category 9",
            id="unknown category",
        ),
        pytest.param(
            with_change(lambda data: data["annotations"][0].update(bbox=[1, 2, 3])),
            r"annotations\[0\] has bbox \[1, 2, 3\]",
            id="three numbers",
        ),
        pytest.param(
            with_change(lambda data: data["annotations"][0].update(bbox=[1, 2, -3, 4])),
            r"annotations\[0\] has bbox",
            id="inside out",
        ),
        pytest.param(
            with_change(lambda data: data["annotations"][0].update(bbox=[1, 2, float("nan"), 4])),
            r"annotations\[0\] has bbox",
            id="not a number",
        ),
        pytest.param(
            with_change(lambda data: data["images"][0].pop("width")),
            r"images\[0\] has width None",
            id="no width",
        ),
        pytest.param(
            with_change(lambda data: data["images"][0].update(height=0)),
            r"images\[0\] has height 0",
            id="no height",
        ),
        pytest.param(
            with_change(lambda data: data["images"][0].update(id=2)), "same id", id="id twice"
        ),
        pytest.param(
            with_change(lambda data: data["images"][0].update(file_name="train/0002.jpg")),
            "listed twice",
            id="file twice",
        ),
        pytest.param(
            with_change(lambda data: data["categories"].clear()), "category 18", id="no classes"
        ),
        pytest.param(
            with_change(lambda data: data["images"][0].update(width=10**30)), "width 1", id="huge"
        ),
        pytest.param("[" * 100_000, "not JSON that can be used", id="nested"),
        pytest.param(f'{{"images": {"9" * 5000}}}', "not JSON that can be used", id="digits"),
        pytest.param(
            with_change(lambda data: data["images"][0].update(file_name="\ud800")),
            "not JSON that can be used",
            id="half a character",
        ),
    ],
)
def test_an_error_in_a_coco_file_names_position_and_problem(tmp_path, text, says):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=says):
        read_coco(path)


def test_a_missing_file_and_an_empty_folder_are_reported(tmp_path):
    with pytest.raises(FormatError, match="No such file"):
        read_coco(tmp_path / "none.json")
    with pytest.raises(FormatError, match=r"no \.json file"):
        read_coco(tmp_path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("9 0.5 0.5 0.1 0.1", r"a\.txt:2: class 9, but data\.yaml has 0–1", id="class"),
        pytest.param("9" * 5000 + " 0.5 0.5 0.1 0.1", "class 999", id="digits"),
        pytest.param("0 0.5 0.5 0.1", "expected `class x y width height`", id="four fields"),
        pytest.param("0 0.5 x 0.1 0.1", "expected `class x y width height`", id="a word"),
        pytest.param("0 12 0.5 0.1 0.1", "outside 0 to 1", id="pixels"),
    ],
)
def test_a_bad_yolo_line_is_named(tmp_path, line, says):
    (tmp_path / "data.yaml").write_text("names: [person, dog]\n")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(FormatError, match=says):
        read_yolo(tmp_path, sizes={"a": (10, 10)})


# A list of nine lists of nine lists …: a few bytes that print as gigabytes.
BOMB = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    "text",
    ["names: {1: a}", "names: 3", ": [", "names: [a]\nclass_ids: [1, 2]", BOMB + "names: [*a9]"],
)
def test_a_bad_class_list_is_a_format_error(tmp_path, text):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"data\.yaml"):
        read_yolo(tmp_path)


VOC = """<annotation><filename>{name}</filename><size><width>0</width></size>
<object><name>dog</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>{right}</xmax><ymax>9</ymax>
</bndbox></object></annotation>"""


def voc_file(folder: Path, text: str) -> Path:
    Image.new("L", (20, 10)).save(folder / "dog.png")
    path = folder / "dog.xml"
    path.write_text(text)
    return path


def test_voc_without_a_size_takes_the_images(tmp_path):
    path = voc_file(tmp_path, VOC.format(name="dog.png", right=8.5))
    read = read_voc([path], tmp_path)
    assert read.dataset.images[["width", "height"]].iloc[0].tolist() == [20, 10]
    assert read.dataset.labels[BOX_COLUMNS].iloc[0].tolist() == [1, 2, 8.5, 9]
    assert read.problems == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(
            VOC.format(name="cat.png", right=8), "image 'cat.png', which is not", id="image"
        ),
        pytest.param(VOC.format(name="dog.png", right="far"), "object 1 has no name", id="word"),
        pytest.param("<annotation>\n<filename>", r"dog\.xml:2: not XML", id="cut off"),
        pytest.param("<svg><filename>dog.png</filename></svg>", "its root is <svg>", id="svg"),
        pytest.param(
            '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>',
            "not followed",
            id="external entity",
        ),
    ],
)
def test_a_bad_voc_file_is_named(tmp_path, text, says):
    path = voc_file(tmp_path, text)
    with pytest.raises(FormatError, match=says):
        read_voc([path], tmp_path)


def test_the_blood_cells_are_read_and_their_two_flat_boxes_reported():
    folder = DATA / "bccd" / "BCCD"
    if not folder.is_dir():
        pytest.skip(f"the public test data are not at {DATA}; set ANNOTATION_TEST_DATA to run this")
    read = read_voc(folder / "Annotations", folder / "JPEGImages")
    # 4888 boxes by shared/data/README.md, two of them flat by TRUTH_natural_faults.csv.
    assert len(read.dataset.images) == 364
    assert len(read.dataset.labels) == 4886
    assert [problem.split(":")[0].rsplit("/", 1)[1] for problem in read.problems] == [
        "BloodImage_00338.xml",
        "BloodImage_00343.xml",
    ]
    assert read.dataset.ontology.names == ["Platelets", "RBC", "WBC"]
