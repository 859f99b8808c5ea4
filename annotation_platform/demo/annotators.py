"""Simulated annotators whose error rates are known because they are set."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.schema.geometry import (
    BOX_COLUMNS,
    Boxes,
    as_boxes,
    clip_boxes,
    iou_matrix,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label

_NAMES = (
    "ada",
    "ben",
    "cleo",
    "dario",
    "edda",
    "femi",
    "goran",
    "hana",
    "ivo",
    "june",
    "kofi",
    "lena",
)
_LARGEST_JITTER = 0.08  # share of a side, so that small objects still get a usable box
_THINNEST = 0.01  # pixels; a box that is thinner inside the image counts as invisible
_SECONDS_TO_VIEW = 4.0
_SAME_OBJECT_IOU = 0.3

EXPERT = "expert@example.org"
"""The reviewer of disputed labels, who knows the ground truth."""


@dataclass(frozen=True)
class SimulatedPerson:
    """An annotator who makes errors of a known size.

    ``jitter_pixels`` is the standard deviation of each edge; ``miss_rate`` the share of objects
    overlooked; ``extra_rate`` the number of spurious boxes per object (per image if the image has
    no object); ``confusion_rate`` the share of boxes with a wrong class.

    A pre-annotation is accepted unchanged with the probability ``anchoring``, right or wrong.
    Otherwise it is compared with the box that the annotator would have drawn: it is accepted if
    the class is the same and the IoU is at least ``content_iou``, moved or renamed if not, and
    deleted if the annotator sees no object there. Each box costs the seconds of its action: draw,
    check or move.
    """

    name: str  # an e-mail address: the identity that assignments are for
    jitter_pixels: float
    miss_rate: float
    extra_rate: float
    confusion_rate: float
    seconds_to_draw: float
    seconds_to_check: float = 1.5  # to accept or delete a pre-annotation
    seconds_to_move: float = 4.0  # to move or rename a pre-annotation
    anchoring: float = 0.15
    content_iou: float = 0.75


@dataclass(frozen=True)
class SimulatedAnnotation:
    """The labels that one annotator gave one image, and the seconds spent."""

    labels: list[Label]
    lead_time_seconds: float


def make_people(people: int = 4, seed: int = 0) -> list[SimulatedPerson]:
    """Return ``people`` annotators, from the most to the least careful; careful ones take longer.

    The first has a jitter of 1.5 pixels, misses 2 % of the objects, draws 1 % spurious boxes and
    confuses 1 % of the classes; the last has 4 pixels, 10 %, 6 % and 7 %. A box takes the first 8
    seconds to draw, the last 6. The seed assigns names to skills; a single annotator has the skill
    of the first.
    """
    rng = np.random.default_rng(seed)
    names = [*_NAMES, *(f"person-{number}" for number in range(len(_NAMES) + 1, people + 1))]
    order = rng.permutation(people)
    grades = np.linspace(0.0, 1.0, people) if people > 1 else np.zeros(people)
    return [
        SimulatedPerson(
            name=f"{names[position]}@example.org",
            jitter_pixels=1.5 + 2.5 * grade,
            miss_rate=0.02 + 0.08 * grade,
            extra_rate=0.01 + 0.05 * grade,
            confusion_rate=0.01 + 0.06 * grade,
            seconds_to_draw=8.0 - 2.0 * grade,
        )
        for position, grade in zip(order.tolist(), grades.tolist(), strict=True)
    ]


def annotation_rng(person: SimulatedPerson, image_id: str, *, seed: int = 0) -> np.random.Generator:
    """Return the random generator of one annotator and one image, independent of all others."""
    digest = hashlib.sha256(f"{seed}/{person.name}/{image_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def simulate_annotation(
    person: SimulatedPerson,
    truth_boxes: pd.DataFrame,
    *,
    width: int,
    height: int,
    ontology: Ontology,
    rng: np.random.Generator,
    pre_annotations: Sequence[Label] = (),
) -> SimulatedAnnotation:
    """Return this annotator's labels for an image with these ground truth boxes.

    Args:
        person: the annotator.
        truth_boxes: columns ``class_name x1 y1 x2 y2``, pixels, any number of rows. Boxes without
            area inside the image are invisible and skipped.
        width: width of the image, pixels.
        height: height of the image, pixels.
        ontology: the classes to choose from; with a single class there is no confusion.
        rng: from ``annotation_rng``, so that the order of the images does not matter. The same
            generator state gives the same perception with and without pre-annotations.
        pre_annotations: boxes shown to the annotator, pixels.

    Returns:
        Boxes inside the image, each with an area: those that come from pre-annotations, in their
        order, then those drawn: perceived objects in the order of the ground truth, and spurious
        boxes. Each drawn edge is off by at most three standard deviations, and a deviation is at
        most 8 % of the side, so that a box never turns inside out.

    Raises:
        DataError: a ground truth class is not in the ontology.
    """
    unknown = set(truth_boxes["class_name"]) - set(ontology.names)
    if unknown:
        raise DataError(
            f"the ground truth has the class {min(unknown)!r}, the ontology only "
            f"{', '.join(ontology.names)}. Add it to the ontology."
        )
    perceived = _perceive(person, truth_boxes, width, height, ontology, rng)
    pace = rng.lognormal(0.0, 0.25)
    corrected, drawn, seconds = _correct(pre_annotations, perceived, person, rng)
    seconds += _SECONDS_TO_VIEW + person.seconds_to_draw * len(drawn)
    return SimulatedAnnotation([*corrected, *drawn], round(float(seconds * pace), 2))


def _perceive(
    person: SimulatedPerson,
    truth_boxes: pd.DataFrame,
    width: int,
    height: int,
    ontology: Ontology,
    rng: np.random.Generator,
) -> list[Label]:
    """Return the boxes that the annotator would draw without pre-annotations."""
    edges = as_boxes(truth_boxes[BOX_COLUMNS].to_numpy(dtype=np.float64))
    inside = clip_boxes(edges, width=width, height=height)
    is_visible = (inside[:, 2:] - inside[:, :2] >= _THINNEST).all(axis=1)
    true_names = truth_boxes["class_name"].to_numpy(dtype=object)[is_visible]
    inside = inside[is_visible]
    seen = rng.random(len(inside)) >= person.miss_rate
    drawn = _jitter(inside, person.jitter_pixels, rng)[seen]
    names = [_confuse(str(name), person.confusion_rate, ontology, rng) for name in true_names[seen]]
    extras = int(rng.binomial(max(len(inside), 1), person.extra_rate))
    drawn = np.vstack([drawn, _spurious_boxes(extras, inside, width, height, rng)])
    names += [str(rng.choice(ontology.names)) for _ in range(extras)]
    return [
        Label.box(name, *(float(edge) for edge in box))
        for name, box in zip(names, clip_boxes(drawn, width=width, height=height), strict=True)
    ]


def _correct(
    pre_annotations: Sequence[Label],
    perceived: Sequence[Label],
    person: SimulatedPerson,
    rng: np.random.Generator,
) -> tuple[list[Label], list[Label], float]:
    """Return the corrected pre-annotations, the boxes left to draw, and the seconds spent."""
    overlap = iou_matrix(_edges(pre_annotations), _edges(perceived))
    corrected: list[Label] = []
    left, seconds = list(range(len(perceived))), 0.0
    for row, shown in zip(overlap, pre_annotations, strict=True):
        nearest = max(left, key=row.__getitem__, default=None)
        if nearest is not None and row[nearest] < _SAME_OBJECT_IOU:
            nearest = None
        if nearest is not None:
            left.remove(nearest)
        is_anchored = rng.random() < person.anchoring
        if is_anchored or nearest is None:
            corrected += [shown] if is_anchored else []
            seconds += person.seconds_to_check
        elif (
            row[nearest] >= person.content_iou and perceived[nearest].class_name == shown.class_name
        ):
            corrected.append(shown)
            seconds += person.seconds_to_check
        else:
            corrected.append(perceived[nearest])
            seconds += person.seconds_to_move
    return corrected, [perceived[number] for number in left], seconds


def _edges(labels: Sequence[Label]) -> Boxes:
    return as_boxes([[label.x1, label.y1, label.x2, label.y2] for label in labels])


def _jitter(boxes: Boxes, deviation: float, rng: np.random.Generator) -> Boxes:
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    off = np.clip(rng.normal(size=boxes.shape), -3.0, 3.0)
    return np.asarray(boxes + off * np.minimum(deviation, _LARGEST_JITTER * sides))


def _confuse(name: str, confusion_rate: float, ontology: Ontology, rng: np.random.Generator) -> str:
    """Return the class name, or another one with the probability ``confusion_rate``."""
    others = [other for other in ontology.names if other != name]
    if others and rng.random() < confusion_rate:
        return str(rng.choice(others))
    return name


def _spurious_boxes(
    count: int, like: Boxes, width: int, height: int, rng: np.random.Generator
) -> Boxes:
    """Return ``(count, 4)`` boxes anywhere, sized as in ``like``, or a tenth of the image."""
    if len(like):
        sides = (like[:, 2:] - like[:, :2])[rng.integers(len(like), size=count)]
    else:
        sides = np.tile([0.1 * width, 0.1 * height], (count, 1))
    sides = np.clip(sides, 1.0, [width, height])
    corner = rng.random((count, 2)) * (np.array([width, height], dtype=np.float64) - sides)
    return np.hstack([corner, corner + sides])
