"""One task resolved alone, by what its round has in common, comes out as in the round."""

import json

import numpy as np
import pandas as pd
import pytest

from annotation_platform.consensus.common import Common
from annotation_platform.consensus.resolve import resolve_consensus, resolve_task
from annotation_platform.schema.shapes import Label
from tests.core.consensus.test_consensus import NAMES, ONTOLOGY, labels_table

WIDTH, HEIGHT = 320, 240


def drawn(rng, box, name, person):
    """What one person makes of an object: shaken, missed or misnamed now and then."""
    if rng.random() < 0.15:
        return None
    x1, y1, x2, y2 = (float(edge + rng.normal(0, 1 + person)) for edge in box)
    if name == "road":
        return Label.polygon("road", [[x1, y1, x2, y1, x2, y2, x1, y2]])
    if rng.random() < 0.2:
        name = "dog" if name == "cat" else "cat"
    return Label.box(name, x1, y1, x2, y2)


def annotations_of(seed, images=60, people=4):
    """Images with boxes, outlines and a choice each, labelled by annotators of unequal care."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(images):
        objects = []
        for _ in range(rng.integers(0, 5)):
            x, y = rng.uniform(10, WIDTH - 90), rng.uniform(10, HEIGHT - 90)
            # Classes of a size of their own, so that sizes can break ties.
            name = str(rng.choice(["cat", "dog", "road"]))
            side = {"cat": 30, "dog": 60, "road": 45}[name]
            objects.append(((x, y, x + side, y + side * rng.uniform(0.8, 1.2)), name))
        annotations = {}
        for person in range(people):
            labels = [drawn(rng, box, name, person) for box, name in objects]
            choice = Label.choice(str(rng.choice(["day", "night"], p=[0.7, 0.3])))
            annotations[f"person-{person}"] = [each for each in labels if each] + [choice]
        frames.append(labels_table(annotations, f"{number:064x}"))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("people", [1, 2, 4])
def test_a_task_alone_comes_out_as_in_its_round(seed, people):
    annotations = annotations_of(seed, people=people)
    images = pd.DataFrame({"image_id": annotations["image_id"].unique()})
    images = images.assign(width=WIDTH, height=HEIGHT)
    known = {"ontology": ONTOLOGY, "images": images, "iou_threshold": 0.5}
    whole = resolve_consensus(annotations, **known)
    # As it is kept: numbers come back exactly.
    common = Common.from_dict(json.loads(json.dumps(whole.common.to_dict())))
    for image, own in annotations.groupby("image_id"):
        _, resolved = resolve_task(own, common, **known)
        alone = [
            (each.label_id, *(getattr(each.label, name) for name in NAMES))
            for each in resolved
            if each.label is not None
        ]
        labels = whole.labels[(whole.labels["image_id"] == image)]
        labels = labels[~labels["shape"].isin(["none", "unsure"])]
        assert [row[0] for row in alone] == labels["label_id"].tolist()
        for one, other in zip(alone, labels[NAMES].itertuples(index=False), strict=True):
            assert one[1:3] == other[:2]
            places = [np.nan if edge is None else edge for edge in one[3:7]]
            assert places == pytest.approx(list(other[2:6]), abs=1e-6, nan_ok=True)
            if one[1] != "polygon":
                assert one[7] == other[6]
