"""Pascal VOC: datasets come back to the last digit; errors name the file and the problem."""

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import write_files
from annotation_platform.formats.voc import (
    read_voc,
    read_voc_file,
    render_voc,
    voc_losses,
)
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import LabelClass, Ontology

NAMES = ["person", "Würfel", "猫 & <b>", "a: 'b' | #c", "#hash"]
ATTRIBUTES = [
    "",
    '{"difficult": 1, "truncated": 1}',
    '{"occluded": 1, "pose": "Left & <up>"}',
]


def millionths(low, high):
    return st.integers(low * 10**6, high * 10**6).map(lambda number: number / 10**6)


@st.composite
def datasets(draw, *, splits=("train", "val", "extra")):
    ids = draw(st.lists(st.integers(0, 50), min_size=1, max_size=5, unique=True))
    classes = [LabelClass(id=key, name=NAMES[number]) for number, key in enumerate(ids)]
    images, labels = [], []
    for number in range(draw(st.integers(0, 4))):
        name = f"{'sub/' * (number % 2)}Bild {number}"
        file_name = draw(st.sampled_from([f"JPEGImages/{name}.jpg", f"images/{name}.jpg"]))
        width, height = draw(st.integers(2, 30_000)), draw(st.integers(2, 30_000))
        images.append([name, file_name, draw(st.sampled_from(splits)), width, height])
        for _ in range(draw(st.integers(0, 3))):
            (x1, x2), (y1, y2) = draw(edges(width)), draw(edges(height))
            one = draw(st.sampled_from(classes))
            labels.append([name, one.name, x1, y1, x2, y2, draw(st.sampled_from(ATTRIBUTES))])
    return make(images, labels, Ontology(classes=tuple(classes)))


@st.composite
def edges(draw, side):
    """Two edges apart; whole pixels are as likely as fractions."""
    low = draw(st.integers(0, side - 1).map(float) | millionths(0, side - 1))
    return low, draw(st.just(low + 1) | millionths(side, side))


def make(images, labels, ontology):
    frame = pd.DataFrame(labels, columns=[*LABEL_COLUMNS, "attributes"])
    return Dataset(
        images=pd.DataFrame(images, columns=IMAGE_COLUMNS),
        labels=frame.astype(dict.fromkeys(BOX_COLUMNS, "float64")),
        ontology=ontology,
    )


def rows_of(dataset):
    columns = ["image_id", "class_name", *BOX_COLUMNS, "attributes"]
    return sorted(dataset.labels[columns].to_numpy().tolist())


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(dataset=datasets(), one_based=st.booleans())
def test_everything_comes_back_as_it_was_written(tmp_path_factory, dataset, one_based):
    folder = tmp_path_factory.mktemp("voc")
    write_files(render_voc(dataset, one_based=one_based), folder)
    read = read_voc(folder, one_based=one_based)
    assert read.problems == ()
    assert read.dataset.ontology.id_of == dataset.ontology.id_of
    columns = ["image_id", "split", "width", "height"]
    expected = dataset.images.sort_values("image_id")
    assert read.dataset.images[columns].to_dict("records") == expected[columns].to_dict("records")
    # There are no images: where they would be is not known.
    names = [name.removeprefix("JPEGImages/") for name in expected["file_name"]]
    assert read.dataset.images["file_name"].tolist() == names
    # A copy may be written of two equal boxes; their number is equal too.
    written = [
        [*row[:2], *(round(edge, 6) for edge in row[2:6]), row[6]] for row in rows_of(dataset)
    ]
    assert rows_of(read.dataset) == written


