"""Random training sets for versions."""

import hashlib
import json
import math
import random

import numpy as np
import pandas as pd

from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import NOTHING, Label
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.schema.tables.shared import SPLITS

ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=4, name="ship"),
        LabelClass(id=0, name="Würfel"),
        LabelClass(id=9, name="buoy", shape="keypoint"),
    )
)
WIDTH, HEIGHT = 64, 48


def row(number: int, at: int, label: Label, **facts: object) -> dict[str, object]:
    """Return a label of the image of this number."""
    image_id = hashlib.sha256(f"image {number}".encode()).hexdigest()
    return {
        "round_id": "round-0001",
        "image_id": image_id,
        "split": SPLITS[number % 3],
        "group_id": image_id,
        "width": WIDTH,
        "height": HEIGHT,
        "extension": "jpg",
        "stored_md5": hashlib.md5(image_id.encode()).hexdigest(),
        "stored_bytes": 2000 + number,
        "label_id": f"{image_id}-{at}",
        "origin": "people",
        "support": 1,
        "annotations": 1,
        "other_metadata": "",
        "class_id": ONTOLOGY.id_of.get(label.class_name or ""),
        **vars(label),
        **facts,
    }


def draw_label(rng: random.Random) -> Label:
    """Return a label of any shape inside its image."""
    x1, y1 = rng.uniform(0, WIDTH - 12), rng.uniform(0, HEIGHT - 12)
    x2, y2 = rng.uniform(x1 + 1, x1 + 12), rng.uniform(y1 + 1, y1 + 12)
    name = rng.choice(["ship", "Würfel"])
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[math.floor(y1) : math.ceil(y2), math.floor(x1) : math.ceil(x2)] = True
    return rng.choice(
        [
            Label.box(name, x1, y1, x2, y2),
            Label.polygon(name, [[x1, y1, x2, y1, x2, y2]]),
            Label.rotated_box(name, (x1 + x2) / 2, (y1 + y2) / 2, 5, 3, rng.uniform(-90, 90)),
            Label.mask(name, pixels),
            Label.keypoint("buoy", x1, y1),
            Label.choice(name),
        ]
    )


def draw_rows(rng: random.Random, images: int) -> list[dict[str, object]]:
    """Return the rows of ``images`` images with none to four labels, each from its own video."""
    rows = []
    for number in range(images):
        labels = [draw_label(rng) for _ in range(rng.randrange(5))] or [NOTHING]
        video = json.dumps({"video": f"video {number}"})
        rows += [
            row(number, at, label, other_metadata=video, source=f"camera {number}")
            for at, label in enumerate(labels)
        ]
    return rows


def table(rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return the rows as a table sorted by image and label."""
    made = TrainingSet.from_rows(rows)
    return made.sort_values(["image_id", "label_id"], ignore_index=True)
