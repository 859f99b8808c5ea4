"""Example images: which, and what is drawn over them. No image is opened."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.pages.text import shown
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology, class_colors
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS, SHAPES, WITH_CLASS, Label
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.card.facts import Rows

PER_SPLIT = 2
MOST_EXAMPLES = 12
MOST_DRAWN = 80
"""Regions drawn on an image, the largest first: more hide each other and the image."""
MOST_NAMED = 10
"""Regions that are drawn with their name; where there are more, the legend has to do."""

LONGEST_NAME = 24
"""Columns of a name on an image."""

_LETTERS, _LETTER_WIDTH = 24, 0.62  # letters to an image's width if they were square; as they are
_NEEDED = [
    *("image_id", "split", "extension", "width", "height"),
    *("shape", "class_name", "x1", "y1", "x2", "y2", "geometry"),
]
_MOST_POINTS = 200
_STRIPES = 120


@dataclass(frozen=True)
class Mark:
    """A region in the pixels of the image: an SVG path or a point, and its name above it."""

    name: str
    color: str
    path: str  # empty for a point
    is_mask: bool  # its path is no outline
    x: float
    y: float
    name_x: float  # so that the name ends within the image
    name_y: float


@dataclass(frozen=True)
class Example:
    """An image of the version, what is drawn over it, and how often it shows each class."""

    path: str  # within the folder
    image_id: str
    split: str
    width: int
    height: int
    marks: tuple[Mark, ...]
    regions: int
    letter: float  # size of the names' letters, in pixels of the image
    legend: tuple[tuple[str, str, int], ...]  # class, colour, labels
    choices: tuple[str, ...]  # what is said of the whole image


def choose_examples(rows: Rows, ontology: Ontology) -> list[Example]:
    """Return a dozen images at most, by split: some of each, and of every class that is rare.

    Ids are SHA-256 digests, so the smallest of them is an image at random, and stays the choice
    until one with a smaller id arrives. Classes that are shown already need no image of their
    own. Images without any label are no examples.
    """
    has_class = rows.class_place >= 0
    split, image = rows.split[has_class], rows.image[has_class]
    chosen: list[int] = []
    for place in range(len(SPLITS)):
        found = image[split == place]
        chosen += pd.unique(found)[:PER_SPLIT].tolist()
    places = rows.class_place[has_class]
    counts = np.bincount(places, minlength=rows.classes)
    first = np.full(rows.classes, -1, dtype=np.int64)
    # Of equal places the last that is written stays: the first image, from the end.
    first[places[::-1]] = image[::-1]
    shown = {place for one in chosen for place in _classes_of(one, image, places)}
    for place in np.argsort(counts, kind="stable").tolist():
        if counts[place] and place not in shown and len(chosen) < MOST_EXAMPLES:
            chosen.append(int(first[place]))
            shown |= _classes_of(chosen[-1], image, places)
    splits = rows.split_of_image
    order = sorted(chosen, key=lambda one: (splits[one], one))
    found = [np.arange(*np.searchsorted(rows.image, [one, one + 1])) for one in order]
    # One look at the table for all of them.
    records = iter(
        rows.frame[_NEEDED].iloc[np.concatenate([*found, []]).astype(int)].to_dict("records")
    )
    colors = class_colors(ontology)
    return [_example([next(records) for _ in each], colors) for each in found]


def _classes_of(one: int, image: Any, places: Any) -> set[int]:
    start, end = np.searchsorted(image, [one, one + 1]).tolist()
    return set(places[start:end].tolist())


def _example(rows: list[dict[Any, Any]], colors: dict[str, str]) -> Example:
    first = rows[0]
    named = [row for row in rows if row["shape"] in WITH_CLASS]
    regions = [row for row in named if row["shape"] in REGIONS]
    counts = Counter[str](row["class_name"] for row in named)
    letter = _round(first["width"] / _LETTERS)
    return Example(
        path=f"images/{first['split']}/{first['image_id']}.{first['extension']}",
        image_id=first["image_id"],
        split=first["split"],
        width=first["width"],
        height=first["height"],
        marks=tuple(
            _mark(row, colors, letter) for row in sorted(regions, key=_smallness)[:MOST_DRAWN]
        ),
        regions=len(regions),
        letter=letter,
        legend=tuple(
            (name, colors[name], counts[name])
            for name in sorted(counts, key=lambda name: (-counts[name], name))
        ),
        choices=tuple(
            sorted(row["class_name"] for row in named if row["shape"] in CLASSIFICATIONS)
        ),
    )


def _smallness(row: dict[Any, Any]) -> float:
    return -float((row["x2"] - row["x1"]) * (row["y2"] - row["y1"]))


def _mark(row: dict[Any, Any], colors: dict[str, str], letter: float) -> Mark:
    name, shape = str(row["class_name"]), row["shape"]
    edges = [float(row[edge]) for edge in BOX_COLUMNS]
    outlines = SHAPES[shape].marks(Label(shape, name, row["geometry"], *edges), most=_STRIPES)
    x1, y1 = edges[:2]
    label = shown(name, LONGEST_NAME)
    last = float(row["width"]) - len(label) * letter * _LETTER_WIDTH
    return Mark(
        name=label,
        color=colors[name],
        path="".join(map(_path, outlines)),
        is_mask=SHAPES[shape].is_raster,
        x=_round(x1),
        y=_round(y1),
        name_x=_round(max(0.0, min(x1, last))),
        name_y=_round(max(y1 - letter * 0.3, letter)),
    )


def _path(outline: Sequence[float]) -> str:
    points = np.reshape(outline, (-1, 2))
    # As fine as a card can show.
    points = points[:: math.ceil(len(points) / _MOST_POINTS)].tolist()
    return "M" + "L".join(f"{_round(x):g} {_round(y):g}" for x, y in points) + "Z"


def _round(value: float) -> float:
    return round(float(value), 1)
