"""Where the answers of a round contradict each other, the ontology or the image.

Each conflict is of one kind:

================  ============================================================================
class             those who drew an object call it by different names
overlap           their regions of it cover different places
missing           some drew it, others did not: it was overlooked, or it is not there
duplicate         one object was drawn twice
outside_ontology  a class that is not there, not drawn in this way, or one of several too many
outside_image     a region that leaves the image or has no area
unsure            somebody could not tell
tied              no rule can say which side is right: it comes beside a class or missing
================  ============================================================================

``_settled`` is the one place that says which of them a rule has settled.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.objects import (
    Candidate,
    Copy,
    LabelledObjects,
    Resolved,
    Task,
    outside_ontology,
)
from annotation_platform.consensus.overlap import overlap_matrix, pairs_of
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS, SHAPES, Label
from annotation_platform.schema.tables import Conflicts

SURE = 0.8
"""Posterior from which on a rule's word is taken."""

ALIKE = 0.75
"""Mean overlap of people's regions of an object below which they are in conflict."""

CLOSE = 0.6
"""Mean overlap with the resolved region from which on that conflict is settled."""

NEIGHBOURS = 0.7
"""Overlap up to which two regions that only one person drew are taken for two objects that stand
close, as they do in crowded images."""

SAME = 0.9
"""Two resolved regions that overlap by more are perhaps one object."""


@dataclass(frozen=True)
class Conflict:
    """What contradicts what in a task; ``settled`` if nobody has to look at it."""

    task: Task
    kind: str
    annotators: Sequence[str]
    detail: str
    settled: bool
    place: Label | None = None
    label_id: str | None = None


def _settled(kind: str, *, posterior: float = 0.0, close: bool = False) -> bool:
    """Return whether a rule settled a conflict, so that nobody has to look at it.

    A class and a missing object are settled if the posterior of the side that was taken is at
    least ``SURE``; regions that differ, if the resolved one still overlaps them by ``CLOSE`` in
    the mean; a duplicate, if the copy was certain enough to be left out, or the overlap is small
    enough for two neighbours (``close``). What is tied, unsure, or outside the ontology or the
    image is for a person.
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

    ``annotators`` are those who contradict each other; of a missing object those who are
    overruled; of the other kinds whose label it is. The place is the resolved label where there is
    one, otherwise what was drawn; it is missing where the conflict is about the whole answer.

    Args:
        answers: what was said, task by task.
        resolved: what became of every candidate in ``answers``.
        ontology: the classes; without it none is outside.
    """
    of_task: dict[str, list[Resolved]] = {}
    for each in resolved:
        of_task.setdefault(each.candidate.task.task_id, []).append(each)
    found = [
        conflict
        for said in annotations
        for conflict in conflicts_in_task(said, of_task.get(said.task.task_id, []), ontology)
    ]
    numbers: Counter[tuple[str, str]] = Counter()
    rows = []
    for conflict in found:
        key = (conflict.task.image_id, conflict.kind)
        rows.append(_row(conflict, numbers[key]))
        numbers[key] += 1
    return Conflicts.from_rows(rows)


def conflicts_in_task(
    said: LabelledObjects, resolved: Sequence[Resolved], ontology: Ontology | None
) -> Iterator[Conflict]:
    """Yield the conflicts of one task, object by object; ``resolved`` are those in ``said``."""
    task = said.task
    if task.unsure:
        detail = f"{len(task.unsure)} of {len(task.people)} could not tell."
        yield Conflict(task, "unsure", task.unsure, detail, _settled("unsure"))
    for each in resolved:
        yield from _about_presence(each)
        yield from _about_class(each)
        yield from _about_place(each)
    for copy in said.copies:
        yield _about_copy(copy, resolved)
    yield from _resolved_twice(task, resolved)
    for label, owner in zip(task.labels, task.owners, strict=True):
        if label.class_name is not None and outside_ontology(label, ontology):
            yield _foreign(task, label, owner, resolved, ontology)
        problem = outside_image(label, task.size)
        if problem:
            yield Conflict(
                task, "outside_image", [owner], f"{owner}'s {label.class_name} {problem}.",
                _settled("outside_image"), label, _label_id(label, owner, resolved),
            )  # fmt: skip


def _about_presence(each: Resolved) -> Iterator[Conflict]:
    """Yield that some did not say it is there, and whether as much speaks for it as against it."""
    candidate = each.candidate
    if not candidate.absent:
        return
    support, voters = len(candidate.owners), len(candidate.task.voters)
    kept = each.label is not None
    posterior = each.there if kept else 1.0 - each.there
    verb = "chose" if candidate.labels[0].shape in CLASSIFICATIONS else "drew"
    said = f"{support} of {voters} {verb} it"
    overruled = candidate.absent if kept else candidate.owners
    outcome = f"{'kept' if kept else 'turned down'}, rightly with probability {posterior:.2f}"
    settled = _settled("missing", posterior=posterior)
    yield _conflict(each, "missing", overruled, f"{said}; {outcome}.", settled=settled)
    if each.level:
        detail = f"{said}; as much speaks for it as against it."
        yield _conflict(each, "tied", candidate.task.voters, detail)


