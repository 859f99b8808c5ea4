"""Registry of formats: held content comes back, and losses are reported."""

import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.conversion import write_dataset
from annotation_platform.formats.known import FORMATS, find_format
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import LabelClass, Ontology
from tests.core.formats.every_shape import ALL, HEIGHT, WIDTH, assert_same_labels, datasets

NAMES = ["coco", "yolo-detect", "yolo-segment", "yolo-obb", "yolo-pose", "voc", "voc-one-based",
         "kitti", "createml", "csv", "csv-spreadsheet", "jsonl", "label-studio", "webdataset",
         "imagefolder"]  # fmt: skip
EXACT = {"csv", "csv-spreadsheet", "jsonl", "webdataset"}


def test_these_are_the_formats():
    assert list(FORMATS) == NAMES
    with pytest.raises(DataError, match=r"'cocoo' is not a format. Name one of coco, yolo-detect"):
        find_format("cocoo")


def test_a_format_is_imported_only_when_it_is_used():
    code = (
        "import sys; import annotation_platform.formats.known;"
        "print([name for name in sys.modules if name.startswith('annotation_platform.formats.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "coco" not in done.stdout
    assert "csv_jsonl" not in done.stdout


@pytest.fixture(scope="session")
def image_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("image") / "image.jpg"
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    return path


KINDS = [("box",), ("box", "choice"), ("choice",), ("polygon",), ("rotated_box",),
         ("box", "polygon", "mask", "keypoint"), ALL]  # fmt: skip


@st.composite
def many_datasets(draw):
    """Return a dataset; its classes are all there are, or just those used, by name from 0."""
    dataset = draw(datasets(shapes=draw(st.sampled_from(KINDS)), extra=draw(st.booleans())))
    # Nobody says the same of a whole image twice.
    again = dataset.labels.duplicated(["image_id", "class_name", "shape"])
    labels = dataset.labels[~(again & (dataset.labels["shape"] == "choice"))]
    dataset = Dataset(dataset.images, labels.reset_index(drop=True), dataset.ontology)
    names = sorted(set(labels["class_name"]))
    if set(labels["shape"]) <= {"keypoint"} or draw(st.booleans()):
        return dataset
    shapes = dataset.ontology.shape_of
    classes = [LabelClass(id=n, name=name, shape=shapes[name]) for n, name in enumerate(names)]
    return Dataset(dataset.images, dataset.labels, Ontology(classes=tuple(classes)))


def comes_back(read, written, *, ids):
    try:
        assert_same_labels(read, written)
    except AssertionError:
        return False
    if not ids:
        return read.ontology.id_of.keys() == written.ontology.id_of.keys()
    return read.ontology.id_of == written.ontology.id_of


@pytest.mark.parametrize("name", NAMES)
def test_held_content_comes_back_and_losses_are_reported(name, image_file, tmp_path_factory):
    @settings(
        max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(dataset=many_datasets())
    def check(dataset):
        known = find_format(name)
        out = tmp_path_factory.mktemp("out") / "written"
        image_files = dict.fromkeys(dataset.images["image_id"], image_file)
        written = write_dataset(dataset, out, write_as=known, image_files=image_files, link=True)
        assert list(written.losses) == known.losses(dataset)
        try:
            reading = known.read(out, None)
        except FormatError as error:
            # Some formats list no classes, so that nothing is left where no label is.
            if name in EXACT or not (written.losses or dataset.labels.empty):
                raise AssertionError(f"nothing was lost, and yet: {error}") from error
            return
        # Label Studio knows classes by name only, whatever their ids.
        back = comes_back(reading.dataset, dataset, ids=name != "label-studio")
        assert back == (written.losses == ()), written.losses
        if name in EXACT:
            assert back
            assert reading.dataset.ontology == dataset.ontology

    check()
