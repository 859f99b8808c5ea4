"""The labelled objects of each task: objects that annotators drew and classes that they chose."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from annotation_platform.consensus.matching import Group, content, group_labels
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, NOTHING, REGIONS, UNSURE, Label
from annotation_platform.schema.shapes.overlap import labels_of, overlap_matrix
from annotation_platform.schema.tables import HumanLabels

CERTAIN_COPY = 0.9
"""Two regions of one annotator that overlap by more are one object drawn twice."""


SEVERAL = Label("choice")
"""The label of an annotator who chose several classes in a task that allows one."""


@dataclass(frozen=True)
class AnnotatedTask:
    """The counted annotations of one task: one image in one step of a round."""

    round_id: str
    task_id: str
    image_id: str
    size: tuple[float, float] | None  # width and height in pixels, if known
    extent: tuple[float, float]  # the size, or else the extent of all regions of the round
    people: tuple[str, ...]  # annotators whose annotations count, in the order of their names
    unsure: tuple[str, ...]  # those of them who could not decide: they do not vote
    labels: tuple[Label, ...]  # regions and choices of the others
    owners: tuple[str, ...]  # annotator of each label

    @property
    def voters(self) -> tuple[str, ...]:
        """The annotators who vote on every object of the task."""
        return tuple(person for person in self.people if person not in self.unsure)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One object that at least one annotator drew, or a choice for the whole image."""

    task: AnnotatedTask
    labels: tuple[Label, ...]  # one per supporter
    owners: tuple[str, ...]  # the supporters, each once
    overlap: FloatArray  # (n, n) of the labels

    @property
    def absent(self) -> tuple[str, ...]:
        """The voters of the task who did not label the object."""
        return tuple(person for person in self.task.voters if person not in self.owners)


@dataclass(frozen=True, eq=False)
class DuplicateRegion:
    """A second label that one annotator drew of the same object, and the overlap of the two."""

    label: Label
    owner: str
    of: Candidate
    overlap: float
    dropped: bool  # whether it is certain enough to be left out


@dataclass(frozen=True)
class ClassVerdict:
    """The class of one object, decided from the classes that its supporters gave it."""

    class_name: str
    posterior: float  # that it is this class, 0 to 1
    level: bool  # whether another class has as many votes


@dataclass(frozen=True, eq=False)
class Resolved:
    """The outcome of a candidate."""

    candidate: Candidate
    there: float  # posterior that the object exists, 0 to 1
    level: bool  # whether the weights for and against it are tied
    label: Label | None = None  # None: rejected
    label_id: str | None = None
    verdict: ClassVerdict | None = None
    mean_overlap: float = float("nan")  # of the supporters' regions with the label


@dataclass(frozen=True)
class LabelledObjects:
    """The labels of one task, matched into objects."""

    task: AnnotatedTask
    regions: list[Candidate]
    choices: list[Candidate]
    copies: list[DuplicateRegion] = field(default_factory=list)


def read_tasks(
    human_labels: pd.DataFrame,
    images: pd.DataFrame | None,
    *,
    extent: tuple[float, float] | None = None,
) -> list[AnnotatedTask]:
    """Return the annotated tasks, in the order of their ids.

    Args:
        human_labels: a ``human_labels`` table, or its columns up to the geometry.
        images: ``image_id``, ``width`` and ``height``, if known.
        extent: width and height of images that ``images`` lacks; by default ``drawn_extent``.
    """
    sizes = _sizes(images)
    extent = extent or drawn_extent(human_labels)
    labels = labels_of(human_labels)
    owners = human_labels[HumanLabels.annotator].astype(str).tolist()
    numbers, _ = pd.factorize(human_labels[HumanLabels.task_id], sort=True)
    order = np.argsort(numbers, kind="stable")
    keys = (
        human_labels[[HumanLabels.round_id, HumanLabels.task_id, HumanLabels.image_id]]
        .astype(str)
        .to_numpy()
    )
    tasks = []
    for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if not len(rows):
            continue
        round_id, task_id, image_id = keys[rows[0]]
        unsure = {owners[at] for at in rows if labels[at].shape == UNSURE.shape}
        votes = [
            at for at in rows if owners[at] not in unsure and labels[at].shape != NOTHING.shape
        ]
        size = sizes.get(image_id)
        tasks.append(
            AnnotatedTask(
                round_id, task_id, image_id, size, size or extent,
                people=tuple(sorted({owners[at] for at in rows})),
                unsure=tuple(sorted(unsure)),
                labels=tuple(labels[at] for at in votes),
                owners=tuple(owners[at] for at in votes),
            )
        )  # fmt: skip
    return tasks


