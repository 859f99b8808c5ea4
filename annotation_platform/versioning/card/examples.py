"""Choose example images and compute the overlay of their labels, without opening any image."""

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
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.audited_files import Codes
from annotation_platform.versioning.card.facts import Rows

PER_SPLIT = 2
MOST_EXAMPLES = 12
MOST_DRAWN = 80
"""Regions drawn on an image, the largest first; more would hide each other and the image."""
MOST_NAMED = 10
"""Regions are drawn with their names up to this number; above it, only the legend has names."""

LONGEST_NAME = 24
"""Longest class name on an image, in columns of a fixed-width font."""

_LETTERS = 24  # a letter's height is the width of the image divided by this number
_LETTER_WIDTH = 0.62  # a letter's width divided by its height
_NEEDED = [
    *(TrainingSet.image_id, TrainingSet.split, TrainingSet.extension),
    *(TrainingSet.width, TrainingSet.height, TrainingSet.shape, TrainingSet.class_name),
    *(TrainingSet.x1, TrainingSet.y1, TrainingSet.x2, TrainingSet.y2, TrainingSet.geometry),
]
_MOST_POINTS = 200
_STRIPES = 120


@dataclass(frozen=True)
class Mark:
    """A region in pixels of the image: an SVG path or a point, and its name above it."""

    name: str
    color: str
    path: str  # empty for a point
    is_mask: bool  # its path consists of stripes, not of an outline
    x: float
    y: float
    name_x: float  # chosen so that the name ends inside the image
    name_y: float


@dataclass(frozen=True)
class Example:
    """An image of the version, the overlay of its labels, and its number of labels by class."""

    path: str  # within the folder
    image_id: str
    split: str
    width: int
    height: int
    marks: tuple[Mark, ...]
    regions: int
    letter: float  # height of the names' letters, in pixels of the image
    legend: tuple[tuple[str, str, int], ...]  # class, colour, number of labels
    choices: tuple[str, ...]  # classes of the whole image


def choose_examples(rows: Rows, ontology: Ontology) -> list[Example]:
    """Return at most ``MOST_EXAMPLES`` images by split: some of each, and one per rare class.

    Ids are SHA-256 digests, so the images with the smallest ids are a random choice, which changes
    only when an image with a smaller id arrives. A class that an example already shows gets no
    example of its own. Images without any label are not chosen.
    """
    has_class = rows.class_index >= 0
    split, image = rows.split[has_class], rows.image[has_class]
    chosen: list[int] = []
    for number in range(len(SPLITS)):
        chosen += pd.unique(image[split == number])[:PER_SPLIT].tolist()
    classes = rows.class_index[has_class]
    counts = np.bincount(classes, minlength=rows.classes)
    first = np.full(rows.classes, -1, dtype=np.int64)
    # The last assignment to an index wins; in reverse order, that is the first image of a class.
    first[classes[::-1]] = image[::-1]
    covered = {each for one in chosen for each in _classes_of(one, image, classes)}
    for rare in np.argsort(counts, kind="stable").tolist():
        if counts[rare] and rare not in covered and len(chosen) < MOST_EXAMPLES:
            chosen.append(int(first[rare]))
            covered |= _classes_of(chosen[-1], image, classes)
    splits = rows.split_of_image
    order = sorted(chosen, key=lambda one: (splits[one], one))
    row_numbers = [np.arange(*np.searchsorted(rows.image, [one, one + 1])) for one in order]
    # The rows of all examples are selected in one step.
    selected = np.concatenate([*row_numbers, []]).astype(int)
    records = iter(rows.frame[_NEEDED].iloc[selected].to_dict("records"))
    colors = class_colors(ontology)
    return [_example([next(records) for _ in each], colors) for each in row_numbers]


def _classes_of(one: int, image: Codes, classes: Codes) -> set[int]:
    start, end = np.searchsorted(image, [one, one + 1]).tolist()
    return set(classes[start:end].tolist())


def _example(rows: list[dict[Any, Any]], colors: dict[str, str]) -> Example:
    first = rows[0]
    named = [row for row in rows if row[TrainingSet.shape] in WITH_CLASS]
    regions = [row for row in named if row[TrainingSet.shape] in REGIONS]
    counts = Counter[str](row[TrainingSet.class_name] for row in named)
    letter = _round(first[TrainingSet.width] / _LETTERS)
    image_id, split = first[TrainingSet.image_id], first[TrainingSet.split]
    return Example(
        path=f"images/{split}/{image_id}.{first[TrainingSet.extension]}",
        image_id=image_id,
        split=split,
        width=first[TrainingSet.width],
        height=first[TrainingSet.height],
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
            sorted(
                row[TrainingSet.class_name]
                for row in named
                if row[TrainingSet.shape] in CLASSIFICATIONS
            )
        ),
    )


def _smallness(row: dict[Any, Any]) -> float:
    return -float(
        (row[TrainingSet.x2] - row[TrainingSet.x1]) * (row[TrainingSet.y2] - row[TrainingSet.y1])
    )


def _mark(row: dict[Any, Any], colors: dict[str, str], letter: float) -> Mark:
    name, shape = str(row[TrainingSet.class_name]), row[TrainingSet.shape]
    edges = [float(row[edge]) for edge in BOX_COLUMNS]
    outlines = SHAPES[shape].marks(
        Label(shape, name, row[TrainingSet.geometry], *edges), most=_STRIPES
    )
    x1, y1 = edges[:2]
    label = shown(name, LONGEST_NAME)
    last = float(row[TrainingSet.width]) - len(label) * letter * _LETTER_WIDTH
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
    # More points would not be visible on a card.
    points = points[:: math.ceil(len(points) / _MOST_POINTS)].tolist()
    return "M" + "L".join(f"{_round(x):g} {_round(y):g}" for x, y in points) + "Z"


def _round(value: float) -> float:
    return round(float(value), 1)
