"""CSV and JSON Lines: datasets come back complete; no spreadsheet cell is a formula."""

import csv
import io
import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.csv_jsonl import (
    COLUMNS,
    read_csv,
    read_jsonl,
    render_csv,
    render_jsonl,
)
from annotation_platform.formats.files import write_files
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import LabelClass, Ontology, RetiredClass
from annotation_platform.schema.shapes import Label
from tests.core.formats.every_shape import ONTOLOGY, datasets, row

WHOLE_ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=7, name="Würfel", color="#ff0000", was=("cube",)),
        LabelClass(id=2, name="猫"),
        LabelClass(id=3, name="nose", shape="keypoint"),
        LabelClass(id=4, name="eye", shape="keypoint"),
        LabelClass(id=9, name="night", shape="choice"),
    ),
    choose="many",
    guidelines="Tight.\nBoxes.",
    retired=(RetiredClass(id=11, name="dice", into=(7,)),),
)
FORMS = {
    "csv": (lambda dataset, folder: write_files(render_csv(dataset), folder), read_csv),
    "spreadsheet": (
        lambda dataset, folder: write_files(render_csv(dataset, spreadsheet=True), folder),
        read_csv,
    ),
    "jsonl": (lambda dataset, folder: write_files(render_jsonl(dataset), folder), read_jsonl),
}


def as_records(dataset):
    """Return images and labels as sorted records; a missing box is None."""
    labels = dataset.labels.astype(object).where(dataset.labels.notna(), None)
    return (
        dataset.images.sort_values("image_id").to_dict("records"),
        sorted(labels.to_dict("records"), key=repr),
    )


# Characters with a meaning in spreadsheets, CSV, JSON and lines of text; and any other.
NASTY = st.text(
    st.sampled_from("=+-@\t\r\n\"',;|'\u2028\x0b\x1c\0＝ é猫\U0001f600a1")
    | st.characters(exclude_categories=["Cs"]),
    max_size=8,
)


@st.composite
def nasty_datasets(draw):
    """Return a dataset whose names and attributes contain any text."""
    dataset = draw(datasets())
    images = dataset.images
    names = [f"{n}{draw(NASTY)}".replace("\0", "") for n in range(len(images))]
    labels = dataset.labels
    texts = [json.dumps({"note": draw(NASTY)}, ensure_ascii=False) if draw(st.booleans()) else text
            for text in labels["attributes"]]  # fmt: skip
    instances = [draw(NASTY) for _ in range(len(labels))]
    new = LabelClass(id=12, name=draw(NASTY.filter(bool)) + "!")
    ontology = WHOLE_ONTOLOGY.model_copy(update={"classes": (*WHOLE_ONTOLOGY.classes, new)})
    classes = [new.name if draw(st.booleans()) else name for name in labels["class_name"]]
    return Dataset(
        images.assign(file_name=[f"a/{name}" for name in names]),
        labels.assign(attributes=texts, instance=instances, class_name=classes),
        ontology,
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dataset=nasty_datasets(), seed=st.integers(0, 99))
def test_everything_comes_back_and_each_form_gives_the_bytes_of_the_others(
    tmp_path_factory, dataset, seed
):
    folder = tmp_path_factory.mktemp("rows")
    shuffled = Dataset(
        dataset.images.sample(frac=1.0, random_state=seed),
        dataset.labels.sample(frac=1.0, random_state=seed),
        dataset.ontology,
    )
    assert render_csv(shuffled) == render_csv(dataset)
    for name, (write, read) in FORMS.items():
        write(dataset, folder / name)
        back = read(folder / name)
        assert as_records(back) == as_records(dataset)
        assert back.ontology == dataset.ontology
        assert render_csv(back) == render_csv(dataset)
        assert render_jsonl(back) == render_jsonl(dataset)


def dataset_of(*labels, ontology=ONTOLOGY, **image):
    defaults = {"image_id": "a", "file_name": "a.png", "split": "train", "width": 60, "height": 40}
    frame = pd.DataFrame([row("a", label) for label in labels] or [row("a", Label.choice("night"))])
    frame = frame.astype(dict.fromkeys(BOX_COLUMNS, "float64")).iloc[: len(labels)]
    return Dataset(pd.DataFrame([defaults | image]), frame, ontology)


