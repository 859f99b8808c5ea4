"""The counts of a card, from a training set that is sorted by image.

A million labels take a fifth of a second: values that all labels of an image share are read once
per image, and labels are counted as integer codes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from annotation_platform.schema.ontology import Ontology, class_colors
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import Frame, TrainingSet
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.audited_files import Codes, Flags

# COCO's limits between small, medium and large objects, in square pixels.
SMALL, LARGE = 32**2, 96**2
MOST_SOURCES = 50
"""Most rows in the table of sources: with one source per image, it would not be a summary."""

_OF_IMAGES = [
    *(TrainingSet.image_id, TrainingSet.split, TrainingSet.group_id, TrainingSet.extension),
    *(TrainingSet.width, TrainingSet.height, TrainingSet.round_id, TrainingSet.origin),
    *(TrainingSet.source, TrainingSet.device, TrainingSet.licence, TrainingSet.consent),
    *(TrainingSet.captured_at, TrainingSet.latitude, TrainingSet.longitude),
]
_MOST_ANNOTATIONS = 63
_LARGEST_PIXELS = 40
_WIDEST = 8


@dataclass(frozen=True)
class Agreement:
    """The support of labels by annotators. Shares are of the image's annotators, 0 to 1."""

    asked: int  # labels on images with two or more annotations
    mean_share: float  # mean share of annotators who saw these labels; 0 if there are none
    unanimous: int  # of these labels, seen by every annotator
    minority: int  # of these labels, seen by half of the annotators or fewer
    one_annotation: int  # labels on images with one annotation
    unseen: int  # labels that were imported with their image and never annotated here


@dataclass(frozen=True)
class ClassFacts:
    """One class: its id, name, colour, boxes and all labels by split, and agreement."""

    id: int
    name: str
    color: str
    boxes: dict[str, int]
    labels: dict[str, int]
    agreement: Agreement


@dataclass(frozen=True)
class Histogram:
    """Counts by split for consecutive bins, with the lower limit of each bin."""

    starts: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class SourceFacts:
    """Images of one source, licence and consent; empty where none is stated."""

    source: str
    licence: str
    consent: str
    images: int


@dataclass(frozen=True)
class FolderFacts:
    """The counts for the card and the manifest. Lengths are in pixels; 0 without boxes."""

    images: dict[str, int]  # by split
    empty_images: dict[str, int]  # by split, images without a box
    unlabelled_images: dict[str, int]  # by split, images without any label
    groups: dict[str, int]  # by split, duplicate groups
    classes: tuple[ClassFacts, ...]  # ordered by id
    shapes: dict[str, int]  # labels by shape
    median_box: tuple[float, float]  # width, height
    boxes_by_size: dict[str, int]  # small, medium and large as in COCO
    box_sizes: Histogram  # by the square root of the area
    box_aspects: Histogram  # by width / height
    labels_per_image: Histogram
    image_sizes: Histogram  # by the square root of the area
    common_sizes: tuple[tuple[int, int, int], ...]  # width, height, images; most frequent first
    agreement: Agreement
    sources: tuple[SourceFacts, ...]  # the most frequent, at most MOST_SOURCES
    other_sources: tuple[int, int]  # number of the other sources, and of their images
    stated: dict[str, int]  # images by kind of known metadata: source, licence, …
    rounds: dict[str, tuple[int, int]]  # round to images and boxes
    origins: dict[str, tuple[int, int]]  # origin of labels to images and boxes
    audits: dict[str, int]

    @property
    def boxes(self) -> dict[str, int]:
        """The boxes by split."""
        return {split: sum(one.boxes[split] for one in self.classes) for split in SPLITS}

    @property
    def labels(self) -> dict[str, int]:
        """The labels by split: boxes and other regions, points and classes of whole images."""
        return {split: sum(one.labels[split] for one in self.classes) for split in SPLITS}


