"""A further shape is a module and a line in two tables: it then goes through the whole platform.

``circle.py`` is the module. In the platform it would be ``schema/shapes/circle.py``, with a line in
``schema/shapes/__init__.py``; its codec a part of
``formats/label_studio/region_codecs.py``.
"""

import io
import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydantic import ValidationError

from annotation_platform.consensus.fusion import clip_region
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.curation.gates import boxes_outside_image
from annotation_platform.errors import FormatError, SettingsError
from annotation_platform.formats.conversion import convert, write_dataset
from annotation_platform.formats.known import FORMATS
from annotation_platform.formats.label_studio import region_codecs
from annotation_platform.formats.label_studio.results import read_result, write_result
from annotation_platform.formats.outlines import one_outline, smallest_rotated_box
from annotation_platform.labeling.backends.label_studio.interface import labeling_config
from annotation_platform.labeling.backends.vendor.readme import readme
from annotation_platform.reporting.previews import thumbnail
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import SHAPES, Label, area_of, register
from annotation_platform.schema.shapes.overlap import labels_of, overlap_matrix
from annotation_platform.schema.tables import ConsensusLabels
from annotation_platform.versioning.reuse import render_shards, shards_of
from tests.core.formats.overlap import area_overlap
from tests.core.schema.circle import CODEC, Circle

WIDTH, HEIGHT = 80, 60
SIZE = (WIDTH, HEIGHT)
IMAGE = "a" * 64
NAMES = ["shape", "class_name", "x1", "y1", "x2", "y2", "geometry"]


@pytest.fixture(autouse=True)
def circles(monkeypatch):
    """Register the shape, and restore the registries after the test."""
    monkeypatch.setitem(SHAPES, "circle", Circle())
    monkeypatch.setitem(region_codecs.CODECS, "circle", CODEC)


def circle(x, y, radius, name="ball"):
    return SHAPES["circle"].label(name, x, y, radius)


def ontology():
    return Ontology(classes=(LabelClass(id=0, name="ball", shape="circle"),))


def dataset(*labels):
    rows = [{"image_id": "one", **{name: getattr(each, name) for name in NAMES}} for each in labels]
    images = [{"image_id": "one", "file_name": "one.jpg", "split": "train"}]
    return Dataset(
        images=pd.DataFrame(images).assign(width=WIDTH, height=HEIGHT),
        labels=pd.DataFrame(rows),
        ontology=ontology(),
    )


def test_a_name_belongs_to_one_shape():
    with pytest.raises(ValueError, match="two shapes of the name 'circle'"):
        register(Circle())


def test_a_class_of_the_ontology_can_have_it_and_no_unknown_one():
    assert ontology().areas == ["ball"]
    with pytest.raises(ValidationError, match="'blob' is no shape of a class; expected box,"):
        LabelClass(id=0, name="ball", shape="blob")


def test_it_has_an_enclosing_box_an_area_and_an_overlap():
    one, apart, half = circle(20, 20, 10), circle(60, 40, 10), circle(20, 20, 5)
    assert (one.x1, one.y1, one.x2, one.y2) == (10, 10, 30, 30)
    assert area_of(one).area == pytest.approx(math.pi * 100, rel=1e-3)
    overlap = overlap_matrix([one], [one, apart, half, Label.box("ball", 10, 10, 30, 30)],
                             image_size=SIZE)  # fmt: skip
    assert overlap.tolist() == [[pytest.approx(1), 0, pytest.approx(0.25), 0]]


def test_the_consensus_of_three_annotators_is_the_median_circle():
    drawn = {
        "ada": circle(20, 20, 10),
        "ben": circle(21, 20, 11),
        "cyd": circle(20, 22, 10),
    }
    same = {"round_id": "round-0001", "task_id": f"round-0001/boxes/{IMAGE}", "image_id": IMAGE}
    rows = [
        {**same, "annotator": who, **{name: getattr(label, name) for name in NAMES}}
        for who, label in drawn.items()
    ]
    consensus = resolve_consensus(pd.DataFrame(rows), ontology=ontology())
    (label,) = labels_of(consensus.labels)
    assert label == circle(20, 20, 10)
    assert consensus.labels["support"].tolist() == [3]
    # The table's column knows the name: nothing else had to.
    assert ConsensusLabels.fits(consensus.labels)


def test_at_the_edge_of_an_image_it_stays_whole_while_its_centre_is_inside():
    assert clip_region(circle(2, 20, 10), SIZE) == circle(2, 20, 10)
    assert clip_region(circle(-2, 20, 10), SIZE) is None
    table = pd.DataFrame(
        [
            {"label_id": each.geometry, "image_id": IMAGE} | {n: getattr(each, n) for n in NAMES}
            for each in (circle(2, 20, 10), circle(-2, 20, 10))
        ]
    )
    sizes = pd.DataFrame({"image_id": [IMAGE], "width": [WIDTH], "height": [HEIGHT]})
    assert boxes_outside_image(table, sizes) == [circle(-2, 20, 10).geometry]