def test_each_label_has_a_row_and_so_has_an_image_without_labels():
    two = dataset_of(Label.box("猫", 1, 2, 3.5, 4), Label.choice("night"))
    empty = dataset_of(image_id="b", file_name="", split="")
    both = Dataset(pd.concat([two.images, empty.images]), two.labels, ONTOLOGY)
    assert render_csv(both)["labels.csv"].decode().split("\r\n") == [
        "image_id,file_name,split,width,height,class_id,class_name,shape,x1,y1,x2,y2,"
        "geometry,instance,attributes",
        "a,a.png,train,60,40,2,猫,box,1.0,2.0,3.5,4.0,,,",
        "a,a.png,train,60,40,9,night,choice,,,,,,,",
        "b,,,60,40,,,,,,,,,,",
        "",
    ]
    lines = render_jsonl(both)["labels.jsonl"].decode().splitlines()
    assert [json.loads(line) for line in lines[1:]] == [
        {"image_id": "a", "file_name": "a.png", "split": "train", "width": 60, "height": 40,
         "class_id": 9, "class_name": "night", "shape": "choice"},
        {"image_id": "b", "file_name": "", "split": "", "width": 60, "height": 40},
    ]  # fmt: skip


def test_no_spreadsheet_cell_begins_a_formula_and_the_exact_form_is_unchanged():
    bad = "=HYPERLINK(0)"
    ontology = Ontology.from_names([bad, "'=quoted"])
    dataset = dataset_of(
        Label.box(bad, -1, 2, 3, 4), Label.box("'=quoted", 0, 0, 1, 1),
        ontology=ontology, image_id="@SUM", file_name="+a.png", split="-x",
    )  # fmt: skip
    labels = dataset.labels.assign(image_id="@SUM", instance=["\tx", "＝x"])
    dataset = Dataset(dataset.images, labels, ontology)
    text = render_csv(dataset, spreadsheet=True)["labels.csv"].decode("utf-8-sig")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert not [cell for cells in rows for cell in cells if cell[:1] in set("=+-@\t\r\n＝＋－＠")]
    by_class = {cells[6]: cells for cells in rows[1:]}
    assert by_class[f"'{bad}"][-1] == "image_id file_name split class_name x1 instance"
    # A cell that began with a quotation mark is not listed as escaped, and keeps it.
    assert by_class["'=quoted"][-1] == "image_id file_name split instance"
    exact = list(csv.reader(io.StringIO(render_csv(dataset)["labels.csv"].decode(), newline="")))
    assert {cells[6] for cells in exact[1:]} == {bad, "'=quoted"}


def test_without_an_ontology_file_classes_are_those_of_the_rows(tmp_path):
    write_files(render_csv(dataset_of(Label.box("猫", 1, 2, 3, 4))), tmp_path)
    (tmp_path / "ontology.json").unlink()
    assert read_csv(tmp_path / "labels.csv").ontology.id_of == {"猫": 2}


def test_thousands_of_points_in_a_cell_are_read(tmp_path):
    outline = [float(n % 997) for n in range(60_000)]
    dataset = dataset_of(Label.polygon("猫", [outline]))
    write_files(render_csv(dataset), tmp_path)
    usual = csv.field_size_limit()
    assert as_records(read_csv(tmp_path)) == as_records(dataset)
    assert csv.field_size_limit() == usual


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        pytest.param({"shape": "blob"}, "is not a label shape", id="shape"),
        pytest.param({"x1": float("nan")}, "expected four numbers", id="nowhere"),
        pytest.param({"geometry": "[1]"}, "geometry in addition to its box", id="geometry"),
        pytest.param({"attributes": "[1]"}, "not a JSON object", id="attributes"),
        pytest.param({"attributes": '{"a": NaN}'}, "not JSON", id="NaN"),
        pytest.param({"class_name": "dog"}, "not in the ontology", id="class"),
        pytest.param({"attributes": '{"a": "\\ud800"}'}, "not JSON", id="half a sign"),
    ],
)
def test_an_unreadable_dataset_is_not_written(labels, says):
    dataset = dataset_of(Label.box("猫", 1, 2, 3, 4))
    changed = Dataset(dataset.images, dataset.labels.assign(**labels), ONTOLOGY)
    for render in (render_csv, render_jsonl):
        with pytest.raises(DataError, match=says):
            render(changed)


