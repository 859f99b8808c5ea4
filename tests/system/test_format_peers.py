"""What we write, others read and write, and what comes back is what it was.

``.venv-peers``, or the folder that ``ANNOTATION_PEERS`` names, holds a virtual environment for each
of ``pycocotools``, ``datumaro``, ``supervision`` and ``label-studio-sdk``. ``make test-long-setup``
makes them. A test whose peer is not there is skipped.
"""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from annotation_platform.formats.coco import read_coco, read_coco_boxes, render_coco
from annotation_platform.formats.files import write_files
from annotation_platform.formats.label_studio.reading import read_label_studio
from annotation_platform.formats.label_studio.writing import render_label_studio
from annotation_platform.formats.voc import read_voc, render_voc
from annotation_platform.formats.yolo import read_yolo, render_yolo
from annotation_platform.labeling.backends.label_studio.interface import labeling_config
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes, iou_matrix
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import Label, outlines_of
from annotation_platform.schema.shapes.overlap import labels_of
from annotation_platform.schema.shapes.raster import rasterise

pytestmark = pytest.mark.long

PEERS = Path(os.environ.get("ANNOTATION_PEERS") or Path(__file__).parents[2] / ".venv-peers")
WIDTH, HEIGHT = 64, 48
ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=3, name="Würfel"),
        LabelClass(id=5, name="cat"),
        LabelClass(id=9, name="never drawn"),
    )
)


@pytest.fixture
def peer(tmp_path):
    """Return a function that runs a script in a peer's environment and gives what it printed."""

    def run(name, script, *arguments):
        python = PEERS / name / "bin" / "python"
        if not python.is_file():
            pytest.skip(f"no environment of {name} in {PEERS}: make test-long-setup")
        path = tmp_path / "peer_script.py"
        path.write_text(script)
        command = [python, "-W", "ignore", path, *arguments]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr[-3000:]
        return json.loads(said.stdout.splitlines()[-1])

    return run


@pytest.fixture
def boxes(tmp_path):
    """Boxes at the edges and between pixels, two alike, one image without any; with images."""
    rng = np.random.default_rng(5)
    places = [[0, 0, WIDTH, HEIGHT], [63, 47, 64, 48], [0, 0, 1, 1], [10.25, 7.5, 33.125, 41.75]]
    images, rows = [], []
    for number, split in enumerate(["train", "train", "val", "test"]):
        name = f"picture_{number}"
        images.append([name, f"images/{split}/{name}.png", split, WIDTH, HEIGHT])
        # Quarters of a pixel: datumaro keeps hundredths, a share of a box of two pixels.
        corners = rng.integers(0, 80, (5, 2)) / 4
        sides = 2 + rng.integers(0, 80, (5, 2)) / 4
        drawn = [*places, *np.hstack([corners, corners + sides]).tolist()] if number else []
        for place, edges in enumerate([*drawn, *drawn[:1]]):
            rows.append([name, ONTOLOGY.names[place % 2], *edges])
    dataset = Dataset(
        pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"]),
        pd.DataFrame(rows, columns=["image_id", "class_name", *BOX_COLUMNS]),
        ONTOLOGY,
    )
    for name in dataset.images["file_name"]:
        path = tmp_path / "ours" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT), "grey").save(path)
    return dataset


def rows_of(dataset, split=None):
    """Return ``[image, class, x1, y1, x2, y2]`` of every label, in one split or in all."""
    names = dataset.images
    if split is not None:
        names = names[names["split"] == split]
    labels = dataset.labels[dataset.labels["image_id"].isin(names["image_id"])]
    return labels[["image_id", "class_name", *BOX_COLUMNS]].to_numpy().tolist()


def assert_same_boxes(theirs, ours):
    """Assert equal counts by image and class, and that each box has its like (IoU >= 0.999)."""
    columns = ["image", "class_name", *BOX_COLUMNS]
    found, written = (pd.DataFrame(each, columns=columns) for each in (theirs, ours))
    # Some name images with their folder, some with their extension, some with a number before.
    found["image"] = [Path(name).stem.rpartition("__")[2] for name in found["image"]]
    keys = ["image", "class_name"]
    assert found.groupby(keys).size().to_dict() == written.groupby(keys).size().to_dict()
    groups = dict(list(written.groupby(keys)))
    for key, group in found.groupby(keys):
        overlap = iou_matrix(as_boxes(group[BOX_COLUMNS]), as_boxes(groups[key][BOX_COLUMNS]))
        assert (overlap.max(axis=0) >= 0.999).all()
        assert (overlap.max(axis=1) >= 0.999).all()


