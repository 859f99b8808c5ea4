"""YOLO's four tasks: labels come back, and errors name the line and the problem."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import write_files
from annotation_platform.formats.yolo import read_yolo, render_yolo, yolo_losses
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import Label, rotated_corners
from tests.core.formats.overlap import area_overlap

MORE = ["shape", "geometry", "instance", "attributes"]
SIZES = {"a": (64, 48), "b": (64, 48)}
IN_ANY_FOLDER = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def dataset(*labels, points=()):
    """Return two images of 64 × 48; a label, or label, instance and attributes, is on ``a``."""
    rows = []
    for each in labels:
        label, instance, attributes = each if isinstance(each, tuple) else (each, "", "")
        box = [getattr(label, name) for name in BOX_COLUMNS]
        rows.append(
            ["a", label.class_name, *box, label.shape, label.geometry, instance, attributes]
        )
    frame = pd.DataFrame(rows, columns=[*LABEL_COLUMNS, *MORE])
    return Dataset(
        images=pd.DataFrame(
            [["a", "images/train/a.png", "train", 64, 48], ["b", "", "val", 64, 48]],
            columns=IMAGE_COLUMNS,
        ),
        labels=frame.astype(dict.fromkeys(BOX_COLUMNS, "float64")),
        ontology=Ontology(
            classes=tuple(
                LabelClass(id=3 * number, name=name, shape="keypoint" if name in points else "box")
                for number, name in enumerate(["dog", "Würfel", "nose", "tail"])
            )
        ),
    )


def labels_of(read):
    names = ["shape", "class_name", "geometry", *BOX_COLUMNS]
    return [Label(*row) for row in read.labels[names].to_numpy().tolist()]


def round_trip(folder, given, task):
    write_files(render_yolo(given, task=task), folder)
    return read_yolo(folder, sizes=SIZES)


def inside(draw, side, least=1.0):
    low = draw(st.floats(0, side - least))
    return low, draw(st.floats(low + least, side))


@st.composite
def boxes(draw):
    (x1, x2), (y1, y2) = inside(draw, 64), inside(draw, 48)
    return Label.box(draw(st.sampled_from(["dog", "Würfel"])), x1, y1, x2, y2)


@st.composite
def rotated(draw):
    """A box turned any way, all of it in the image."""
    angle = draw(st.sampled_from([0.0, 90.0, -45.0, 180.0, 359.0]) | st.floats(-360, 360))
    sides = draw(st.floats(1, 30)), draw(st.floats(1, 20))
    return Label.rotated_box("dog", 32, 24, *sides, angle)


@st.composite
def triangles(draw):
    (x1, x2), (y1, y2) = inside(draw, 64, 2.0), inside(draw, 48, 2.0)
    return Label.polygon("Würfel", [[x1, y1, x2, y1, draw(st.floats(x1, x2)), y2]])


@IN_ANY_FOLDER
@given(labels=st.lists(triangles() | boxes() | rotated(), max_size=4))
def test_outlines_come_back_as_polygons_of_the_same_area(tmp_path_factory, labels):
    read = round_trip(tmp_path_factory.mktemp("yolo"), dataset(*labels), "segment")
    assert read.images["image_id"].tolist() == ["a", "b"]
    assert len(read.labels) == len(labels)
    for found in labels_of(read):
        assert found.shape == "polygon"
        overlaps = [
            area_overlap(found, each) for each in labels if each.class_name == found.class_name
        ]
        assert max(overlaps) >= 0.999


@IN_ANY_FOLDER
@given(labels=st.lists(rotated() | boxes(), max_size=4))
def test_rotated_boxes_come_back_with_their_corners(tmp_path_factory, labels):
    read = round_trip(tmp_path_factory.mktemp("yolo"), dataset(*labels), "obb")
    assert len(read.labels) == len(labels)
    for found in labels_of(read):
        assert found.shape == "rotated_box"
        overlaps = [
            area_overlap(found, each) for each in labels if each.class_name == found.class_name
        ]
        assert max(overlaps) >= 0.999


def test_a_rotated_box_keeps_the_side_that_was_its_top(tmp_path):
    given_box = Label.rotated_box("dog", 30, 20, 20, 8, 35)
    (found,) = labels_of(round_trip(tmp_path, dataset(given_box), "obb"))
    assert found.values == pytest.approx([30, 20, 20, 8, 35], abs=1e-5)


def test_corners_outside_the_image_are_cut_and_counted():
    """The square about the top left corner, turned by 45°: only its right and lower corner stay."""
    given_box = Label.rotated_box("dog", 0, 0, 20, 20, 45)
    half = 10 * 2**0.5
    turned = rotated_corners(0, 0, 20, 20, 45)
    assert turned == pytest.approx(np.array([[0, -half], [half, 0], [0, half], [-half, 0]]))
    line = render_yolo(dataset(given_box), "obb")["labels/train/a.txt"].decode().split()
    expected = [0, 0, half / 64, 0, 0, half / 48, 0, 0]
    assert [float(value) for value in line[1:]] == pytest.approx(expected, abs=1e-9)
    assert "1 label is cut at the image's edge" in yolo_losses(dataset(given_box), "obb")


@IN_ANY_FOLDER
@given(box=boxes(), data=st.data())
def test_keypoints_come_back_with_their_object(tmp_path_factory, box, data):
    point = st.tuples(st.floats(0, 64), st.floats(0, 48), st.sampled_from(["", '{"hidden": 1}']))
    locations = data.draw(st.dictionaries(st.sampled_from(["nose", "tail"]), point))
    points = [(Label.keypoint(name, x, y), "one", text) for name, (x, y, text) in locations.items()]
    given_set = dataset((box, "one", ""), *points, points=("nose", "tail"))
    read = round_trip(tmp_path_factory.mktemp("yolo"), given_set, "pose")
    assert read.ontology.id_of == given_set.ontology.id_of
    assert read.ontology.shape_of == given_set.ontology.shape_of
    found = read.labels[read.labels["shape"] == "keypoint"]
    assert found["instance"].nunique() == min(len(locations), 1)
    assert set(found["instance"]) <= set(read.labels.loc[read.labels["shape"] == "box", "instance"])
    rows = found[["class_name", "x1", "y1", "attributes"]].to_numpy().tolist()
    assert {name: (pytest.approx(x, abs=1e-5), pytest.approx(y, abs=1e-5), text)
            for name, x, y, text in rows} == locations  # fmt: skip


POSE = dataset(
    (Label.box("dog", 0, 0, 32, 24), "1", ""),
    (Label.keypoint("nose", 16, 12), "1", '{"hidden": 1}'),
    (Label.box("dog", 32, 24, 64, 48), "", ""),
    points=("nose", "tail"),
)


def test_pose_files_have_the_form_that_others_read():
    files = render_yolo(POSE, "pose")
    here, none = "0.250000000 0.250000000 1", "0.000000000 0.000000000 0"
    assert files["labels/train/a.txt"].decode().splitlines() == [
        f"0 0.2500000000 0.2500000000 0.500000000 0.500000000 {here} {none}",
        f"0 0.7500000000 0.7500000000 0.500000000 0.500000000 {none} {none}",
    ]
    head = files["data.yaml"].decode()
    assert "kpt_shape:\n- 2\n- 3" in head
    assert "names:\n  0: dog\n  1: Würfel\n" in head
    assert "&" not in head


@pytest.mark.parametrize("task", ["detect", "segment", "obb", "pose"])
def test_the_order_of_rows_does_not_change_a_byte(task):
    many = dataset(
        *[Label.box("dog", x, y, 40, 40) for x in (0, 0, 8) for y in (0, 8, 4)],
        Label.rotated_box("Würfel", 30, 20, 20, 8, 35),
        (Label.polygon("dog", [[0, 0, 9, 0, 9, 9]]), "p", ""),
        (Label.keypoint("nose", 5, 5), "p", ""),
        (Label.keypoint("nose", 4, 5), "p", ""),
    )
    for seed in range(5):
        shuffled = Dataset(
            many.images.sample(frac=1, random_state=seed),
            many.labels.sample(frac=1, random_state=seed),
            Ontology(classes=many.ontology.classes[::-1]),
        )
        assert render_yolo(shuffled, task) == render_yolo(many, task)


def test_pieces_are_joined_without_losing_area(tmp_path):
    """Two squares, and a mask with a hole: outlines that evenodd rules fill as they were."""
    ring = np.zeros((48, 64), dtype=bool)
    ring[5:30, 5:30] = True
    ring[10:20, 10:20] = False
    ring[40:45, 50:60] = True
    squares = Label.polygon("dog", [[0, 0, 8, 0, 8, 8, 0, 8], [40, 4, 60, 4, 60, 20, 40, 20]])
    mask = Label.mask("Würfel", ring)
    found = {label.class_name: label for label in labels_of(
        round_trip(tmp_path, dataset(squares, mask), "segment"))}  # fmt: skip
    assert len(found["dog"].values) == 1
    assert area_overlap(found["dog"], squares) >= 0.999
    assert area_overlap(found["Würfel"], mask) >= 0.999
    assert "2 outlines of several pieces are joined into one" in yolo_losses(
        dataset(squares, mask), "segment"
    )


def test_an_outline_is_clipped_to_the_image(tmp_path):
    """The triangle (-10, 0) (10, 0) (10, 40): the left edge is left of x = 0 down to y = 20."""
    outside = Label.polygon("dog", [[-10, 0, 10, 0, 10, 40]])
    beyond = Label.polygon("dog", [[70, 0, 80, 0, 80, 10]])
    (found,) = labels_of(round_trip(tmp_path, dataset(outside, beyond), "segment"))
    expected = Label.polygon("dog", [[0, 0, 10, 0, 10, 40, 0, 20]])
    assert area_overlap(found, expected) >= 0.999


def test_detect_leaves_out_choices_and_points_and_reports_it():
    mixed = dataset(
        Label.choice("Würfel"),
        (Label.keypoint("nose", 5, 5), "", ""),
        (Label.polygon("dog", [[0, 0, 32, 0, 32, 24]]), "", '{"crowd": 1}'),
        Label.box("dog", -5, 0, 5, 5),
    )
    text = render_yolo(mixed)["labels/train/a.txt"].decode()
    assert text == (
        "0 0.0390625000 0.0520833335 0.078125000 0.104166667\n"
        "0 0.2500000000 0.2500000000 0.500000000 0.500000000\n"
    )
    assert yolo_losses(mixed) == [
        "1 polygon becomes its enclosing box",
        "1 keypoint is left out",
        "1 choice is left out",
        "1 label is cut at the image's edge",
        "1 label loses its crowd",
    ]
    assert yolo_losses(dataset(Label.box("dog", 0, 0, 5, 5))) == []
    assert yolo_losses(mixed, "pose")[:3] == [
        "1 polygon becomes its enclosing box",
        "1 choice is left out",
        "1 keypoint without an object is left out",
    ]


def test_a_repeated_image_is_refused():
    twice = dataset()
    twice = Dataset(pd.concat([twice.images] * 2), twice.labels, twice.ontology)
    with pytest.raises(DataError, match="'a' is repeated"):
        render_yolo(twice)


def folder_of(place, lines, head="names: [person, dog]\n"):
    (place / "data.yaml").write_text(head)
    (place / "labels").mkdir()
    (place / "labels" / "a.txt").write_text(lines)
    return place


@pytest.mark.parametrize(
    ("lines", "head", "shapes"),
    [
        pytest.param("0 .5 .5 .1 .1\n", "", ["box"], id="five values"),
        pytest.param("0 0 0 1 0 1 1 0 1\n", "", ["rotated_box"], id="nine values"),
        pytest.param("0 0 0 1 0 1 1\n0 .5 .5 .1 .1", "", ["polygon", "box"], id="seven and five"),
        pytest.param("0 0 0 1 0 1 1\n0 0 0 1 0 1 1 0 1", "", ["polygon"] * 2, id="seven and nine"),
        pytest.param("0 0 0 1 0 1 1 0 1\n", "task: segment\n", ["polygon"], id="our own key"),
        pytest.param("", "", [], id="nothing"),
        pytest.param(
            "0 .5 .5 .1 .1 .5 .5 0 0\n", "kpt_shape: [2, 2]\n", ["box", "keypoint"], id="no word"
        ),
        pytest.param(
            "0 .5 .5 .1 .1 .5 .5 2\n", "kpt_shape: [1, 3]\n", ["box", "keypoint"], id="pose"
        ),
    ],
)
def test_the_task_comes_from_data_yaml_or_from_the_lines(tmp_path, lines, head, shapes):
    folder = folder_of(tmp_path, lines, f"names: [person, dog]\n{head}")
    assert read_yolo(folder, sizes=SIZES).labels["shape"].tolist() == shapes


def test_numbers_outside_by_rounding_are_clipped(tmp_path):
    folder = folder_of(tmp_path, "0 0.5 0.5 1.0000001 1.000001\n")
    read = read_yolo(folder, sizes=SIZES)
    assert read.labels[BOX_COLUMNS].iloc[0].tolist() == [0, 0, 64, 48]


@pytest.mark.parametrize(
    ("lines", "head", "says"),
    [
        pytest.param("0 0 0 1 0 1 1 0\n0 0 0 1 0 1 1", "", r"a\.txt:1: .*`class x y x y", id="odd"),
        pytest.param("0 .5 .5 .1 .1 .1", "", "expected `class x y width height`", id="six"),
        pytest.param("0 .5 .5 .1 nan", "", r"a\.txt:1: ", id="no number"),
        pytest.param("0 .5 .5 .1 1.001", "", "outside 0 to 1", id="outside"),
        pytest.param("2 0 0 1 0 1 1", "", r"class 2, but data\.yaml has 0–1", id="class"),
        pytest.param("0 .5 .5 .1 .1", "task: obb", "expected `class x y x y x y x y`", id="task"),
        pytest.param("0 .5 .5 .1 .1 9 9", "kpt_shape: [1, 3]", "each keypoint", id="short"),
        pytest.param(
            "0 .5 .5 .1 .1 0 0 3", "kpt_shape: [1, 3]", "visibility is not 0, 1 or 2", id="visible"
        ),
        pytest.param("", "kpt_shape: [1, 4]", "kpt_shape is not", id="shape"),
        pytest.param("", "kpt_shape: [-1, 3]", "kpt_shape is not", id="negative"),
        pytest.param("", "kpt_shape: [1, 3]\nkpt_names: {0: [a]}", "each class", id="names"),
        pytest.param(
            "", "kpt_shape: [1, 3]\nkpt_names: [a]\nkpt_class_ids: [0]", "kpt_class_ids", id="ids"
        ),
        pytest.param("", f"class_ids: [{'9' * 5000}, 1]", "not YAML", id="digits"),
        pytest.param("", "a: " + "[" * 5000, "not YAML", id="nested"),
        pytest.param("", "class_ids: [-1, 1]", "class_ids does not match", id="negative id"),
        pytest.param("", "day: 2026-13-45", "not YAML", id="no such day"),
    ],
)
def test_an_error_names_the_line_and_the_problem(tmp_path, lines, head, says):
    folder = folder_of(tmp_path, lines, f"names: [person, dog]\n{head}\n")
    with pytest.raises(FormatError, match=says):
        read_yolo(folder, sizes=SIZES)


def test_a_requested_task_refuses_other_lines(tmp_path):
    folder = folder_of(tmp_path, "0 0 0 1 0 1 1\n")
    with pytest.raises(FormatError, match="Export boxes, not outlines"):
        read_yolo(folder, sizes=SIZES, task="detect")


def test_links_out_of_the_folder_are_refused(tmp_path):
    (tmp_path / "secret.txt").write_text("0 .5 .5 .1 .1\n")
    (tmp_path / "in").mkdir()
    folder = folder_of(tmp_path / "in", "")
    (folder / "labels" / "b.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(FormatError, match="a link out of"):
        read_yolo(folder, sizes=SIZES)


def test_links_to_folders_are_refused(tmp_path):
    folder = folder_of(tmp_path, "")
    (folder / "elsewhere").mkdir()
    (folder / "labels" / "train").symlink_to(folder / "elsewhere")
    with pytest.raises(FormatError, match="a link to a folder"):
        read_yolo(folder, sizes=SIZES)


def test_two_images_of_one_label_file_are_refused(tmp_path):
    folder = folder_of(tmp_path, "")
    (folder / "images").mkdir()
    for name in ("a.png", "a.jpg"):
        Image.new("L", (4, 4)).save(folder / "images" / name)
    with pytest.raises(FormatError, match=r"a\.jpg in the same folder has the same label file"):
        read_yolo(folder)


@pytest.mark.parametrize("place", ["strict", "annotations", "labels"])
def test_darknet_folders_are_read_as_datumaro_expects(public, place):
    read = read_yolo(public("formats_datumaro") / "yolo_dataset" / place)
    # On an image of 15 × 10, as x y width height: 0 2 4 2 of label 2 and 3 3 2 3 of label 4.
    assert read.ontology.names == [f"label_{number}" for number in range(10)]
    one = read.labels.head(2)
    assert one["class_name"].tolist() == ["label_2", "label_4"]
    expected = np.array([[0, 2, 4, 4], [3, 3, 5, 6]])
    assert one[BOX_COLUMNS].to_numpy() == pytest.approx(expected, abs=1e-4)
    splits = {"strict": ["train"], "annotations": [""], "labels": ["train", "val"]}
    assert read.images["split"].tolist() == splits[place]


def test_the_converters_folder_is_read_as_it_expects(public):
    folder = public("formats_ls_converter") / "data" / "test_import_yolo_data"
    read = read_yolo(folder)
    assert read.ontology.names == ["closed_door", "opened_door", "bus", "number"]
    lines = [path.read_text().splitlines() for path in (folder / "labels").glob("*.txt")]
    assert len(read.images) == 7
    assert len(read.labels) == sum(len(each) for each in lines)
    first = read.labels[read.labels["image_id"] == "img_1"].iloc[0]
    width, height = Image.open(folder / "images" / "img_1.jpg").size
    # 2 0.49765625 0.46200607902735563 0.9640625 0.8693009118541033
    assert first["class_name"] == "bus"
    assert first["x1"] == pytest.approx((0.49765625 - 0.9640625 / 2) * width)
    assert first["y2"] == pytest.approx((0.46200607902735563 + 0.8693009118541033 / 2) * height)


def test_hidden_points_are_written_as_json(tmp_path):
    read = round_trip(tmp_path, POSE, "pose")
    texts = read.labels.loc[read.labels["shape"] == "keypoint", "attributes"].tolist()
    assert [json.loads(each) for each in texts] == [{"hidden": 1}]
