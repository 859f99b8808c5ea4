"""Simulated people, whose skill is known because it is given."""

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
_LARGEST_JITTER = 0.08  # of a side: a careless person still hits a small object
_THINNEST = 0.01  # pixels; what is thinner inside the image is as good as not there
_SECONDS_TO_LOOK = 4.0
_SAME_OBJECT_IOU = 0.3

EXPERT = "expert@example.org"
"""Who decides what the others leave open: an expert sees what is really there."""


@dataclass(frozen=True)
class SimulatedPerson:
    """Somebody who answers with errors of a known size.

    ``jitter_pixels`` is the deviation of each edge; ``miss_rate`` the share of objects overlooked;
    ``extra_rate`` the boxes drawn around nothing, for each object there is (for each image where
    there is none); ``confusion_rate`` the share of boxes given another class than their own.

    Before a proposal somebody takes it as it is with the probability ``anchoring``, right or wrong;
    otherwise it is left standing where it has the class and overlaps by ``content_iou`` what they
    would have drawn, moved or renamed where it does not, and deleted where they see nothing. Each
    box costs what was done to it: drawn, checked, or moved.
    """

    name: str  # an e-mail address: the identity that places are assigned to
    jitter_pixels: float
    miss_rate: float
    extra_rate: float
    confusion_rate: float
    seconds_to_draw: float
    seconds_to_check: float = 1.5  # a proposal that is then left as it is, or deleted
    seconds_to_move: float = 4.0  # a proposal, or to rename it
    anchoring: float = 0.15
    content_iou: float = 0.75


@dataclass(frozen=True)
class SimulatedAnnotation:
    """What one person said of one image, and how long it took."""

    labels: list[Label]
    lead_time_seconds: float


def make_people(people: int = 4, seed: int = 0) -> list[SimulatedPerson]:
    """Return so many people, from the most to the least careful; the careful take longer.

    The first has a jitter of 1.5 pixels, misses 2 % of the objects, draws 1 % too many and confuses
    1 %; the last 4 pixels, 10 %, 6 % and 7 %. A box takes the first 8 seconds to draw, the last 6.
    The seed says who is which; one alone is the first.
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
    """Return the randomness of one person before one image, whatever was answered before."""
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
    proposals: Sequence[Label] = (),
) -> SimulatedAnnotation:
    """Return what this person says of an image with these true boxes.

    Args:
        person: who answers.
        truth_boxes: columns ``class_name x1 y1 x2 y2``, pixels, any number of rows. What has no
            area inside the image cannot be seen and is skipped.
        width: of the image, pixels.
        height: of the image, pixels.
        ontology: the classes that can be chosen; with only one there is nothing to confuse.
        rng: from ``annotation_rng``, so that the order of the images does not matter. The same one
            gives the same sight of the image, with and without proposals.
        proposals: the boxes that are shown, in pixels.

    Returns:
        Boxes inside the image, each with an area: those made of proposals, in their order, then
        those drawn: what was seen, in the order of the truth, and what is around nothing. Each edge
        drawn is off by at most three deviations, and the deviation is at most 8 % of the side, so
        that a box can never turn inside out.

    Raises:
        DataError: a true class is not in the ontology.
    """
    foreign = set(truth_boxes["class_name"]) - set(ontology.names)
    if foreign:
        raise DataError(
            f"the truth has the class {min(foreign)!r}, the ontology only "
            f"{', '.join(ontology.names)}. Add it to the ontology."
        )
    sight = _sight(person, truth_boxes, width, height, ontology, rng)
    pace = rng.lognormal(0.0, 0.25)
    kept, drawn, seconds = _beside(proposals, sight, person, rng)
    seconds += _SECONDS_TO_LOOK + person.seconds_to_draw * len(drawn)
    return SimulatedAnnotation([*kept, *drawn], round(float(seconds * pace), 2))


def _sight(
    person: SimulatedPerson,
    truth_boxes: pd.DataFrame,
    width: int,
    height: int,
    ontology: Ontology,
    rng: np.random.Generator,
) -> list[Label]:
    """Return what the person would draw on the bare image."""
    edges = as_boxes(truth_boxes[BOX_COLUMNS].to_numpy(dtype=np.float64))
    there = clip_boxes(edges, width=width, height=height)
    can_be_seen = (there[:, 2:] - there[:, :2] >= _THINNEST).all(axis=1)
    there_names = truth_boxes["class_name"].to_numpy(dtype=object)[can_be_seen]
    there = there[can_be_seen]
    seen = rng.random(len(there)) >= person.miss_rate
    drawn = _jitter(there, person.jitter_pixels, rng)[seen]
    names = [
        _perhaps_another(str(name), person.confusion_rate, ontology, rng)
        for name in there_names[seen]
    ]
    extras = int(rng.binomial(max(len(there), 1), person.extra_rate))
    drawn = np.vstack([drawn, _boxes_around_nothing(extras, there, width, height, rng)])
    names += [str(rng.choice(ontology.names)) for _ in range(extras)]
    return [
        Label.box(name, *(float(edge) for edge in box))
        for name, box in zip(names, clip_boxes(drawn, width=width, height=height), strict=True)
    ]


def _beside(
    proposals: Sequence[Label],
    sight: Sequence[Label],
    person: SimulatedPerson,
    rng: np.random.Generator,
) -> tuple[list[Label], list[Label], float]:
    """Return what becomes of the proposals, what is left to draw, and the seconds they took."""
    overlap = iou_matrix(_edges(proposals), _edges(sight))
    left, said, seconds = list(range(len(sight))), [], 0.0
    for row, proposal in zip(overlap, proposals, strict=True):
        nearest = max(left, key=row.__getitem__, default=None)
        if nearest is not None and row[nearest] < _SAME_OBJECT_IOU:
            nearest = None
        if nearest is not None:
            left.remove(nearest)
        is_anchored = rng.random() < person.anchoring
        if is_anchored or nearest is None:
            said += [proposal] if is_anchored else []
            seconds += person.seconds_to_check
        elif (
            row[nearest] >= person.content_iou and sight[nearest].class_name == proposal.class_name
        ):
            said.append(proposal)
            seconds += person.seconds_to_check
        else:
            said.append(sight[nearest])
            seconds += person.seconds_to_move
    return said, [sight[number] for number in left], seconds


def _edges(labels: Sequence[Label]) -> Boxes:
    return as_boxes([[label.x1, label.y1, label.x2, label.y2] for label in labels])


def _jitter(boxes: Boxes, deviation: float, rng: np.random.Generator) -> Boxes:
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    off = np.clip(rng.normal(size=boxes.shape), -3.0, 3.0)
    return np.asarray(boxes + off * np.minimum(deviation, _LARGEST_JITTER * sides))


def _perhaps_another(
    name: str, confusion_rate: float, ontology: Ontology, rng: np.random.Generator
) -> str:
    others = [other for other in ontology.names if other != name]
    if others and rng.random() < confusion_rate:
        return str(rng.choice(others))
    return name


def _boxes_around_nothing(
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
