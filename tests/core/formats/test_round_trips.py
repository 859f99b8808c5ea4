"""Every format that is written is read back equal, and equal datasets give equal bytes."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError
from annotation_platform.formats.coco import read_coco, render_coco
from annotation_platform.formats.files import write_files
from annotation_platform.formats.yolo import read_yolo, render_yolo
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes, iou_matrix
from annotation_platform.schema.ontology import LabelClass, Ontology

NAMES = ["person", "Würfel", "猫 & <b>", "a: 'b' | #c", "null"]
IN_ANY_FOLDER = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def datasets(draw, *, splits=("train", "val", "test")):
    ids = draw(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True))
    ontology = Ontology(
        classes=tuple(LabelClass(id=key, name=NAMES[n]) for n, key in enumerate(sorted(ids)))
    )
    images, labels = [], []
    for number in range(draw(st.integers(0, 5))):
        image_id = f"{number:064x}"
        split = draw(st.sampled_from(splits))
        width, height = draw(st.integers(1, 30_000)), draw(st.integers(1, 30_000))
        images.append([image_id, f"images/{split}/{image_id}.jpg", split, width, height])
        for _ in range(draw(st.integers(0, 4))):
            x1, x2 = draw(edges(width))
            y1, y2 = draw(edges(height))
            name = draw(st.sampled_from(ontology.names))
            labels.append([image_id, name, x1, y1, x2, y2])
    return make(images, labels, ontology)


@st.composite
def edges(draw, side):
    """Two edges at least a pixel apart; the whole side and its last pixel are likely."""
    low = draw(st.sampled_from([0.0, side - 1.0]) | st.floats(0, side - 1))
    high = draw(st.sampled_from([low + 1, float(side)]) | st.floats(low + 1, side))
    return low, high


def make(images, labels, ontology) -> Dataset:
    frame = pd.DataFrame(labels, columns=LABEL_COLUMNS)
    return Dataset(
        images=pd.DataFrame(images, columns=IMAGE_COLUMNS),
        labels=frame.astype(dict.fromkeys(BOX_COLUMNS, "float64")),
        ontology=ontology,
    )


def assert_same(read: Dataset, written: Dataset) -> None:
    assert read.ontology.id_of == written.ontology.id_of
    columns = ["image_id", "split", "width", "height"]
    assert read.images[columns].to_dict("records") == (
        written.images.sort_values("image_id")[columns].to_dict("records")
    )
    assert len(read.labels) == len(written.labels)
    keys = ["image_id", "class_name"]
    written_groups = dict(list(written.labels.groupby(keys)))
    for key, group in read.labels.groupby(keys):
        ours = as_boxes(written_groups[key][BOX_COLUMNS])
        overlap = iou_matrix(as_boxes(group[BOX_COLUMNS]), ours)
        # Each box has its like on both sides; one-to-one follows from the equal counts.
        assert (overlap.max(axis=1) >= 0.999).all()
        assert (overlap.max(axis=0) >= 0.999).all()
        assert overlap.shape[0] == overlap.shape[1]


@IN_ANY_FOLDER
@given(dataset=datasets())
def test_coco_comes_back_as_it_was_written(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("coco")
    write_files(render_coco(dataset), folder)
    read = read_coco(folder)
    assert_same(read, dataset)
    assert set(read.images["file_name"]) == set(dataset.images["file_name"])


@IN_ANY_FOLDER
@given(dataset=datasets())
def test_yolo_comes_back_as_it_was_written_and_never_leaves_the_image(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("yolo")
    write_files(render_yolo(dataset), folder)
    images = dataset.images
    sizes = dict(zip(images["image_id"], zip(images["width"], images["height"]), strict=True))  # noqa: B905
    read = read_yolo(folder, sizes=sizes)
    assert_same(read, dataset)
    for path in folder.rglob("labels/*/*.txt"):
        for line in path.read_text().splitlines():
            x, y, width, height = map(float, line.split()[1:])
            assert x - width / 2 + 1e-12 >= 0
            assert x + width / 2 <= 1 + 1e-12
            assert y - height / 2 + 1e-12 >= 0
            assert y + height / 2 <= 1 + 1e-12


@IN_ANY_FOLDER
@given(dataset=datasets(splits=("",)))
def test_a_dataset_without_splits_is_one_coco_file(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("coco")
    write_files(render_coco(dataset), folder)
    assert [path.name for path in folder.rglob("*.json")] == ["annotations.json"]
    assert_same(read_coco(folder / "coco" / "annotations.json"), dataset)


@IN_ANY_FOLDER
@given(dataset=datasets(), seed=st.integers(0, 1000))
def test_the_order_of_rows_does_not_change_a_byte(dataset, seed):
    shuffled = Dataset(
        images=dataset.images.sample(frac=1.0, random_state=seed),
        labels=dataset.labels.sample(frac=1.0, random_state=seed),
        ontology=Ontology(classes=dataset.ontology.classes[::-1]),
    )
    assert render_coco(shuffled) == render_coco(dataset)
    assert render_yolo(shuffled) == render_yolo(dataset)


ONE_BOX = make(
    [
        ["a" * 64, "images/train/a.jpg", "train", 10, 10],
        ["b" * 64, "images/val/b.jpg", "val", 10, 10],
    ],
    [["a" * 64, "Würfel", 9, 9, 10, 10]],
    Ontology(classes=(LabelClass(id=3, name="Würfel"), LabelClass(id=1, name="猫"))),
)


def test_yolo_files_of_a_box_in_the_last_pixel():
    files = render_yolo(ONE_BOX)
    # Class 3 is the second by id; the centre of pixel 9 of 10 is at 0.95.
    assert files[f"labels/train/{'a' * 64}.txt"] == (
        b"1 0.9500000000 0.9500000000 0.100000000 0.100000000\n"
    )
    assert files[f"labels/val/{'b' * 64}.txt"] == b""
    assert "Würfel" in files["data.yaml"].decode()


def test_coco_files_hold_every_split_and_the_ontologys_ids():
    files = {path: json.loads(data) for path, data in render_coco(ONE_BOX).items()}
    assert list(files) == ["coco/train.json", "coco/val.json", "coco/test.json"]
    assert files["coco/test.json"]["images"] == []
    annotation = files["coco/train.json"]["annotations"][0]
    assert annotation["bbox"] == [9, 9, 1, 1]
    assert annotation["category_id"] == 3
    assert annotation["image_id"] == files["coco/train.json"]["images"][0]["id"] < 2**52
    assert [one["id"] for one in files["coco/val.json"]["categories"]] == [1, 3]


def test_an_image_keeps_its_coco_id_when_others_come_and_go():
    alone = make([["b" * 64, "b.jpg", "val", 10, 10]], [], ONE_BOX.ontology)
    both = json.loads(render_coco(ONE_BOX)["coco/val.json"])["images"]
    assert json.loads(render_coco(alone)["coco/val.json"])["images"][0]["id"] == both[0]["id"]


def test_two_equal_boxes_on_one_image_stay_two():
    twice = make(
        ONE_BOX.images, pd.concat([ONE_BOX.labels, ONE_BOX.labels]), ONE_BOX.ontology
    )  # fmt: skip
    found = json.loads(render_coco(twice)["coco/train.json"])["annotations"]
    assert len({one["id"] for one in found}) == 2
    assert render_yolo(twice)[f"labels/train/{'a' * 64}.txt"].count(b"\n") == 2


def test_pycocotools_reads_what_is_written(tmp_path, capsys):
    from pycocotools.coco import COCO

    write_files(render_coco(ONE_BOX), tmp_path)
    truth = COCO(str(tmp_path / "coco" / "train.json"))
    assert len(truth.getAnnIds(catIds=[3])) == 1


def test_yolo_reads_sizes_from_the_images_and_images_without_a_label_file(tmp_path):
    write_files(render_yolo(ONE_BOX), tmp_path)
    for split, name in [("train", "a" * 64), ("val", "b" * 64), ("val", "c" * 64)]:
        path = tmp_path / "images" / split / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((10, 10), dtype=np.uint8)).save(path)
    read = read_yolo(tmp_path)
    assert read.images["image_id"].tolist() == ["a" * 64, "b" * 64, "c" * 64]
    assert read.images["file_name"].iloc[2] == f"images/val/{'c' * 64}.png"
    assert read.labels[BOX_COLUMNS].iloc[0].tolist() == pytest.approx([9, 9, 10, 10])


@pytest.mark.parametrize("render", [render_coco, render_yolo])
def test_a_class_that_the_ontology_lacks_is_refused(render):
    wrong = make(ONE_BOX.images, ONE_BOX.labels, Ontology.from_names(["other"]))
    with pytest.raises(DataError, match="'Würfel' is not in the ontology"):
        render(wrong)


def test_an_image_id_never_leaves_the_folder():
    sly = make([["../../x", "x.jpg", "", 10, 10]], [], ONE_BOX.ontology)
    with pytest.raises(DataError, match="Rename the image"):
        render_yolo(sly)


def test_nothing_depends_on_the_machine(monkeypatch):
    before = render_coco(ONE_BOX)
    monkeypatch.setitem(os.environ, "TZ", "Pacific/Kiritimati")
    monkeypatch.chdir(Path("/"))
    assert render_coco(ONE_BOX) == before