PYCOCOTOOLS = """
import json, sys
from pycocotools.coco import COCO
truth = COCO(sys.argv[1])
names = {key: each["name"] for key, each in truth.cats.items()}
files = {key: each["file_name"] for key, each in truth.imgs.items()}
found = []
for each in truth.loadAnns(truth.getAnnIds()):
    x, y, w, h = each["bbox"]
    row = [files[each["image_id"]], names[each["category_id"]], x, y, x + w, y + h]
    mask = truth.annToMask(each) if each["segmentation"] else None
    found.append({"row": row, "area": each["area"], "points": each.get("num_keypoints", 0),
                  "mask": None if mask is None else mask.tolist()})
print(json.dumps({"images": len(files), "classes": list(names.values()), "found": found}))
"""


def test_pycocotools_reads_the_boxes_of_every_split(tmp_path, peer, boxes):
    write_files(render_coco(boxes), tmp_path / "ours")
    for split, images in [("train", 2), ("val", 1), ("test", 1)]:
        said = peer("pycocotools", PYCOCOTOOLS, tmp_path / "ours" / "coco" / f"{split}.json")
        assert said["images"] == images
        assert said["classes"] == ONTOLOGY.names
        assert_same_boxes([each["row"] for each in said["found"]], rows_of(boxes, split))


def every_shape():
    ring = np.zeros((HEIGHT, WIDTH), dtype=bool)
    ring[5:20, 5:20] = True
    ring[10:15, 10:15] = False
    drawn = [
        (Label.mask("cat", ring), "", '{"crowd": 1}'),
        (Label.mask("cat", ring), "", ""),
        (Label.polygon("cat", [[4, 4, 44, 8, 24, 40], [50, 30, 60, 30, 55, 46]]), "", ""),
        (Label.rotated_box("Würfel", 30, 24, 30, 12, 33), "", ""),
        (Label.box("cat", 3, 3, 30, 40), "one", ""),
        (Label.keypoint("never drawn", 5, 6), "one", ""),
        (Label.keypoint("never drawn", 9, 9), "one", '{"hidden": 1}'),
        (Label.keypoint("never drawn", 40, 20), "", ""),
    ]
    labels = [
        {
            "image_id": "image",
            "class_name": label.class_name,
            **{edge: getattr(label, edge) for edge in BOX_COLUMNS},
            "shape": label.shape,
            "geometry": label.geometry,
            "instance": instance,
            "attributes": attributes,
        }
        for label, instance, attributes in drawn
    ]
    images = [["image", "picture.png", "train", WIDTH, HEIGHT]]
    return Dataset(
        pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"]),
        pd.DataFrame(labels),
        ONTOLOGY,
    )


def test_pycocotools_draws_every_shape_as_we_do(tmp_path, peer):
    dataset = every_shape()
    write_files(render_coco(dataset), tmp_path)
    said = peer("pycocotools", PYCOCOTOOLS, tmp_path / "coco" / "train.json")["found"]
    # Eight labels, of which two are points of another's.
    assert len(said) == 6
    assert sorted(each["points"] for each in said) == [0, 0, 0, 0, 1, 2]
    drawn = {}
    for each in said:
        if each["mask"] is not None:
            drawn.setdefault(round(each["area"]), []).append(np.array(each["mask"], dtype=bool))
    masks, (polygon,), (turned,) = drawn[200], drawn[680 + 80], drawn[360]
    labels = labels_of(dataset.labels)
    assert all((each == labels[0].pixels).all() for each in masks)
    for theirs, label in [(polygon, labels[2]), (turned, labels[3])]:
        ours = rasterise(outlines_of(label), width=WIDTH, height=HEIGHT)
        # It draws the outline itself by a rule of its own, we go by the centres of pixels.
        assert (theirs & ours).sum() / (theirs | ours).sum() > 0.9