@dataclass(frozen=True)
class Rows:
    """A training set as integer codes: the image, split, class and shape of every row."""

    frame: Frame[TrainingSet]
    images: pd.DataFrame  # the first row of each image
    image: Codes  # index in images
    split: Codes  # index in SPLITS
    class_index: Codes  # index among the class ids of the ontology; -1 for a row without a class
    shape: Codes  # index in shapes
    shapes: tuple[str, ...]
    classes: int

    @classmethod
    def of(cls, frame: Frame[TrainingSet], ontology: Ontology) -> "Rows":
        """Return the rows of a training set that is sorted by image."""
        ids = pa.array(frame[TrainingSet.image_id])
        is_first = np.concatenate([[True], pc.not_equal(ids[1:], ids[:-1]).to_numpy(False)])
        image = np.cumsum(is_first) - 1
        images = _first_rows(frame, is_first)
        split = _indices(images[TrainingSet.split], SPLITS)
        known = sorted(one.id for one in ontology.classes)
        codes, ids = pd.factorize(frame[TrainingSet.class_id].to_numpy(np.int64, na_value=-1))
        class_index = pd.Index(known).get_indexer(pd.Index(ids)).astype(np.int64)[codes]
        shape, shapes = pd.factorize(frame[TrainingSet.shape])
        return cls(
            frame, images, image, split[image], class_index, shape, tuple(shapes), len(known)
        )

    @cached_property
    def is_area(self) -> Flags:
        """Which rows have an area, and so an enclosing box."""
        return np.array([name in AREAS for name in self.shapes], dtype=bool)[self.shape]

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """Return a column of numbers."""
        return self.frame[name].to_numpy(np.float64)

    @property
    def split_of_image(self) -> Codes:
        """The split of each image, as its index in ``SPLITS``."""
        return _indices(self.images[TrainingSet.split], SPLITS)


def folder_facts(rows: Rows, ontology: Ontology, audits: Mapping[str, int]) -> FolderFacts:
    """Return the counts of a training set, together with those of its audit."""
    labels = np.bincount(rows.image[rows.class_index >= 0], minlength=len(rows.images))
    boxes = np.bincount(rows.image[rows.is_area], minlength=len(rows.images))
    width, height = (
        rows.numbers(high)[rows.is_area] - rows.numbers(low)[rows.is_area]
        for low, high in ((TrainingSet.x1, TrainingSet.x2), (TrainingSet.y1, TrainingSet.y2))
    )
    split, pixels = rows.split_of_image, _pixels(rows.images)
    box_split, areas = rows.split[rows.is_area], width * height
    sources, other_sources = _sources(rows.images)
    agreement = _agreement(rows)
    return FolderFacts(
        images=_by_split(split),
        empty_images=_by_split(split[boxes == 0]),
        unlabelled_images=_by_split(split[labels == 0]),
        groups=_groups(rows.images[TrainingSet.group_id], split),
        classes=_classes(rows, ontology, agreement),
        shapes=_shapes(rows),
        median_box=(_median(width), _median(height)),
        boxes_by_size={
            "small": int((areas < SMALL).sum()),
            "medium": int(((areas >= SMALL) & (areas < LARGE)).sum()),
            "large": int((areas >= LARGE).sum()),
        },
        box_sizes=_roots(areas, box_split),
        box_aspects=_aspects(width, height, box_split),
        labels_per_image=_doublings(labels, split),
        image_sizes=_roots(pixels, split),
        common_sizes=_common_sizes(rows.images),
        agreement=_total(agreement),
        sources=sources,
        other_sources=other_sources,
        stated=_stated(rows.images),
        rounds=_images_and_boxes(rows.images[TrainingSet.round_id], boxes),
        origins=_images_and_boxes(rows.images[TrainingSet.origin], boxes),
        audits=dict(audits),
    )


def _first_rows(frame: pd.DataFrame, is_first: Flags) -> pd.DataFrame:
    chosen, columns = pa.array(is_first), {}
    for name in _OF_IMAGES:
        column = frame[name]
        # pandas would concatenate all Arrow chunks of a text column before it selects rows.
        is_text = column.dtype == "str"
        columns[name] = (
            pa.array(column).filter(chosen).to_pandas()
            if is_text
            else column[is_first].reset_index(drop=True)
        )
    return pd.DataFrame(columns)


def _indices(column: "pd.Series[str]", names: list[str]) -> Codes:
    return np.asarray(pd.Categorical(column, categories=names).codes, dtype=np.int64)


