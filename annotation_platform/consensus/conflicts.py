"""Conflicts of the annotations of a round with each other, with the ontology or with the image.

Each conflict is of one kind:

================  ============================================================================
class             the annotators who drew an object gave it different classes
overlap           their regions of it overlap too little
missing           some drew it, others did not: it was overlooked, or it does not exist
duplicate         one object was drawn twice
outside_ontology  a class that does not exist or has another shape, or several where one is allowed
outside_image     a region that extends beyond the image or has no area
unsure            an annotator could not decide
tied              no rule can decide which side is right: reported with ``class`` or ``missing``
================  ============================================================================

``_settled`` alone decides which of them a rule has settled.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.objects import (
    AnnotatedTask,
    Candidate,
    DuplicateRegion,
    LabelledObjects,
    Resolved,
    outside_ontology,
)
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS, SHAPES, Label
from annotation_platform.schema.shapes.overlap import overlap_matrix, pairs_of
from annotation_platform.schema.tables import Conflicts

SURE = 0.8
"""Least posterior at which the decision of a rule settles a conflict."""

ALIKE = 0.75
"""Mean overlap of the annotators' regions of an object below which they are in conflict."""

CLOSE = 0.6
"""Least mean overlap with the resolved region at which that conflict is settled."""

NEIGHBOURS = 0.7
"""Largest overlap at which two regions that only one annotator drew are taken for two neighbouring
objects, as in crowded images."""

SAME = 0.9
"""Two resolved regions that overlap by more may be one object."""


@dataclass(frozen=True)
class Conflict:
    """A contradiction in a task; ``settled`` if it needs no review."""

    task: AnnotatedTask
    kind: str
    annotators: Sequence[str]
    detail: str
    settled: bool
    label: Label | None = None
    label_id: str | None = None


def _settled(kind: str, *, posterior: float = 0.0, close: bool = False) -> bool:
    """Return whether a rule settled a conflict, so that it needs no review.

    A class and a missing object are settled if the posterior of the accepted side is at least
    ``SURE``; differing regions, if the resolved one overlaps them by at least ``CLOSE`` in the
    mean; a duplicate, if the copy was certain enough to be left out, or the overlap is small
    enough for two neighbours (``close``). Conflicts that are tied, unsure, or outside the ontology
    or the image always need review.
    """
    if kind in {"class", "missing"}:
        return posterior >= SURE
    return kind in {"overlap", "duplicate"} and close


def find_conflicts(
    annotations: Sequence[LabelledObjects],
    resolved: Sequence[Resolved],
    *,
    ontology: Ontology | None,
) -> pd.DataFrame:
    """Return the conflicts of a round, a ``conflicts`` table: task by task, object by object.

    ``annotators`` are those who contradict each other; for a missing object those who are
    overruled; for the other kinds the author of the label. Shape, class and box are those of the
    resolved label if there is one, otherwise of a drawn label; they are missing if the conflict is
    about the whole annotation.

    Args:
        annotations: the labelled objects of each task.
        resolved: the outcome of every candidate in ``annotations``.
        ontology: the classes; without it no class is outside.
    """
    of_task: dict[str, list[Resolved]] = {}
    for each in resolved:
        of_task.setdefault(each.candidate.task.task_id, []).append(each)
    found = [
        conflict
        for objects in annotations
        for conflict in conflicts_in_task(objects, of_task.get(objects.task.task_id, []), ontology)
    ]
    numbers: Counter[tuple[str, str]] = Counter()
    rows = []
    for conflict in found:
        key = (conflict.task.image_id, conflict.kind)
        rows.append(_row(conflict, numbers[key]))
        numbers[key] += 1
    return Conflicts.from_rows(rows)