def sort_out(task: AnnotatedTask, *, iou_threshold: float, choose_one: bool) -> LabelledObjects:
    """Return the objects drawn and the classes chosen in a task, and the regions drawn twice.

    An annotator's second region of the same class and object is a copy. It is left out if others
    drew only one of the two, or if the two overlap by more than ``CERTAIN_COPY``. If no other
    annotator drew either, they may be two neighbouring objects: both are kept.
    """
    drawn = [at for at, label in enumerate(task.labels) if label.shape in REGIONS]
    # Sorted by content, so that the result does not depend on the order of rows.
    drawn.sort(key=lambda at: (content(task.labels[at]), task.owners[at]))
    labels = [task.labels[at] for at in drawn]
    owners = [task.owners[at] for at in drawn]
    overlap = overlap_matrix(labels, labels, image_size=task.extent)
    groups = group_labels(labels, owners, overlap, iou_threshold=iou_threshold)
    candidates = [
        Candidate(
            task,
            labels=tuple(labels[at] for at in group),
            owners=tuple(owners[at] for at in group),
            overlap=overlap[np.ix_(group, group)],
        )
        for group in groups
    ]
    number_of = {int(at): number for number, group in enumerate(groups) for at in group}
    copies = {}
    for at, twin in _twins(labels, owners, overlap, groups, iou_threshold):
        of = candidates[number_of[twin]]
        shared = float(overlap[at, twin])
        certain = len(of.owners) > 1 or shared > CERTAIN_COPY
        copies[number_of[at]] = DuplicateRegion(labels[at], owners[at], of, shared, dropped=certain)
    dropped = {number for number, copy in copies.items() if copy.dropped}
    return LabelledObjects(
        task,
        regions=[each for number, each in enumerate(candidates) if number not in dropped],
        choices=_choices(task, one=choose_one),
        copies=list(copies.values()),
    )


def _twins(
    labels: Sequence[Label],
    owners: Sequence[str],
    overlap: FloatArray,
    groups: Sequence[Group],
    threshold: float,
) -> Iterator[tuple[int, int]]:
    """Yield the positions of each region that only one annotator drew and of its original."""
    support = {int(at): len(group) for group in groups for at in group}
    alone = [at for at in range(len(labels)) if support[at] == 1]
    for at in alone:
        twins = [
            other
            for other in np.flatnonzero(overlap[at] >= threshold).tolist()
            if owners[other] == owners[at]
            and labels[other].class_name == labels[at].class_name
            # Of two regions without other supporters, the second is the copy.
            and (support[other] > 1 or other < at)
        ]
        if twins:
            yield at, max(twins, key=lambda other: (support[other], overlap[at, other], -other))


def _choices(task: AnnotatedTask, *, one: bool) -> list[Candidate]:
    """Return the choices for the image: one candidate, or one for each class.

    If one class is allowed, an annotator who chose several votes for its presence, not for a class.
    """
    chosen: dict[str, dict[str, Label]] = {}
    for label, owner in zip(task.labels, task.owners, strict=True):
        if label.shape in CLASSIFICATIONS:
            own = chosen.setdefault("" if one else str(label.class_name), {})
            twice = owner in own and own[owner] != label
            own[owner] = SEVERAL if twice else label
    return [
        Candidate(
            task,
            labels=tuple(own[owner] for owner in sorted(own)),
            owners=tuple(sorted(own)),
            overlap=np.ones((len(own), len(own))),
        )
        for _, own in sorted(chosen.items())
    ]


def outside_ontology(label: Label, ontology: Ontology | None) -> bool:
    """Return whether the ontology lacks the class, gives it another shape, or allows only one."""
    if label.class_name is None:
        return True
    return ontology is not None and ontology.shape_of.get(label.class_name) != label.shape


def _sizes(images: pd.DataFrame | None) -> dict[str, tuple[float, float]]:
    if images is None:
        return {}
    each = images.drop_duplicates("image_id")
    rows = zip(each["image_id"], each["width"], each["height"], strict=True)
    return {str(image_id): (float(width), float(height)) for image_id, width, height in rows}


def drawn_extent(human_labels: pd.DataFrame) -> tuple[float, float]:
    """Return width and height of the extent of all regions of the round, 1 or more."""
    corner = human_labels[[HumanLabels.x2, HumanLabels.y2]].astype("float64").max()
    width, height = (1.0 if np.isnan(each) else max(float(each), 1.0) for each in corner)
    return width, height