def _by_split(splits: Codes) -> dict[str, int]:
    counts = np.bincount(splits, minlength=len(SPLITS)).tolist()
    return dict(zip(SPLITS, counts, strict=True))


def _groups(groups: "pd.Series[str]", split: Codes) -> dict[str, int]:
    codes = pd.factorize(groups)[0]
    return _by_split(np.unique(codes * len(SPLITS) + split) % len(SPLITS))


def _shapes(rows: Rows) -> dict[str, int]:
    counts = np.bincount(rows.shape, minlength=len(rows.shapes)).tolist()
    return dict(sorted(zip(rows.shapes, counts, strict=True)))


def _classes(
    rows: Rows, ontology: Ontology, agreement: npt.NDArray[np.float64]
) -> tuple[ClassFacts, ...]:
    cells = rows.split * rows.classes + rows.class_index
    has_class = rows.class_index >= 0
    labels, boxes = (
        np.bincount(cells[chosen], minlength=rows.classes * len(SPLITS)).reshape(len(SPLITS), -1)
        for chosen in (has_class, has_class & rows.is_area)
    )
    colors = class_colors(ontology)
    return tuple(
        ClassFacts(
            id=one.id,
            name=one.name,
            color=colors[one.name],
            boxes=dict(zip(SPLITS, boxes[:, at].tolist(), strict=True)),
            labels=dict(zip(SPLITS, labels[:, at].tolist(), strict=True)),
            agreement=_total(agreement[:, at : at + 1]),
        )
        for at, one in enumerate(sorted(ontology.classes, key=lambda one: one.id))
    )


def _agreement(rows: Rows) -> npt.NDArray[np.float64]:
    """Return ``(6, classes)`` the fields of ``Agreement``, with the sum instead of the mean."""
    has_class = rows.class_index >= 0
    size = _MOST_ANNOTATIONS + 1
    # Larger numbers do not occur in practice and are counted as the largest.
    annotations, support = (
        np.minimum(rows.frame[name].to_numpy()[has_class], _MOST_ANNOTATIONS)
        for name in (TrainingSet.annotations, TrainingSet.support)
    )
    cells = (rows.class_index[has_class] * size + annotations) * size + support
    counts = np.bincount(cells, minlength=rows.classes * size * size)
    counts = counts.reshape(rows.classes, size, size)
    of, seen = np.arange(size)[:, None], np.arange(size)[None, :]
    asked = of >= 2
    share = np.where(asked, seen / np.maximum(of, 1), 0.0)
    terms = [asked, share, asked & (seen >= of), asked & (2 * seen <= of), of == 1, of == 0]
    sums = [(counts * each).sum(axis=(1, 2)) for each in terms]
    return np.asarray(sums, dtype=np.float64)


def _total(columns: npt.NDArray[np.float64]) -> Agreement:
    asked, share, unanimous, minority, one, unseen = columns.sum(axis=1).tolist()
    mean = round(share / asked, 4) if asked else 0.0
    return Agreement(int(asked), mean, int(unanimous), int(minority), int(one), int(unseen))


def _median(sides: npt.NDArray[np.float64]) -> float:
    return round(float(np.median(sides)), 1) if len(sides) else 0.0


def _pixels(images: pd.DataFrame) -> npt.NDArray[np.float64]:
    sides = images[[TrainingSet.width, TrainingSet.height]].to_numpy(np.float64)
    return np.asarray(sides.prod(axis=1))


def _roots(areas: npt.NDArray[np.float64], split: Codes) -> Histogram:
    """Return areas by their square root, in bins of a factor of √2, from 1 on."""
    # frexp returns the exact power of two above each area.
    power = np.clip(np.frexp(areas)[1] - 1, 0, _LARGEST_PIXELS)
    return _histogram(power, split, [2 ** (at / 2) for at in range(_LARGEST_PIXELS + 1)])