def conflicts_in_task(
    objects: LabelledObjects, resolved: Sequence[Resolved], ontology: Ontology | None
) -> Iterator[Conflict]:
    """Yield the conflicts of one task, object by object.

    ``resolved`` holds the outcomes of the candidates in ``objects``.
    """
    task = objects.task
    if task.unsure:
        detail = f"{len(task.unsure)} of {len(task.people)} could not decide."
        yield Conflict(task, "unsure", task.unsure, detail, _settled("unsure"))
    for each in resolved:
        yield from _about_presence(each)
        yield from _about_class(each)
        yield from _about_region(each)
    for copy in objects.copies:
        yield _about_copy(copy, resolved)
    yield from _resolved_twice(task, resolved)
    for label, owner in zip(task.labels, task.owners, strict=True):
        if label.class_name is not None and outside_ontology(label, ontology):
            yield _outside_ontology(task, label, owner, resolved, ontology)
        problem = outside_image(label, task.size)
        if problem:
            yield Conflict(
                task, "outside_image", [owner], f"{owner}'s {label.class_name} {problem}.",
                _settled("outside_image"), label, _label_id(label, owner, resolved),
            )  # fmt: skip


def _about_presence(each: Resolved) -> Iterator[Conflict]:
    """Yield that some annotators did not label the object, and whether the sides are tied."""
    candidate = each.candidate
    if not candidate.absent:
        return
    support, voters = len(candidate.owners), len(candidate.task.voters)
    accepted = each.label is not None
    posterior = each.there if accepted else 1.0 - each.there
    verb = "chose" if candidate.labels[0].shape in CLASSIFICATIONS else "drew"
    count = f"{support} of {voters} {verb} it"
    overruled = candidate.absent if accepted else candidate.owners
    outcome = f"{'accepted' if accepted else 'rejected'}, correct with probability {posterior:.2f}"
    settled = _settled("missing", posterior=posterior)
    yield _conflict(each, "missing", overruled, f"{count}; {outcome}.", settled=settled)
    if each.level:
        detail = f"{count}; both sides have the same weight."
        yield _conflict(each, "tied", candidate.task.voters, detail)