DATUMARO = """
import json, sys
from datumaro.components.annotation import AnnotationType
from datumaro.components.dataset import Dataset
source, out, kind, format = sys.argv[1:]
held = Dataset.import_from(source, "yolo" if format.startswith("yolo") else format)
names = [each.name for each in held.categories()[AnnotationType.label]]
found = []
for item in held:
    for each in item.annotations:
        kind_of = each.type.name
        row = [item.id, None if each.label is None else names[each.label]]
        if kind_of in {"bbox", "polygon", "mask"}:
            x, y, w, h = each.get_bbox()
            row += [x, y, x + w, y + h]
        found.append([kind_of, item.subset, row])
held.export(out, format, save_media=kind == "with images")
print(json.dumps({"images": len(held), "classes": names, "found": found}))
"""


def as_instances(folder, out, task="instances"):
    """Lay files out as COCO's own are: under annotations, named after what they hold."""
    (out / "annotations").mkdir(parents=True)
    (out / "images").mkdir()
    for path in (folder / "coco").glob("*.json"):
        shutil.copy(path, out / "annotations" / f"{task}_{path.name}")


def test_datumaro_reads_and_writes_boxes_as_coco(tmp_path, peer, boxes):
    write_files(render_coco(boxes), tmp_path / "ours")
    as_instances(tmp_path / "ours", tmp_path / "there")
    back = tmp_path / "back"
    said = peer("datumaro", DATUMARO, tmp_path / "there", back, "", "coco_instances")
    assert said["images"] == 4
    assert said["classes"] == ONTOLOGY.names
    for split in ("train", "val", "test"):
        rows = [row for _, subset, row in said["found"] if subset == split]
        assert_same_boxes(rows, rows_of(boxes, split))
    read = read_coco(back)
    assert set(read.labels["shape"]) == {"box"}
    assert len(read.images) == 4
    assert_same_boxes(rows_of(read), rows_of(boxes))


def test_datumaro_reads_every_shape(tmp_path, peer):
    dataset = every_shape()
    write_files(render_coco(dataset), tmp_path / "ours")
    as_instances(tmp_path / "ours", tmp_path / "there", "person_keypoints")
    said = peer(
        "datumaro", DATUMARO, tmp_path / "there", tmp_path / "back", "", "coco_person_keypoints"
    )
    counts = pd.Series([kind for kind, _, _ in said["found"]]).value_counts().to_dict()
    # Each annotation has points, if only a list of none; the polygon has two parts.
    assert counts["mask"] == 2
    assert counts["polygon"] == 2 + 1
    assert counts["points"] == 6
    read = read_coco(tmp_path / "back")
    # It writes only crowds as masks, other masks as outlines.
    is_mask = read.labels["shape"] == "mask"
    assert read.labels.loc[is_mask, "geometry"].tolist() == [labels_of(dataset.labels)[0].geometry]


SUPERVISION = """
import json, os, sys
import supervision as sv
images, source, out, kind = sys.argv[1:]
if kind == "coco":
    held = sv.DetectionDataset.from_coco(images_directory_path=images, annotations_path=source)
else:
    held = sv.DetectionDataset.from_yolo(
        images_directory_path=images, annotations_directory_path=source,
        data_yaml_path=os.path.join(source, "..", "..", "data.yaml"),
    )
found = [
    [os.path.basename(path), held.classes[label], *map(float, box)]
    for path, _, drawn in held
    for box, label in zip(drawn.xyxy, drawn.class_id)
]
if kind == "coco":
    held.as_coco(annotations_path=out)
else:
    held.as_yolo(images_directory_path=f"{out}/images", annotations_directory_path=f"{out}/labels",
                 data_yaml_path=f"{out}/data.yaml")
print(json.dumps({"images": len(held), "classes": held.classes, "found": found}))
"""