def _aspects(
    width: npt.NDArray[np.float64], height: npt.NDArray[np.float64], split: Codes
) -> Histogram:
    """Return width / height in bins of a factor of √2; 1 is the middle of a bin."""
    has_area = (width > 0) & (height > 0)
    squared = np.square(width[has_area] / height[has_area])
    # The binary logarithm of the square, rounded, again by the power of two above.
    bins = np.clip(np.frexp(squared * math.sqrt(2))[1] - 1, -_WIDEST, _WIDEST) + _WIDEST
    starts = [2 ** ((at - 0.5) / 2) for at in range(-_WIDEST, _WIDEST + 1)]
    return _histogram(bins, split[has_area], starts)


def _doublings(numbers: Codes, split: Codes) -> Histogram:
    """Return whole numbers in the bins 0, 1, 2, 3–4, 5–8, 9–16 and so on."""
    bins = np.where(numbers > 0, np.frexp(np.maximum(numbers, 1) - 1)[1] + 1, 0)
    starts = [0.0, 1.0, *(float(2 ** (at - 2) + 1) for at in range(2, 64))]
    return _histogram(bins, split, starts)


def _histogram(bins: npt.NDArray[np.integer], split: Codes, starts: list[float]) -> Histogram:
    """Return the counts of the bins from the first used to the last used one.

    Starts are rounded to four digits after the point.
    """
    cells = split * len(starts) + bins
    counts = np.bincount(cells, minlength=len(SPLITS) * len(starts)).reshape(len(SPLITS), -1)
    used = np.flatnonzero(counts.any(axis=0))
    first, end = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 0)
    return Histogram(
        tuple(round(start, 4) for start in starts[first:end]),
        {split: tuple(counts[at, first:end].tolist()) for at, split in enumerate(SPLITS)},
    )


def _common_sizes(images: pd.DataFrame) -> tuple[tuple[int, int, int], ...]:
    sides, counts = np.unique(
        images[TrainingSet.width].to_numpy(np.int64) << 32
        | images[TrainingSet.height].to_numpy(np.int64),
        return_counts=True,
    )
    # The most frequent first; of equally frequent sizes, the smaller ones.
    order = np.argsort(-counts, kind="stable")[:5].tolist()
    return tuple(
        (int(sides[at]) >> 32, int(sides[at]) & 0xFFFFFFFF, int(counts[at])) for at in order
    )


def _sources(images: pd.DataFrame) -> tuple[tuple[SourceFacts, ...], tuple[int, int]]:
    names = [TrainingSet.source, TrainingSet.licence, TrainingSet.consent]
    found = [pd.factorize(images[name].fillna("")) for name in names]
    cells = np.zeros(len(images), np.int64)
    for codes, values in found:
        # Codes are renumbered in each step, because the product of the sizes could overflow.
        cells = np.unique(cells * len(values) + codes, return_inverse=True)[1]
    _, first, counts = np.unique(cells, return_index=True, return_counts=True)
    texts = [[str(values[code]) for code in codes[first].tolist()] for codes, values in found]
    rows = sorted(
        (SourceFacts(*row) for row in zip(*texts, counts.tolist(), strict=True)),
        key=lambda row: (-row.images, row.source, row.licence, row.consent),
    )
    others = rows[MOST_SOURCES:]
    return tuple(rows[:MOST_SOURCES]), (len(others), sum(row.images for row in others))


def _stated(images: pd.DataFrame) -> dict[str, int]:
    """Return the number of images that have each kind of metadata."""
    texts = [TrainingSet.source, TrainingSet.device, TrainingSet.licence, TrainingSet.consent]
    position = images[TrainingSet.latitude].notna() & images[TrainingSet.longitude].notna()
    return {
        **{name: int((images[name].fillna("") != "").sum()) for name in texts},
        "captured_at": int(images[TrainingSet.captured_at].notna().sum()),
        "geo": int(position.sum()),
    }


def _images_and_boxes(column: "pd.Series[str]", boxes: Codes) -> dict[str, tuple[int, int]]:
    """Return the number of images and of boxes for each value of a column, by value."""
    codes, values = pd.factorize(column)
    images = np.bincount(codes, minlength=len(values)).tolist()
    together = np.zeros(len(values), dtype=np.int64)
    np.add.at(together, codes, boxes)
    return dict(
        sorted(zip(map(str, values), zip(images, together.tolist(), strict=True), strict=True))
    )