def _about_class(each: Resolved) -> Iterator[Conflict]:
    candidate = each.candidate
    several = [
        owner
        for owner, label in zip(candidate.owners, candidate.labels, strict=True)
        if label.class_name is None
    ]
    for owner in several:
        detail = f"{owner} chose several classes where one is to be chosen."
        yield _conflict(each, "outside_ontology", [owner], detail)
    votes = Counter(label.class_name for label in candidate.labels if label.class_name is not None)
    if len(votes) < 2 or each.verdict is None or each.label is None:
        return
    verdict = each.verdict
    counts = sorted(votes.items(), key=lambda item: (-item[1], item[0]))
    said = ", ".join(f"{count} said {name}" for name, count in counts)
    detail = f"{said}; {verdict.class_name} stands with probability {verdict.posterior:.2f}."
    settled = _settled("class", posterior=verdict.posterior)
    yield _conflict(each, "class", candidate.owners, detail, settled=settled)
    if verdict.level and not settled:
        yield _conflict(each, "tied", candidate.owners, f"{said}: the votes are level.")


def _about_place(each: Resolved) -> Iterator[Conflict]:
    candidate = each.candidate
    if each.label is None or len(candidate.owners) < 2 or each.label.shape not in REGIONS:
        return
    pairs = candidate.overlap[pairs_of(len(candidate.owners))]
    if pairs.mean() < ALIKE:
        detail = (
            f"The regions of {len(candidate.owners)} people overlap by {pairs.mean():.2f} in the "
            f"mean, at least {pairs.min():.2f}; the resolved one overlaps them by "
            f"{each.mean_overlap:.2f}."
        )
        settled = _settled("overlap", close=each.mean_overlap >= CLOSE)
        yield _conflict(each, "overlap", candidate.owners, detail, settled=settled)


def _about_copy(copy: Copy, resolved: Sequence[Resolved]) -> Conflict:
    of = next((each for each in resolved if each.candidate is copy.of), None)
    detail = (
        f"{copy.owner} drew two regions of class {copy.label.class_name} that overlap by "
        f"{copy.overlap:.2f}; {'the second was left out' if copy.dropped else 'both were kept'}."
    )
    decided = copy.dropped or copy.overlap <= NEIGHBOURS
    settled = _settled("duplicate", close=decided)
    label_id = of.label_id if of else None
    return Conflict(copy.of.task, "duplicate", [copy.owner], detail, settled, copy.label, label_id)


def _resolved_twice(task: Task, resolved: Sequence[Resolved]) -> Iterator[Conflict]:
    kept = [each for each in resolved if each.label is not None and each.label.shape in REGIONS]
    labels = [each.label for each in kept if each.label is not None]
    if len(labels) < 2:
        return
    overlap = overlap_matrix(labels, labels, image_size=task.extent)
    for one, other in zip(*np.nonzero(np.triu(overlap > SAME, k=1)), strict=True):
        people = sorted({*kept[one].candidate.owners, *kept[other].candidate.owners})
        detail = (
            f"{kept[one].label_id} ({labels[one].class_name}) and {kept[other].label_id} "
            f"({labels[other].class_name}) overlap by {overlap[one, other]:.2f}."
        )
        yield _conflict(kept[other], "duplicate", people, detail)


def _foreign(
    task: Task, label: Label, owner: str, resolved: Sequence[Resolved], ontology: Ontology | None
) -> Conflict:
    shape = None if ontology is None else ontology.shape_of.get(str(label.class_name))
    reason = "is no class of the ontology" if shape is None else f"is drawn as {shape}"
    detail = f"{owner} said {label.class_name} with a {label.shape}, but it {reason}."
    return Conflict(
        task, "outside_ontology", [owner], detail, _settled("outside_ontology"), label,
        _label_id(label, owner, resolved),
    )  # fmt: skip


def outside_image(label: Label, size: tuple[float, float] | None) -> str:
    """Return how a region parts from its image, or nothing if it lies inside.

    A rotated box may stick out as long as its centre does not: an object at the edge of a
    image cannot be boxed otherwise.

    Args:
        label: any label; what is no region is inside.
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
    place = each.label or _drawn(each.candidate)
    return Conflict(each.candidate.task, kind, annotators, detail, settled, place, each.label_id)


def _drawn(candidate: Candidate) -> Label:
    """Return the label that overlaps the others most."""
    return candidate.labels[int(np.argmax(candidate.overlap.sum(axis=1)))]


def _row(conflict: Conflict, number: int) -> dict[str, object]:
    task, place = conflict.task, conflict.place
    return {
        "round_id": task.round_id,
        "task_id": task.task_id,
        "image_id": task.image_id,
        "conflict_id": f"{task.image_id}:{conflict.kind}:{number:04d}",
        "kind": conflict.kind,
        "label_id": conflict.label_id,
        "shape": place.shape if place else None,
        "class_name": place.class_name if place else None,
        **{name: getattr(place, name) if place else None for name in BOX_COLUMNS},
        "geometry": place.geometry if place else "",
        "annotators": ",".join(sorted(conflict.annotators)),
        "detail": conflict.detail,
        "settled": conflict.settled,
    }
