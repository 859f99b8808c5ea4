"""Hugging Face imagefolder: metadata or class folders; boxes, choices, ids and sizes come back."""

import json

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import write_files
from annotation_platform.formats.imagefolder import (
    imagefolder_losses,
    imagefolder_paths,
    is_one_choice,
    read_imagefolder,
    render_imagefolder,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label
from tests.core.formats.every_shape import ONTOLOGY, datasets
from tests.core.formats.test_csv_jsonl import as_records, dataset_of


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dataset=datasets(shapes=("box", "choice"), extra=False), seed=st.integers(0, 99))
def test_boxes_and_choices_come_back(tmp_path_factory, dataset, seed):
    folder = tmp_path_factory.mktemp("imagefolder")
    paths = imagefolder_paths(dataset)
    dataset = Dataset(dataset.images.assign(file_name=paths), dataset.labels, dataset.ontology)
    assert imagefolder_losses(dataset) == []
    write_files(render_imagefolder(dataset), folder)
    shuffled = Dataset(
        dataset.images.sample(frac=1.0, random_state=seed),
        dataset.labels.sample(frac=1.0, random_state=seed),
        dataset.ontology,
    )
    assert render_imagefolder(shuffled) == render_imagefolder(dataset)
    if len(dataset.images):
        back = read_imagefolder(folder)
        assert as_records(back) == as_records(dataset)
        assert back.ontology == dataset.ontology


def chosen(*choices, splits=None, ontology=None):
    """Return a dataset of images with a choice each."""
    ids = [f"{number:02d}" for number in range(len(choices))]
    images = pd.DataFrame({"image_id": ids, "file_name": [f"{name}.png" for name in ids],
                           "split": splits or [""] * len(ids)})  # fmt: skip
    images = images.assign(width=6, height=4)
    labels = pd.DataFrame({"image_id": ids, "class_name": choices, "shape": "choice"})
    labels = labels.assign(**dict.fromkeys(["x1", "y1", "x2", "y2"], float("nan")))
    return Dataset(images, labels, ontology or Ontology.from_names(sorted(set(choices))))


@pytest.mark.parametrize("splits", [None, ["train", "train", "val"]])
def test_one_choice_per_image_becomes_class_folders_and_comes_back(tmp_path, splits):
    dataset = chosen("night", "Tag 1", "night", splits=splits)
    assert is_one_choice(dataset)
    paths = imagefolder_paths(dataset, class_folders=True)
    assert paths[1] == f"{'train/' if splits else ''}Tag 1/01.png"
    write_files(render_imagefolder(dataset, class_folders=True), tmp_path)
    for place in paths:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4)).save(tmp_path / place)
    back = read_imagefolder(tmp_path)
    assert as_records(back) == as_records(
        Dataset(dataset.images.assign(file_name=paths), dataset.labels, dataset.ontology)
    )
    (tmp_path / "ontology.json").unlink()
    assert read_imagefolder(tmp_path).ontology.id_of == {"Tag 1": 0, "night": 1}


def test_class_folders_need_one_choice_per_image():
    assert not is_one_choice(chosen(ontology=ONTOLOGY))
    assert not is_one_choice(chosen("a/b"))
    assert not is_one_choice(chosen("train", "val", splits=["train", "val"]))
    assert not is_one_choice(chosen("a", "b", splits=["train", ""]))
    two = chosen("a", "b")
    assert not is_one_choice(Dataset(two.images, two.labels.assign(image_id="00"), two.ontology))
    with pytest.raises(DataError, match="class folders hold one choice per image"):
        render_imagefolder(dataset_of(Label.box("猫", 1, 2, 3, 4)), class_folders=True)


def test_a_line_has_the_form_that_hugging_face_reads():
    dataset = dataset_of(Label.box("猫", 1, 2, 4, 8), Label.choice("night"))
    (path, data), _ = render_imagefolder(dataset).items()
    assert path == "train/metadata.jsonl"
    assert json.loads(data) == {
        "file_name": "a.png",
        "image_id": "a",
        "width": 60,
        "height": 40,
        "objects": {"bbox": [[1, 2, 3, 6]], "categories": ["猫"], "ids": [2]},
        "choices": ["night"],
    }