def test_label_studio_shows_stores_and_returns_it():
    assert '<EllipseLabels name="circle"' in labeling_config(ontology())
    assert "a circle: type ellipselabels" in readme("package", ontology(), "label-studio")
    labels = [circle(20, 15, 10), circle(60, 30, 5)]
    regions = write_result(labels, WIDTH, HEIGHT)
    assert [region["type"] for region in regions] == ["ellipselabels"] * 2
    back = read_result(regions, width=WIDTH, height=HEIGHT, ontology=ontology())
    assert (back.labels, back.problems, back.refused) == (labels, [], 0)


def test_without_a_codec_the_project_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.delitem(region_codecs.CODECS, "circle")
    for ask in (lambda: labeling_config(ontology()), lambda: readme("p", ontology(), "coco")):
        with pytest.raises(
            SettingsError, match="class 'ball' is a circle, and Label Studio has only"
        ):
            ask()


def test_a_preview_shows_its_outline():
    table = pd.DataFrame([{name: getattr(circle(40, 30, 20), name) for name in NAMES}])
    black = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    drawn = np.asarray(thumbnail(black, table, {"ball": "#ff0000"}, side=WIDTH))
    assert drawn[30, 60].tolist() == drawn[10, 40].tolist() == [255, 0, 0]
    assert not drawn[10:13, 20:23].any()  # the corner of its enclosing box


def test_it_becomes_any_other_area():
    one = circle(20, 20, 10)
    outline = one_outline(one, width=WIDTH, height=HEIGHT)
    polygon = Label.polygon(one.class_name, [outline.ravel().tolist()])
    assert area_overlap(one, polygon) == pytest.approx(0.98, abs=0.03)
    around = smallest_rotated_box(one)
    assert around.shape == "rotated_box"
    assert area_overlap(one, around) == pytest.approx(0.785, abs=0.03)


@pytest.mark.parametrize("name", ["csv", "csv-spreadsheet", "jsonl"])
def test_formats_that_hold_every_shape_return_it_exactly(tmp_path, name):
    known = FORMATS[name]
    assert "circle" in known.holds
    written = write_dataset(dataset(circle(20, 20, 10)), tmp_path / "out", write_as=known,
                            image_files={})  # fmt: skip
    assert written.losses == ()
    back = known.read(written.folder, None).dataset
    assert labels_of(back.labels) == [circle(20, 20, 10)]
    assert back.ontology.shape_of == {"ball": "circle"}


def test_a_geometry_that_is_none_of_its_own_is_refused(tmp_path):
    write_dataset(dataset(circle(20, 20, 10)), tmp_path / "out", write_as=FORMATS["jsonl"],
                  image_files={})  # fmt: skip
    file = tmp_path / "out" / "labels.jsonl"
    file.write_text(file.read_text().replace("[20.0, 20.0, 10.0]", "[20.0, 20.0]"))
    with pytest.raises(FormatError, match="a 'circle' has the geometry"):
        FORMATS["jsonl"].read(file, None)


def test_the_parquet_shards_of_a_version_hold_it():
    label = circle(20, 20, 10)
    frame = pd.DataFrame([{"image_id": IMAGE} | {name: getattr(label, name) for name in NAMES}])
    (data,) = render_shards(frame, shards_of(frame)).values()
    back = pq.read_table(io.BytesIO(data)).to_pandas()
    assert labels_of(back) == [label]


WITHOUT = sorted(set(FORMATS) - {"csv", "csv-spreadsheet", "jsonl", "webdataset"})
BECOMES = {
    "coco": "1 circle becomes a polygon",
    "yolo-segment": "1 circle becomes a polygon",
    "yolo-obb": "1 circle becomes the smallest rotated box around it",
}


@pytest.mark.parametrize("name", WITHOUT)
def test_formats_that_do_not_hold_it_count_it_as_a_loss_and_write_the_rest(
    tmp_path, name, monkeypatch
):
    monkeypatch.delitem(region_codecs.CODECS, "circle")
    known = FORMATS[name]
    assert "circle" not in known.holds
    source = tmp_path / "in"
    both = dataset(circle(20, 20, 10), Label.box("ball", 50, 30, 60, 50))
    write_dataset(both, source, write_as=FORMATS["jsonl"], image_files={})
    images = tmp_path / "images"
    images.mkdir()
    Image.new("RGB", SIZE).save(images / "one.jpg")
    written = convert(source, tmp_path / "out", read_as=FORMATS["jsonl"], write_as=known,
                      image_files=images)  # fmt: skip
    left_out = name == "label-studio"
    expected = "1 circle is left out" if left_out else "1 circle becomes its enclosing box"
    assert BECOMES.get(name, expected) in written.losses
    back = known.read(tmp_path / "out", images).dataset
    edges = back.labels.sort_values("x1")[["x1", "y1", "x2", "y2"]].to_numpy()
    centres = (edges[:, :2] + edges[:, 2:]) / 2
    expected_centres = [[55, 40]] if left_out else [[20, 20], [55, 40]]
    assert centres == pytest.approx(np.array(expected_centres), abs=0.01)