@given(dataset=datasets(), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_change_a_byte(dataset, seed):
    shuffled = Dataset(
        dataset.images.sample(frac=1.0, random_state=seed),
        dataset.labels.sample(frac=1.0, random_state=seed),
        Ontology(classes=dataset.ontology.classes[::-1]),
    )
    assert render_voc(shuffled) == render_voc(dataset)


PIXEL = make(
    [["a", "JPEGImages/a.png", "train", 20, 10], ["b", "JPEGImages/b.png", "", 20, 10]],
    [["a", "dog", 0, 0, 1, 1, ""], ["a", "dog", 2.5, 3, 4, 10, '{"truncated": 1}']],
    Ontology.from_names(["dog", "cat"]),
)


def test_the_first_pixel_is_0_0_1_1_or_counted_from_one_1_1_1_1():
    edges = render_voc(PIXEL)["Annotations/a.xml"].decode()
    counted = render_voc(PIXEL, one_based=True)["Annotations/a.xml"].decode()
    for text, numbers in ((edges, "0 0 1 1"), (counted, "1 1 1 1")):
        x1, y1, x2, y2 = numbers.split()
        compact = "".join(text.split())
        assert f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>" in compact
    assert "<xmin>2.500000</xmin>" in edges
    assert "<truncated>1</truncated>" in edges
    assert "<filename>a.png</filename>" in edges


def test_images_without_a_box_and_classes_without_one_are_kept(tmp_path):
    write_files(render_voc(PIXEL), tmp_path)
    assert "<object>" not in (tmp_path / "Annotations" / "b.xml").read_text()
    read = read_voc(tmp_path).dataset
    assert read.images["image_id"].tolist() == ["a", "b"]
    assert read.ontology.names == ["dog", "cat"]
    assert (tmp_path / "ImageSets" / "Main" / "train.txt").read_text() == "a\n"


def test_an_image_in_its_folder_is_named_by_its_path(tmp_path):
    write_files(render_voc(PIXEL), tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    Image.new("L", (20, 10)).save(tmp_path / "JPEGImages" / "a.png")
    assert read_voc(tmp_path).dataset.images["file_name"].tolist() == ["JPEGImages/a.png", "b.png"]


def test_a_box_counted_from_one_may_be_one_pixel_wide(tmp_path):
    """As edges, the same box has no area and is reported."""
    write_files(render_voc(PIXEL, one_based=True), tmp_path)
    assert len(read_voc(tmp_path, one_based=True).dataset.labels) == 2
    assert "object 1 (dog) has no area" in read_voc(tmp_path).problems[0]


def test_losses_are_reported():
    labels = PIXEL.labels.assign(
        shape=["polygon", "mask"], instance="one", attributes=['{"crowd": 1, "pose": "Left"}', ""]
    )
    assert voc_losses(PIXEL) == []
    assert voc_losses(Dataset(PIXEL.images, labels, PIXEL.ontology)) == [
        "1 polygon becomes its enclosing box",
        "1 mask becomes its enclosing box",
        "1 label loses its crowd",
        "2 labels become objects of their own",
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"image_id": "../a"}, "not a file name", id="way out"),
        pytest.param({"image_id": "a\nb"}, "not a file name", id="line"),
        pytest.param({"file_name": "a\x01.png"}, "a character that XML lacks", id="control"),
        pytest.param({"image_id": "b"}, "'b' is repeated", id="twice"),
    ],
)
def test_a_name_that_cannot_be_written_is_refused(change, says):
    images = PIXEL.images.copy()
    images.loc[0, list(change)] = list(change.values())
    with pytest.raises(DataError, match=says):
        render_voc(Dataset(images, PIXEL.labels.iloc[:0], PIXEL.ontology))


FILE = """<annotation><filename>{name}</filename><size><width>20</width><height>10</height></size>
<object><name>dog</name>{more}<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax>
</bndbox></object></annotation>"""
BOMB = (
    '<!DOCTYPE a [<!ENTITY b "x">'
    + "".join(f'<!ENTITY b{n} "{f"&b{n - 1 or str()};" * 9}">' for n in range(1, 9))
    + "]><annotation>&b8;</annotation>"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param(FILE.format(name="../../x.png", more=""), "leads out of the folder", id=".."),
        pytest.param(FILE.format(name="/etc/x.png", more=""), "is absolute", id="absolute"),
        pytest.param(FILE.format(name="..\\x.png", more=""), "leads out", id="backslash"),
        pytest.param(FILE.format(name="C:\\x.png", more=""), "is absolute", id="drive"),
        pytest.param(BOMB, "entities", id="bomb"),
        pytest.param(
            FILE.format(name="a.png", more="<difficult>very</difficult>"),
            "object 1 has <difficult> 'very'",
            id="flag",
        ),
        pytest.param("<annotation></annotation>", "no size, and no image", id="no size"),
        pytest.param(
            FILE.format(name="a.png", more="").replace(">8<", ">nan<"), "object 1 has no", id="nan"
        ),
    ],
)
def test_an_error_in_a_file_names_the_problem(tmp_path, text, says):
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(FormatError, match=says):
        read_voc(tmp_path)


def test_an_error_in_a_folder_names_the_problem(tmp_path):
    write_files(render_voc(PIXEL), tmp_path)
    sets = tmp_path / "ImageSets" / "Main"
    (sets / "val.txt").write_text("\na\n")
    with pytest.raises(FormatError, match=r"val\.txt:2: image 'a' is also in the split train"):
        read_voc(tmp_path)
    (sets / "val.txt").unlink()
    (tmp_path / "labelmap.txt").write_text("cat:::\n")
    with pytest.raises(FormatError, match="lacks the class 'dog'"):
        read_voc(tmp_path)
    (tmp_path / "labelmap.txt").unlink()
    (tmp_path / "Annotations" / "c.xml").symlink_to("/etc/passwd")
    with pytest.raises(FormatError, match="a link out of"):
        read_voc(tmp_path)
    with pytest.raises(FormatError, match="no VOC file with an object"):
        read_voc(sets)


def test_datumaros_folders_are_read_as_it_expects(public):
    folder = public("formats_datumaro") / "voc_dataset"
    read = read_voc(folder / "voc_dataset1").dataset
    images = read.images[["image_id", "split", "width", "height"]].to_numpy().tolist()
    # One has an image and no file, and is of the test split.
    assert images == [["2007_000001", "train", 20, 10], ["2007_000002", "test", 20, 10]]
    labels = read.labels[["class_name", *BOX_COLUMNS, "attributes"]].to_numpy().tolist()
    assert labels == [
        ["cat", 1, 2, 3, 4, '{"truncated": 1}'],
        ["person", 4, 5, 6, 7, ""],
    ]
    second = folder / "voc_dataset2"
    file = read_voc_file(second / "Annotations" / "a.xml")
    assert [dict(box) for box in file.boxes] == [
        {"class_name": "background", "x1": 1, "y1": 2, "x2": 4, "y2": 6,
         "attributes": '{"occluded": 1}'}
    ]  # fmt: skip
    with pytest.raises(FormatError, match=r"no size, and no image '@\.jpg'"):
        read_voc(second)