def test_supervision_reads_and_writes_boxes_as_coco(tmp_path, peer, boxes):
    write_files(render_coco(boxes), tmp_path / "ours")
    for split in ("train", "val", "test"):
        back = tmp_path / f"{split}.json"
        source = tmp_path / "ours" / "coco" / f"{split}.json"
        said = peer("supervision", SUPERVISION, tmp_path / "ours", source, back, "coco")
        assert said["classes"] == ONTOLOGY.names
        assert_same_boxes(said["found"], rows_of(boxes, split))
        read = read_coco_boxes(back)
        assert len(read.images) == (boxes.images["split"] == split).sum()
        assert_same_boxes(rows_of(read), rows_of(boxes, split))


def test_supervision_reads_and_writes_boxes_as_yolo(tmp_path, peer, boxes):
    ours = tmp_path / "ours"
    write_files(render_yolo(boxes), ours)
    for split in ("train", "val", "test"):
        back = tmp_path / split
        places = [ours / "images" / split, ours / "labels" / split, back]
        said = peer("supervision", SUPERVISION, *places, "yolo")
        assert said["classes"] == ONTOLOGY.names
        assert_same_boxes(said["found"], rows_of(boxes, split))
        read = read_yolo(back)
        assert len(read.images) == (boxes.images["split"] == split).sum()
        assert_same_boxes(rows_of(read), rows_of(boxes, split))


@pytest.mark.parametrize("format_name", ["yolo_ultralytics", "voc_detection"])
def test_datumaro_reads_and_writes_boxes_as_yolo_and_voc(tmp_path, peer, boxes, format_name):
    ours, back = tmp_path / "ours", tmp_path / "back"
    if format_name == "voc_detection":
        write_files(render_voc(boxes), ours)
        shutil.copytree(ours / "images", ours / "JPEGImages" / "images")
    else:
        write_files(render_yolo(boxes), ours)
    said = peer("datumaro", DATUMARO, ours, back, "with images", format_name)
    assert said["images"] == 4
    assert set(ONTOLOGY.names) <= set(said["classes"])
    assert_same_boxes([row for _, _, row in said["found"]], rows_of(boxes))
    read = read_voc(back).dataset if format_name == "voc_detection" else read_yolo(back)
    assert len(read.images) == 4
    assert_same_boxes(rows_of(read), rows_of(boxes))


CONVERTER = """
import json, sys
from label_studio_sdk.converter import Converter
config, source, out, format = sys.argv[1:]
made = Converter(config=config, project_dir=None, download_resources=False)
made.convert(source, out, format, is_dir=False)
print(json.dumps("done"))
"""


def test_the_converter_of_label_studio_makes_coco_of_what_we_write(tmp_path, peer, boxes):
    # It knows no size of an image without a region, and then says none.
    labelled = boxes.images["image_id"].isin(boxes.labels["image_id"])
    write_files(render_label_studio(replace(boxes, images=boxes.images[labelled])), tmp_path)
    (tmp_path / "config.xml").write_text(labeling_config(ONTOLOGY))
    source, out = tmp_path / "label_studio.json", tmp_path / "out"
    peer("label-studio-sdk", CONVERTER, tmp_path / "config.xml", source, out, "COCO")
    read = read_coco_boxes(out / "result.json")
    assert_same_boxes(rows_of(read), rows_of(boxes))
    # To it the answer of those who cannot tell is a class as well.
    assert set(read.ontology.names) - {"unsure"} == set(ONTOLOGY.names)


IMPORTER = """
import json, sys
from label_studio_sdk.converter.imports.coco import convert_coco_to_ls
convert_coco_to_ls(sys.argv[1], sys.argv[2], to_name="image", out_type="annotations",
                   image_root_url="https://images.example/images")
print(json.dumps("done"))
"""


def test_what_the_converter_makes_of_our_coco_is_read(tmp_path, peer, boxes):
    write_files(render_coco(boxes), tmp_path / "ours")
    for split in ("val", "test"):
        out = tmp_path / f"{split}.json"
        peer("label-studio-sdk", IMPORTER, tmp_path / "ours" / "coco" / f"{split}.json", out)
        read = read_label_studio(out)
        # It gives equal boxes names of their own, so they stay two.
        assert_same_boxes(rows_of(read.dataset), rows_of(boxes, split))