GOOD = {"image_id": "a", "file_name": "a.png", "split": "", "width": 9, "height": 9,
        "class_id": 1, "class_name": "cat", "shape": "box",
        "x1": 1, "y1": 2, "x2": 3, "y2": 4}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"file_name": "../a.png"}, "leads out of the folder", id="way out"),
        pytest.param({"file_name": "/etc/passwd"}, "is absolute", id="absolute"),
        pytest.param({"image_id": "../a"}, "not a file name", id="id"),
        pytest.param({"split": "../x"}, "not a folder name", id="split"),
        pytest.param({"width": -1}, "the size", id="size"),
        pytest.param({"class_id": None}, "without class_id", id="no id"),
        pytest.param({"shape": "blob"}, "is not a label shape", id="shape"),
        pytest.param({"x1": 9}, "expected four numbers", id="inside out"),
        pytest.param({"x1": "one"}, "the box", id="text"),
        pytest.param({"x1": float("nan")}, "the box", id="NaN"),
        pytest.param({"x1": 10**400}, "the box", id="huge"),
        pytest.param({"shape": "polygon", "geometry": [[1, 2]]}, "has the geometry", id="line"),
        pytest.param(
            {"shape": "mask", "geometry": {"size": [10**9, 10**9], "counts": "1"}},
            "has the geometry",
            id="bomb of a mask",
        ),
        pytest.param({"colour": "red"}, "unknown", id="key"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, change, says):
    record = {**GOOD, **change}
    good = {**GOOD, "image_id": "b"}
    lines = tmp_path / "labels.jsonl"
    lines.write_text(f"{json.dumps(good)}\n{json.dumps(record)}\n")
    with pytest.raises(FormatError, match=rf"labels.jsonl:2: .*({says})"):
        read_jsonl(tmp_path)
    table = tmp_path / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, *(change.keys() - set(COLUMNS))])
        writer.writeheader()
        for one in (good, record):
            value = one.get("geometry")
            writer.writerow({**one, "geometry": json.dumps(value) if value else ""})
    with pytest.raises(FormatError, match=rf"labels.csv:[123]: .*({says}|without class_id)"):
        read_csv(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param('{"image_id": "a", "image_id": "b"}', "a key is repeated", id="twice"),
        pytest.param("[" * 100_000, "not JSON that can be used", id="deep"),
        pytest.param("{", "not JSON that can be used", id="broken off"),
        pytest.param("3", "not an object", id="number"),
        pytest.param('{"image_id": "\\ud800"}', "not JSON that can be used", id="half a sign"),
        pytest.param("", "no class in the file", id="empty"),
        pytest.param(
            f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, 'width': 8})}",
            "differs from an earlier row",
            id="two sizes",
        ),
        pytest.param(
            f"{json.dumps(GOOD)}\n{json.dumps({**GOOD, 'class_id': 2})}",
            "class name used twice|used twice",
            id="two ids",
        ),
    ],
)
def test_invalid_lines_are_refused(tmp_path, text, says):
    (tmp_path / "labels.jsonl").write_text(text)
    with pytest.raises(FormatError, match=says):
        read_jsonl(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("image_id,what\n", "unknown column", id="column"),
        pytest.param("image_id\n", "no column", id="missing"),
        pytest.param(f"{','.join(COLUMNS)}\na,b\n", "2 cells, expected 15", id="short"),
        pytest.param(f'{",".join(COLUMNS)}\n"a"b,\n', "not CSV", id="quotes"),
        pytest.param(
            f"{','.join(COLUMNS)},escaped\na,a.png,,9,9{',' * 11}image_id\n",
            "listed as escaped, but has no prefix",
            id="escaped",
        ),
    ],
)
def test_invalid_tables_are_refused(tmp_path, text, says):
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(FormatError, match=says):
        read_csv(tmp_path)


def test_links_out_of_the_folder_are_refused(tmp_path):
    (tmp_path / "labels.csv").symlink_to("/etc/passwd")
    with pytest.raises(FormatError, match="a link out of"):
        read_csv(tmp_path)