def test_losses_are_reported():
    dataset = dataset_of(
        Label.polygon("猫", [[0, 0, 4, 0, 0, 4]]), Label.keypoint("nose", 1, 1),
        Label.box("猫", 0, 0, 1, 1),
    )  # fmt: skip
    labels = dataset.labels.assign(instance="one", attributes='{"crowd": 1}')
    assert imagefolder_losses(Dataset(dataset.images, labels, ONTOLOGY)) == [
        "1 polygon becomes its enclosing box",
        "1 keypoint is left out",
        "2 labels lose their crowd",
        "2 labels become objects of their own",
    ]


def test_others_metadata_are_read_with_numbers_as_categories(tmp_path):
    """The example of Hugging Face's own guide, without sizes."""
    (tmp_path / "train").mkdir()
    entry = {"file_name": "0001.png", "objects": {"bbox": [[3, 1, 7, 5]], "categories": [4]}}
    (tmp_path / "train" / "metadata.jsonl").write_text(json.dumps(entry))
    Image.new("L", (30, 20)).save(tmp_path / "train" / "0001.png")
    back = read_imagefolder(tmp_path)
    assert back.images.to_numpy().tolist() == [["0001", "train/0001.png", "train", 30, 20]]
    assert back.ontology.id_of == {"4": 4}
    assert back.labels[["x1", "y1", "x2", "y2"]].to_numpy().tolist() == [[3, 1, 10, 6]]


def test_an_image_without_a_file_name_is_refused():
    with pytest.raises(DataError, match="no file name with an extension"):
        render_imagefolder(dataset_of(file_name=""))


GOOD = {"file_name": "a.png", "width": 9, "height": 9,
        "objects": {"bbox": [[1, 2, 3, 4]], "categories": ["cat"], "ids": [1]}}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"file_name": "../a.png"}, "leads out of the folder", id="way out"),
        pytest.param({"file_name": "/a.png"}, "is absolute", id="absolute"),
        pytest.param({"image_id": "../a"}, "leads out", id="id"),
        pytest.param({"image_id": 3}, "image_id that is not a string", id="number as id"),
        pytest.param({"file_name": 3}, "no file_name", id="no name"),
        pytest.param({"width": None, "height": None}, "no image", id="no size"),
        pytest.param({"width": -1}, "the size", id="size"),
        pytest.param({"objects": [3]}, "objects that are not an object, or choices", id="objects"),
        pytest.param({"choices": [3]}, "objects that are not an object, or choices", id="choices"),
        *(
            pytest.param({"objects": {**GOOD["objects"], **change}}, says, id=f"{change}")
            for change, says in [
                ({"bbox": [[1, 2, 3]]}, "four numbers"),
                ({"bbox": [[1, 2, -3, 4]]}, "four numbers"),
                ({"bbox": [[1, 2, 10**400, 4]]}, "four numbers"),
                ({"bbox": [["1", 2, 3, 4]]}, "four numbers"),
                ({"bbox": 3}, "four numbers"),
                ({"bbox": []}, "four numbers"),
                ({"categories": [""]}, "four numbers"),
                ({"categories": 3}, "four numbers"),
                ({"ids": ["1"]}, "not whole numbers"),
                ({"ids": [1, 2]}, "four numbers"),
            ]
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, says):
    (tmp_path / "metadata.jsonl").write_text(f"{json.dumps({**GOOD, **change})}\n")
    with pytest.raises(FormatError, match=rf"metadata.jsonl:1: .*{says}"):
        read_imagefolder(tmp_path)


def test_links_and_other_folders_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"no metadata\.jsonl, and no image"):
        read_imagefolder(tmp_path)
    (tmp_path / "metadata.jsonl").write_text(json.dumps({**GOOD, "width": 0, "height": 0}))
    (tmp_path / "a.png").symlink_to("/etc/passwd")
    with pytest.raises(FormatError, match="a link out of"):
        read_imagefolder(tmp_path)
    (tmp_path / "cat").symlink_to("/etc")
    with pytest.raises(FormatError, match="a link"):
        read_imagefolder(tmp_path)
