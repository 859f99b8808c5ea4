"""One set of labels per image from the answers of several people.

Regions are matched across people whatever class they carry; an object stands if as much weight of
people saw it as did not; its place is fused from theirs, its class decided by the rule that also
decides the classes of whole images. Whatever overrules somebody is marked as disputed, and is
among the conflicts with its kind. ``docs/algorithms/fusion.md`` has the rules and what they reach.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.agreement import mean_f1
from annotation_platform.consensus.classes import decide_classes
from annotation_platform.consensus.common import Common
from annotation_platform.consensus.conflicts import find_conflicts
from annotation_platform.consensus.evidence import MAJORITY
from annotation_platform.consensus.fusion import Spread, clip_region, fuse
from annotation_platform.consensus.objects import (
    Candidate,
    LabelledObjects,
    Resolved,
    Task,
    Verdict,
    drawn_extent,
    outside_ontology,
    read_tasks,
    sort_out,
)
from annotation_platform.consensus.overlap import overlap_matrix
from annotation_platform.consensus.weights import Weights, weigh_people
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import (
    AREAS,
    CLASSIFICATIONS,
    NOTHING,
    REGIONS,
    UNSURE,
    Label,
    boxes_of,
    median_of,
)
from annotation_platform.schema.tables import Conflicts, ConsensusLabels, Frame

_LEVEL = 0.2
"""Where as many saw an object as did not, one side outweighs the other only by more than this
share of all weight: by half as much again. The weights are estimates, and of two people who weigh
nearly the same neither is to decide alone."""


_DECIMALS = 6
"""Of pixels and shares: far below what anybody can draw."""


@dataclass(frozen=True)
class Consensus:
    """The resolved labels of a round, how they came about and how far people agreed on them."""

    labels: Frame[ConsensusLabels]
    conflicts: Frame[Conflicts]
    mean_agreement: float  # mean pairwise F1 at the matching threshold; NaN for single answers
    disputed: int  # labels settled against somebody's vote
    rejected: int  # objects that were turned down
    method: str  # by which classes were decided
    reason: str  # why by this one
    workers: pd.DataFrame  # how well each names classes
    common: Common


def counting_annotations(human_labels: pd.DataFrame, disregarded: Collection[str]) -> pd.DataFrame:
    """Return the rows of ``human_labels`` that a consensus is made of.

    Those of tasks whose answer is not known, by annotators who are not ``disregarded``.
    """
    counts = (human_labels["purpose"] == "label") & ~human_labels["annotator"].isin(disregarded)
    return human_labels[counts]


def resolve_consensus(
    human_labels: pd.DataFrame,
    *,
    iou_threshold: float = 0.5,
    ontology: Ontology | None = None,
    images: pd.DataFrame | None = None,
    quality: pd.DataFrame | None = None,
    gold: pd.DataFrame | None = None,
    method: str = "",
    seed: int = 0,
) -> Consensus:
    """Return one resolved set of labels per image; the order of the annotators does not matter.

    An image that turns out empty keeps one row with ``shape`` = ``none``; one of which everybody
    was unsure, one with ``shape`` = ``unsure``.

    Args:
        human_labels: a ``human_labels`` table: counted answers only.
        iou_threshold: least overlap of two regions of the same object, in ``(0, 1]``; see
            ``matching.group_labels``.
        ontology: the classes. A class outside it counts for whether an object is there, not for
            what it is. Without it one class is chosen per image unless somebody chose several.
        images: ``image_id``, ``width`` and ``height``: what lies outside is cut off. Where it is
            missing, distances between keypoints are relative to all that was drawn in the round.
        quality: what is known of people from elsewhere, see ``weights.weigh_people``; without it
            they are weighed by each other.
        gold: known classes: ``task``, a ``label_id`` of the result, and ``label``.
        method: by which classes are decided, as for ``evidence.resolve_classes``.
        seed: of what is drawn.
    """
    tasks = read_tasks(human_labels, images)
    choose_one = _choose_one(human_labels, ontology)
    annotations = [
        sort_out(task, iou_threshold=iou_threshold, choose_one=choose_one) for task in tasks
    ]
    candidates = [each for said in annotations for each in (*said.regions, *said.choices)]
    people = sorted({person for task in tasks for person in task.people})
    weights = weigh_people(candidates, people, quality)
    presence = [_presence(each, weights, ontology) for each in candidates]
    ids = _label_ids(candidates, presence)
    regions, choices = (
        decide_classes(votes, boxes, gold=gold, method=method, seed=seed)
        for votes, boxes in _questions(candidates, ids, ontology)
    )
    verdicts = regions.verdicts | choices.verdicts
    spread = Spread.among(each.labels for each in candidates)
    resolved = [
        _place(each, there, label_id, verdicts, weights, spread)
        for each, there, label_id in zip(candidates, presence, ids, strict=True)
    ]
    asked = [each for each in (regions, choices) if each.verdicts]
    by = ", ".join(dict.fromkeys(each.method for each in asked)) or MAJORITY
    extent = drawn_extent(human_labels)
    # Sums differ in their last digits with the order of people; a version is named by its bytes.
    labels = ConsensusLabels.from_rows(_rows(annotations, resolved)).round(_DECIMALS)
    return Consensus(
        labels=labels,
        conflicts=find_conflicts(annotations, resolved, ontology=ontology).round(_DECIMALS),
        mean_agreement=mean_f1(tasks, iou_threshold=iou_threshold),
        disputed=int(labels["disputed"].sum()),
        rejected=sum(each.label is None for each in resolved),
        method=by,
        reason=" ".join(dict.fromkeys(each.reason for each in asked)) or "Nobody named a class.",
        workers=pd.concat([each.workers for each in asked or [regions]], ignore_index=True),
        common=Common(weights, regions.naming, choices.naming, spread, choose_one, extent, by),
    )


def resolve_task(
    annotations: pd.DataFrame,
    common: Common,
    *,
    iou_threshold: float,
    ontology: Ontology | None = None,
    images: pd.DataFrame | None = None,
) -> tuple[LabelledObjects, list[Resolved]]:
    """Return what was said of one image and what becomes of it, by what its round has in common.

    With all answers of the task these are its labels in the round, where most votes decided about
    classes; with some of them left out, what it would have been without those, everybody weighing
    what they do. ``there`` is computed, the posterior of a class is that of the votes alone.

    Args:
        answers: the ``human_labels`` of one task, whole answers.
        common: of the round.
        iou_threshold: as in the round.
        ontology: as in the round.
        images: ``image_id``, ``width`` and ``height``.
    """
    (task,) = read_tasks(annotations, images, extent=common.extent)
    said = sort_out(task, iou_threshold=iou_threshold, choose_one=common.choose_one)
    candidates = [*said.regions, *said.choices]
    presence = [_presence(each, common.weights, ontology) for each in candidates]
    ids = _label_ids(candidates, presence)
    verdicts = {}
    for naming, (votes, boxes) in zip(
        (common.regions, common.choices), _questions(candidates, ids, ontology), strict=True
    ):
        for question, each in votes.items():
            name, share = naming.decide(question, each, boxes.get(question))
            verdicts[question] = Verdict(name, share, level=share < 1.0)
    resolved = [
        _place(each, there, label_id, verdicts, common.weights, common.spread)
        for each, there, label_id in zip(candidates, presence, ids, strict=True)
    ]
    return said, resolved


@dataclass(frozen=True)
class _Presence:
    posterior: float
    level: bool
    stands: bool


def _choose_one(human_labels: pd.DataFrame, ontology: Ontology | None) -> bool:
    if ontology is not None:
        return ontology.choose == "one"
    chosen = human_labels[human_labels["shape"].isin(CLASSIFICATIONS)]
    return not chosen.duplicated(["task_id", "annotator"]).any()


def _presence(candidate: Candidate, weights: Weights, ontology: Ontology | None) -> _Presence:
    """Return how sure it is that a candidate is there, from who saw it and who did not.

    The log odds are the sum of those of its supporters less the sum of those of the others. That
    is Bayes' rule with the prior under which equal people, evenly split, leave it open.
    """
    odds = weights.of(candidate.owners) - weights.of(candidate.absent)
    nameable = any(not outside_ontology(label, ontology) for label in candidate.labels)
    even = 2 * len(candidate.owners) == len(candidate.task.voters)
    level = even and abs(odds) <= _LEVEL * weights.of(candidate.task.voters)
    posterior = float(1.0 / (1.0 + np.exp(-odds)))
    return _Presence(posterior, level, stands=nameable and (level or odds >= 0))


def _label_ids(candidates: Sequence[Candidate], presence: Sequence[_Presence]) -> list[str | None]:
    """Return image and running number for what stands, None for the rest."""
    numbers: Counter[str] = Counter()
    ids: list[str | None] = []
    for candidate, there in zip(candidates, presence, strict=True):
        image_id = candidate.task.image_id
        ids.append(f"{image_id}:{numbers[image_id]:04d}" if there.stands else None)
        numbers[image_id] += there.stands
    return ids


def _questions(
    candidates: Sequence[Candidate], ids: Sequence[str | None], ontology: Ontology | None
) -> list[tuple[dict[str, list[tuple[str, str]]], dict[str, FloatArray]]]:
    """Return who named what stands, and the boxes around it: of regions, then of images.

    They are two kinds of questions: who names one well need not name the other well.
    """
    kinds: dict[bool, dict[str, list[tuple[str, str]]]] = {True: {}, False: {}}
    boxes = {}
    for candidate, label_id in zip(candidates, ids, strict=True):
        if label_id is None:
            continue
        shape = candidate.labels[0].shape
        kinds[shape in REGIONS][label_id] = [
            (owner, str(label.class_name))
            for owner, label in zip(candidate.owners, candidate.labels, strict=True)
            if not outside_ontology(label, ontology)
        ]
        if shape in AREAS:
            boxes[label_id] = median_of(boxes_of(candidate.labels))
    return [(kinds[True], boxes), (kinds[False], {})]


def _place(
    candidate: Candidate,
    there: _Presence,
    label_id: str | None,
    verdicts: Mapping[str, Verdict],
    weights: Weights,
    spread: Spread,
) -> Resolved:
    """Return what becomes of a candidate: turned down, or a label where its supporters drew it."""
    if label_id is None:
        return Resolved(candidate, there.posterior, there.level)
    verdict = verdicts[label_id]
    precision = [weights.precision[owner] for owner in candidate.owners]
    fused = fuse(
        candidate.labels, precision, candidate.overlap, class_name=verdict.class_name, spread=spread
    )
    label = clip_region(fused, candidate.task.size)
    if label is None:
        # Nothing of it lies in the image: one of the conflicts says so.
        return Resolved(candidate, there.posterior, there.level)
    mean_overlap = float("nan")
    if label.shape in REGIONS:
        covers = overlap_matrix(candidate.labels, [label], image_size=candidate.task.extent)
        mean_overlap = float(covers.mean())
    return Resolved(candidate, there.posterior, there.level, label, label_id, verdict, mean_overlap)


def _rows(
    annotations: Sequence[LabelledObjects], resolved: Sequence[Resolved]
) -> list[dict[str, object]]:
    of_task: dict[str, list[Resolved]] = {}
    for each in resolved:
        if each.label is not None:
            of_task.setdefault(each.candidate.task.task_id, []).append(each)
    rows: list[dict[str, object]] = []
    for said in annotations:
        kept = of_task.get(said.task.task_id, [])
        rows += [_row(each) for each in kept] if kept else [_bare_row(said)]
    return rows


def _row(each: Resolved) -> dict[str, object]:
    assert each.label is not None
    candidate, label = each.candidate, each.label
    support = len(candidate.owners)
    votes = sum(one.class_name == label.class_name for one in candidate.labels)
    return {
        **_same(candidate.task),
        "label_id": each.label_id,
        **_columns(label),
        "support": support,
        "class_agreement": votes / support,
        "mean_iou": each.mean_overlap,
        "disputed": votes < support or bool(candidate.absent),
    }


def _bare_row(said: LabelledObjects) -> dict[str, object]:
    """Return the row of an image in which nothing was found, or of which nobody was sure.

    Nothing that anybody said was said by enough; whoever said something is overruled.
    """
    task = said.task
    label = NOTHING if task.voters else UNSURE
    support = len(set(task.voters) - set(task.owners)) if task.voters else len(task.unsure)
    return {
        **_same(task),
        "label_id": f"{task.image_id}:{label.shape}",
        **_columns(label),
        "support": support,
        "class_agreement": None,
        "mean_iou": None,
        "disputed": support < len(task.voters) or not task.voters,
    }


def _same(task: Task) -> dict[str, object]:
    return {
        "round_id": task.round_id,
        "task_id": task.task_id,
        "image_id": task.image_id,
        "annotations": len(task.people),
    }


def _columns(label: Label) -> dict[str, object]:
    names = ["shape", "class_name", *BOX_COLUMNS, "geometry"]
    return {name: getattr(label, name) for name in names}
