"""Random datasets of every shape, and the comparison of two datasets."""

import json

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from annotation_platform.schema.annotations import same_labels
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.shapes.overlap import labels_of

WIDTH, HEIGHT = 60, 40
ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=7, name="Würfel"),
        LabelClass(id=2, name="猫"),
        LabelClass(id=3, name="nose", shape="keypoint"),
        LabelClass(id=4, name="eye", shape="keypoint"),
        LabelClass(id=9, name="night", shape="choice"),
    )
)
AREA_CLASSES = ["Würfel", "猫"]


def coordinate(most):
    return st.integers(0, most * 8).map(lambda eighths: eighths / 8)


@st.composite
def labels(draw, shapes):
    shape, name = draw(st.sampled_from(shapes)), draw(st.sampled_from(AREA_CLASSES))
    if shape == "choice":
        return Label.choice("night")
    x, y = draw(coordinate(WIDTH - 20)), draw(coordinate(HEIGHT - 20))
    width, height = 2 + draw(coordinate(16)), 2 + draw(coordinate(16))
    if shape == "keypoint":
        return Label.keypoint(draw(st.sampled_from(["nose", "eye"])), x, y)
    if shape == "box":
        return Label.box(name, x, y, x + width, y + height)
    if shape == "rotated_box":
        # Half as large, so that it stays in the image at any rotation.
        turn = draw(st.integers(1, 359))
        return Label.rotated_box(name, x + 10, y + 10, width / 2, height / 2, turn)
    if shape == "mask":
        pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
        seed = draw(st.integers(0, 2**31))
        bits = np.random.default_rng(seed).random((8, 11)) < draw(st.sampled_from([0.1, 0.5, 1.0]))
        bits[draw(st.integers(0, 7)), draw(st.integers(0, 10))] = True
        pixels[int(y) : int(y) + 8, int(x) : int(x) + 11] = bits
        return Label.mask(name, pixels)
    triangle = [x, y, x + width, y, x, y + height]
    further = [x + 10, y + 19, x + 19, y + 19, x + 19, y + 10.5]
    return Label.polygon(name, [triangle, further] if draw(st.booleans()) else [triangle])


ALL = ("box", "rotated_box", "polygon", "mask", "keypoint", "choice")


@st.composite
def datasets(draw, *, shapes=ALL, extra=True):
    """Return a dataset; with ``extra`` there are objects of several labels, and attributes."""
    images, rows = [], []
    for number in range(draw(st.integers(0, 3))):
        image_id = f"{number:04d}"
        split = draw(st.sampled_from(["train", "val", "test"]))
        images.append([image_id, f"images/{split}/{image_id}.jpg", split, WIDTH, HEIGHT])
        for label in draw(st.lists(labels(shapes), max_size=4)):
            rows.append(row(image_id, label))
            if extra and label.shape not in {"keypoint", "choice"} and draw(st.booleans()):
                instance = f"object {len(rows)}"
                rows[-1]["instance"] = instance
                rows[-1]["attributes"] = draw(
                    st.sampled_from(["", '{"crowd": 1}', '{"occluded": 1, "pose": "left"}'])
                )
                # At different positions, so that no object has two equal points.
                for at, name in enumerate(draw(st.lists(st.sampled_from(["nose", "eye"])))[:4]):
                    point = Label.keypoint(name, at, draw(coordinate(HEIGHT)))
                    hidden = draw(st.sampled_from(["", '{"hidden": 1}']))
                    rows.append(row(image_id, point, instance, hidden))
    frame = pd.DataFrame(rows, columns=list(row("", Label.choice("night"))))
    return Dataset(
        pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"]),
        frame.astype(dict.fromkeys(BOX_COLUMNS, "float64")),
        ONTOLOGY,
    )


def row(image_id, label, instance="", attributes=""):
    return {
        "image_id": image_id,
        "class_name": label.class_name,
        **{edge: getattr(label, edge) for edge in BOX_COLUMNS},
        "shape": label.shape,
        "geometry": label.geometry,
        "instance": instance,
        "attributes": attributes,
    }


def assert_same_labels(read, written, *, attributes=True, pixels=1e-5):
    """Assert that two datasets have the same images, labels, objects and attributes."""
    columns = ["image_id", "split", "width", "height"]
    assert read.images[columns].to_dict("records") == written.images[columns].to_dict("records")
    assert len(read.labels) == len(written.labels)
    for image_id in written.images["image_id"]:
        ours, theirs = (
            each.labels[each.labels["image_id"] == image_id] for each in (read, written)
        )
        assert same_labels(labels_of(ours), labels_of(theirs), pixels=pixels)
        if attributes:
            assert counted(ours) == counted(theirs)
        assert objects(ours) == objects(theirs)


def counted(frame):
    known = [json.dumps(json.loads(text or "{}"), sort_keys=True) for text in frame["attributes"]]
    return sorted(zip(frame["shape"], frame["class_name"], known, strict=True))


def objects(frame):
    """Return, for every object with points, the shapes and classes of its labels, sorted."""
    whole = frame[frame["instance"] != ""]
    found = [
        sorted(zip(rows["shape"], rows["class_name"], strict=True))
        for _, rows in whole.groupby("instance")
    ]
    return sorted(one for one in found if any(shape == "keypoint" for shape, _ in one))