def _about_class(each: Resolved) -> Iterator[Conflict]:
    candidate = each.candidate
    several = [
        owner
        for owner, label in zip(candidate.owners, candidate.labels, strict=True)
        if label.class_name is None
    ]
    for owner in several:
        detail = f"{owner} chose several classes, but the ontology allows one."
        yield _conflict(each, "outside_ontology", [owner], detail)
    votes = Counter(label.class_name for label in candidate.labels if label.class_name is not None)
    if len(votes) < 2 or each.verdict is None or each.label is None:
        return
    verdict = each.verdict
    counts = sorted(votes.items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{count} × {name}" for name, count in counts)
    detail = f"{listed}; resolved as {verdict.class_name}, probability {verdict.posterior:.2f}."
    settled = _settled("class", posterior=verdict.posterior)
    yield _conflict(each, "class", candidate.owners, detail, settled=settled)
    if verdict.level and not settled:
        yield _conflict(each, "tied", candidate.owners, f"{listed}: the votes are tied.")


def _about_region(each: Resolved) -> Iterator[Conflict]:
    candidate = each.candidate
    if each.label is None or len(candidate.owners) < 2 or each.label.shape not in REGIONS:
        return
    pairs = candidate.overlap[pairs_of(len(candidate.owners))]
    if pairs.mean() < ALIKE:
        detail = (
            f"The regions of {len(candidate.owners)} annotators overlap by {pairs.mean():.2f} on "
            f"average, at least {pairs.min():.2f}; the resolved region overlaps them by "
            f"{each.mean_overlap:.2f}."
        )
        settled = _settled("overlap", close=each.mean_overlap >= CLOSE)
        yield _conflict(each, "overlap", candidate.owners, detail, settled=settled)


def _about_copy(copy: DuplicateRegion, resolved: Sequence[Resolved]) -> Conflict:
    of = next((each for each in resolved if each.candidate is copy.of), None)
    detail = (
        f"{copy.owner} drew two regions of class {copy.label.class_name} that overlap by "
        f"{copy.overlap:.2f}; {'the second was left out' if copy.dropped else 'both were kept'}."
    )
    decided = copy.dropped or copy.overlap <= NEIGHBOURS
    settled = _settled("duplicate", close=decided)
    label_id = of.label_id if of else None
    return Conflict(copy.of.task, "duplicate", [copy.owner], detail, settled, copy.label, label_id)


def _resolved_twice(task: AnnotatedTask, resolved: Sequence[Resolved]) -> Iterator[Conflict]:
    accepted = [each for each in resolved if each.label is not None and each.label.shape in REGIONS]
    labels = [each.label for each in accepted if each.label is not None]
    if len(labels) < 2:
        return
    overlap = overlap_matrix(labels, labels, image_size=task.extent)
    for one, other in zip(*np.nonzero(np.triu(overlap > SAME, k=1)), strict=True):
        people = sorted({*accepted[one].candidate.owners, *accepted[other].candidate.owners})
        detail = (
            f"{accepted[one].label_id} ({labels[one].class_name}) and {accepted[other].label_id} "
            f"({labels[other].class_name}) overlap by {overlap[one, other]:.2f}."
        )
        yield _conflict(accepted[other], "duplicate", people, detail)


def _outside_ontology(
    task: AnnotatedTask,
    label: Label,
    owner: str,
    resolved: Sequence[Resolved],
    ontology: Ontology | None,
) -> Conflict:
    shape = None if ontology is None else ontology.shape_of.get(str(label.class_name))
    reason = (
        "the ontology has no such class" if shape is None else f"the ontology expects a {shape}"
    )
    detail = f"{owner} labelled a {label.shape} as {label.class_name}, but {reason}."
    return Conflict(
        task, "outside_ontology", [owner], detail, _settled("outside_ontology"), label,
        _label_id(label, owner, resolved),
    )  # fmt: skip


def outside_image(label: Label, size: tuple[float, float] | None) -> str:
    """Return how a region extends beyond its image, or an empty text if it is inside.

    A rotated box may extend beyond the image as long as its centre is inside: an object at the
    edge of an image cannot be boxed otherwise.

    Args:
        label: any label; a label without a region is inside.
        size: width and height of the image, pixels; None if unknown: then nothing is outside.
    """
    return "" if label.x1 is None else SHAPES[label.shape].outside(label, size)


def _label_id(label: Label, owner: str, resolved: Sequence[Resolved]) -> str | None:
    for each in resolved:
        pairs = zip(each.candidate.labels, each.candidate.owners, strict=True)
        if any(one is label and by == owner for one, by in pairs):
            return each.label_id
    return None


def _conflict(
    each: Resolved, kind: str, annotators: Sequence[str], detail: str, *, settled: bool = False
) -> Conflict:
    label = each.label or _most_central(each.candidate)
    return Conflict(each.candidate.task, kind, annotators, detail, settled, label, each.label_id)


def _most_central(candidate: Candidate) -> Label:
    """Return the label that overlaps the others most."""
    return candidate.labels[int(np.argmax(candidate.overlap.sum(axis=1)))]


def _row(conflict: Conflict, number: int) -> dict[str, object]:
    task, label = conflict.task, conflict.label
    return {
        "round_id": task.round_id,
        "task_id": task.task_id,
        "image_id": task.image_id,
        "conflict_id": f"{task.image_id}:{conflict.kind}:{number:04d}",
        "kind": conflict.kind,
        "label_id": conflict.label_id,
        "shape": label.shape if label else None,
        "class_name": label.class_name if label else None,
        **{name: getattr(label, name) if label else None for name in BOX_COLUMNS},
        "geometry": label.geometry if label else "",
        "annotators": ",".join(sorted(conflict.annotators)),
        "detail": conflict.detail,
        "settled": conflict.settled,
    }
