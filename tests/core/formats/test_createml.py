"""Create ML: boxes come back; errors in files name the entry and the problem."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.createml import (
    createml_losses,
    read_createml,
    render_createml,
)
from annotation_platform.formats.files import write_files
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology

SIZE = (640, 480)


@st.composite
def datasets(draw, *, splits=("train", "val", "test")):
    images, labels = [], []
    for number in range(draw(st.integers(1, 4))):
        split = draw(st.sampled_from(splits))
        images.append([f"Bild {number}", f"images/{split}/Bild {number}.jpg", split, *SIZE])
        for _ in range(draw(st.integers(int(number == 0), 3))):
            x1, y1 = draw(st.floats(0, 639)), draw(st.floats(0, 479))
            x2, y2 = draw(st.just(x1 + 1) | st.just(640.0)), draw(st.floats(y1 + 1, 480))
            labels.append(
                [f"Bild {number}", draw(st.sampled_from(['a "b"', "猫"])), x1, y1, x2, y2]
            )
    return make(images, labels)


def make(images, labels):
    frame = pd.DataFrame(labels, columns=LABEL_COLUMNS)
    return Dataset(
        images=pd.DataFrame(images, columns=IMAGE_COLUMNS),
        labels=frame.astype(dict.fromkeys(BOX_COLUMNS, "float64")),
        ontology=Ontology.from_names(['a "b"', "猫"]),
    )


def rows_of(dataset):
    """Return the boxes in the order in which they are written."""
    labels = dataset.labels
    middle = (
        ((labels["x1"] + labels["x2"]) / 2).round(6),
        ((labels["y1"] + labels["y2"]) / 2).round(6),
    )
    labels = labels.assign(x=middle[0], y=middle[1], w=(labels["x2"] - labels["x1"]).round(6),
                           h=(labels["y2"] - labels["y1"]).round(6))  # fmt: skip
    labels = labels.sort_values(["image_id", "class_name", "x", "y", "w", "h"])
    return labels[["image_id", "class_name"]].to_numpy().tolist(), labels[BOX_COLUMNS].to_numpy()


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dataset=datasets() | datasets(splits=("",)), seed=st.integers(0, 99))
def test_boxes_come_back_to_a_millionth_of_a_pixel(tmp_path_factory, dataset, seed):
    folder = tmp_path_factory.mktemp("createml")
    write_files(render_createml(dataset), folder)
    read = read_createml(folder, sizes=dict.fromkeys(dataset.images["file_name"], SIZE))
    assert read.images.to_dict("records") == dataset.images.to_dict("records")
    names, edges = rows_of(dataset)
    assert len(read.labels) == len(names)
    assert read.labels[["image_id", "class_name"]].to_numpy().tolist() == names
    assert read.labels[BOX_COLUMNS].to_numpy() == pytest.approx(edges, abs=2e-6)
    shuffled = Dataset(
        dataset.images.sample(frac=1.0, random_state=seed),
        dataset.labels.sample(frac=1.0, random_state=seed),
        dataset.ontology,
    )
    assert render_createml(shuffled) == render_createml(dataset)


ONE = make(
    [["a", "a.png", "train", 20, 10], ["b", "b.png", "val", 20, 10]],
    [["a", "猫", 2, 1, 6, 9]],
)


def test_a_file_has_centres_and_keeps_images_without_a_box():
    files = {path: json.loads(data) for path, data in render_createml(ONE).items()}
    assert files == {
        "createml/train.json": [
            {
                "image": "a.png",
                "annotations": [
                    {"label": "猫", "coordinates": {"x": 4, "y": 5, "width": 4, "height": 8}}
                ],
            }
        ],
        "createml/val.json": [{"image": "b.png", "annotations": []}],
        "createml/test.json": [],
    }


def test_sizes_are_those_of_the_image_files(tmp_path):
    """Apple's own example, with its older keys."""
    entry = {
        "imagefilename": "cat and dog.png",
        "annotation": [
            {"label": "cat", "coordinates": {"y": 2.0, "x": 3.9, "height": 4.0, "width": 2.0}}
        ],
    }
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps([entry]))
    Image.new("L", (30, 20)).save(tmp_path / "cat and dog.png")
    for place in (path, tmp_path):
        read = read_createml(place)
        assert read.images.to_numpy().tolist() == [["cat and dog", "cat and dog.png", "", 30, 20]]
        assert read.labels[BOX_COLUMNS].iloc[0].tolist() == [2.9, 0, 4.9, 4]


def test_losses_are_reported():
    assert createml_losses(ONE) == [
        "1 class without a box is left out",
        "1 class gets another id",
    ]
    labels = ONE.labels.assign(shape="rotated_box", attributes='{"difficult": 1}')
    assert createml_losses(Dataset(ONE.images, labels, ONE.ontology))[:2] == [
        "1 rotated box becomes its enclosing box",
        "1 label loses its difficult",
    ]


def test_an_image_without_a_file_name_is_refused():
    images = ONE.images.assign(file_name=["a.png", ""])
    with pytest.raises(DataError, match="identifies images by their file names"):
        render_createml(Dataset(images, ONE.labels, ONE.ontology))


BOX = {"label": "cat", "coordinates": {"x": 4, "y": 5, "width": 4, "height": 8}}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param({"image": "a.png"}, "not a list of images", id="no list"),
        pytest.param([3], r"\[0\] has no image", id="number"),
        pytest.param([{"image": "../a.png"}], "leads out of the folder", id="way out"),
        pytest.param([{"image": "/a.png"}], "is absolute", id="absolute"),
        pytest.param([{"image": "none.png"}], r"no image 'none\.png'", id="no image"),
        pytest.param([{"image": "a.png", "annotations": 3}], "that are not a list", id="boxes"),
        pytest.param(
            [{"image": "a.png", "annotations": [{**BOX, "label": ""}]}],
            r"\[0\]\.annotations\[0\] has no label",
            id="label",
        ),
        *(
            pytest.param(
                [
                    {
                        "image": "a.png",
                        "annotations": [
                            {**BOX, "coordinates": {**BOX["coordinates"], "width": value}}
                        ],
                    }
                ],
                r"\[0\]\.annotations\[0\] has no box",
                id=f"width {value}",
            )
            for value in (None, "4", float("nan"), -1, True, 10**400)
        ),
        pytest.param([{"image": "a.png", "annotations": [BOX]}] * 2, "listed twice", id="twice"),
        pytest.param([{"image": "a.png"}], "no Create ML file with a box", id="empty"),
    ],
)
def test_an_error_names_the_entry_and_the_problem(tmp_path, content, says):
    Image.new("L", (20, 10)).save(tmp_path / "a.png")
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=says):
        read_createml(path)


def test_nested_brackets_and_links_are_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(FormatError, match="not JSON that can be used"):
        read_createml(tmp_path)
    (tmp_path / "deep.json").unlink()
    (tmp_path / "link.json").symlink_to("/etc/passwd")
    with pytest.raises(FormatError, match="a link out of"):
        read_createml(tmp_path)
