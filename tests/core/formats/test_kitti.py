"""KITTI: boxes and cuboids come back; errors in files name the line and the problem."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import write_files
from annotation_platform.formats.kitti import kitti_losses, read_kitti, render_kitti
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology

# The example of the KITTI object development kit.
CAR = "Car 0.00 0 -1.57 614.24 181.78 727.31 284.77 1.57 1.73 4.15 1.00 1.75 13.22 -1.62"
IGNORED = "DontCare -1 -1 -10 5.00 229.89 214.12 367.61 -1 -1 -1 -1000 -1000 -1000 -10"
SIZE = (1242, 375)


def millionths(low, high):
    return st.integers(low * 10**6, high * 10**6).map(lambda number: number / 10**6)


@st.composite
def attributes(draw):
    values = {}
    for flag, degree, among in (
        ("truncated", "truncation", st.sampled_from([0.25, 0.5])),
        ("occluded", "occlusion", st.sampled_from([2.0, 3.0])),
    ):
        chosen = draw(st.sampled_from(["unknown", 0, 1, "more"]))
        if chosen == "more":
            values |= {flag: 1, degree: draw(among)}
        elif chosen != "unknown":
            values[flag] = chosen
    if draw(st.booleans()):
        values["alpha"] = draw(millionths(-3, 3))
    if draw(st.booleans()):
        values["cuboid"] = draw(st.lists(millionths(-50, 50), min_size=7, max_size=7))
    if draw(st.booleans()):
        values["score"] = draw(millionths(0, 1))
    return json.dumps(values, sort_keys=True) if values else ""


@st.composite
def datasets(draw):
    images, labels = [], []
    for number in range(draw(st.integers(1, 4))):
        name = f"{number:06d}"
        split = draw(st.sampled_from(["train", "val", "test"]))
        images.append([name, "", split, *SIZE])
        for _ in range(draw(st.integers(int(number == 0), 3))):
            x1, y1 = draw(millionths(0, 1241)), draw(millionths(0, 374))
            box = [x1, y1, x1 + 1, draw(st.sampled_from([y1 + 1, 375.0]))]
            name_of = draw(st.sampled_from(["Car", "Würfel"]))
            labels.append([name, name_of, *box, draw(attributes())])
    return make(images, labels)


def make(images, labels, names=("Car", "Würfel")):
    frame = pd.DataFrame(labels, columns=[*LABEL_COLUMNS, "attributes"])
    return Dataset(
        images=pd.DataFrame(images, columns=IMAGE_COLUMNS),
        labels=frame.astype(dict.fromkeys(BOX_COLUMNS, "float64")),
        ontology=Ontology.from_names(list(names)),
    )


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dataset=datasets(), seed=st.integers(0, 99))
def test_boxes_and_cuboids_come_back(tmp_path_factory, dataset, seed):
    folder = tmp_path_factory.mktemp("kitti")
    write_files(render_kitti(dataset), folder)
    read = read_kitti(folder, sizes=dict.fromkeys(dataset.images["image_id"], SIZE))
    assert read.images.to_dict("records") == dataset.images.to_dict("records")
    key = str
    assert sorted(rows_of(read), key=key) == sorted(rows_of(dataset), key=key)
    shuffled = Dataset(
        dataset.images.sample(frac=1.0, random_state=seed),
        dataset.labels.sample(frac=1.0, random_state=seed),
        dataset.ontology,
    )
    assert render_kitti(shuffled) == render_kitti(dataset)


def rows_of(dataset):
    columns = ["image_id", "class_name", *BOX_COLUMNS, "attributes"]
    rows = dataset.labels[columns].round(6).to_numpy().tolist()
    return [[*row[:-1], json.loads(row[-1] or "{}")] for row in rows]


def kitti_folder(folder, *lines):
    for name in ("label_2", "image_2"):
        (folder / name).mkdir(parents=True)
    (folder / "label_2" / "000000.txt").write_text("\n".join(lines))
    Image.new("L", SIZE).save(folder / "image_2" / "000000.png")
    Image.new("L", (7, 5)).save(folder / "image_2" / "000001.png")
    return folder


def test_the_example_of_the_kit_is_read_with_the_sizes_of_the_images(tmp_path):
    read = read_kitti(kitti_folder(tmp_path / "training", CAR, IGNORED).parent)
    assert read.images.to_numpy().tolist() == [
        ["000000", "training/image_2/000000.png", "train", 1242, 375],
        ["000001", "training/image_2/000001.png", "train", 7, 5],
    ]
    assert read.labels["class_name"].tolist() == ["Car", "DontCare"]
    assert read.labels[BOX_COLUMNS].iloc[0].tolist() == [614.24, 181.78, 727.31, 284.77]
    attributes = json.loads(read.labels["attributes"].iloc[0])
    assert attributes == {
        "alpha": -1.57,
        "cuboid": [1.57, 1.73, 4.15, 1.0, 1.75, 13.22, -1.62],
        "occluded": 0,
        "truncated": 0,
    }
    assert read.labels["attributes"].iloc[1] == ""
    # Writing gives the same numbers in the same order.
    lines = render_kitti(read)["train/label_2/000000.txt"].decode().splitlines()
    assert [line.split()[0] for line in lines] == ["Car", "DontCare"]
    for line, given_line in zip(lines, (CAR, IGNORED), strict=True):
        numbers = [float(value) for value in line.split()[1:]]
        assert numbers == [float(value) for value in given_line.split()[1:]]


def test_losses_are_reported():
    blank = make(
        [["a", "", "", 9, 9]],
        [["a", "big car", 0, 0, 5, 5, '{"crowd": 1, "cuboid": [1, 1, 1, 0, 0, 0, 0]}']],
        ["Van", "big car"],
    )
    assert render_kitti(blank)["label_2/a.txt"].startswith(b"big_car -1 -1 -10 0 0 5 5 1 1 1 0")
    assert kitti_losses(blank) == [
        "1 label loses its crowd",
        "1 class without a box is left out",
        "1 class gets another id",
        "1 class name has its blanks replaced by _",
    ]


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        pytest.param(make([["a/../..", "", "", 9, 9]], []), "not a file name", id="way out"),
        pytest.param(make([["a", "", "", 9, 9]] * 2, []), "is repeated", id="twice"),
        pytest.param(make([], [], ["a b", "a_b"]), "differ only in blanks", id="blanks"),
        pytest.param(
            make([["a", "", "", 9, 9]], [["a", "Car", 0, 0, 5, 5, '{"cuboid": [1]}']]),
            "not the seven numbers",
            id="cuboid",
        ),
    ],
)
def test_an_unwritable_dataset_is_refused(dataset, says):
    with pytest.raises(DataError, match=says):
        render_kitti(dataset)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        pytest.param("Car 0 0 0 1 2 3 4", r"000000\.txt:2: 'Car 0 0 0", id="short"),
        pytest.param(CAR.replace("1.57", "nan"), r"000000\.txt:2: ", id="nan"),
        pytest.param(CAR.replace("614.24", "999"), "comes before its left", id="inside out"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    with pytest.raises(FormatError, match=says):
        read_kitti(kitti_folder(tmp_path, CAR, line))


def test_a_bad_folder_is_reported(tmp_path):
    with pytest.raises(FormatError, match="no folder label_2"):
        read_kitti(tmp_path)
    folder = kitti_folder(tmp_path, CAR)
    (folder / "label_2" / "000002.txt").write_text(CAR)
    with pytest.raises(FormatError, match=r"no image image_2/000002\.\*"):
        read_kitti(folder)
    (folder / "label_2" / "000002.txt").unlink()
    (folder / "label_2" / "000003.txt").symlink_to("/etc/passwd")
    with pytest.raises(FormatError, match="a link out of"):
        read_kitti(folder)
