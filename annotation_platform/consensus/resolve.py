"""One set of labels per image from the annotations of several annotators.

Regions are matched across annotators regardless of class. An object is accepted if the annotators
who saw it weigh at least as much as those who did not. Its region is fused from theirs; its class
is decided by the rule that also decides the classes of whole images. A label that overrules an
annotator is marked as disputed and has a row among the conflicts, with the kind of the conflict.
``docs/algorithms/fusion.md`` has the rules and their measured accuracy.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from annotation_platform.consensus.agreement import mean_f1
from annotation_platform.consensus.classes import Classes, decide_classes
from annotation_platform.consensus.common import Common
from annotation_platform.consensus.conflicts import find_conflicts
from annotation_platform.consensus.evidence import MAJORITY
from annotation_platform.consensus.fusion import Spread, clip_region, fuse
from annotation_platform.consensus.objects import (
    AnnotatedTask,
    Candidate,
    ClassVerdict,
    LabelledObjects,
    Resolved,
    drawn_extent,
    outside_ontology,
    read_tasks,
    sort_out,
)
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
from annotation_platform.schema.shapes.overlap import overlap_matrix
from annotation_platform.schema.tables import Conflicts, ConsensusLabels, Frame, HumanLabels

_LEVEL = 0.2
"""If equally many annotators saw and did not see an object, one side outweighs the other only by
more than this share of all weight, that is by half as much again. The weights are estimates: of
two annotators with nearly equal weights, neither decides alone."""


_DECIMALS = 6
"""Decimals of stored pixels and shares: far finer than any annotator can draw."""


@dataclass(frozen=True)
class Consensus:
    """The resolved labels of a round, how they were resolved, and how far annotators agreed."""

    labels: Frame[ConsensusLabels]
    conflicts: Frame[Conflicts]
    mean_agreement: float  # mean pairwise F1 at the matching threshold; NaN for single annotations
    disputed: int  # labels that overrule at least one annotator
    rejected: int  # objects that were rejected
    method: str  # method that decided the classes
    reason: str  # reason for this method
    workers: pd.DataFrame  # accuracy of each annotator in naming classes
    common: Common


def counting_annotations(human_labels: pd.DataFrame, disregarded: Collection[str]) -> pd.DataFrame:
    """Return the rows of ``human_labels`` that enter a consensus.

    These are the rows of tasks other than gold tasks, by annotators who are not ``disregarded``.
    """
    counts = (human_labels[HumanLabels.purpose] == "label") & ~human_labels[
        HumanLabels.annotator
    ].isin(disregarded)
    return human_labels[counts]


def resolve_consensus(
    human_labels: pd.DataFrame,
    *,
    iou_threshold: float = 0.5,
    ontology: Ontology | None = None,
    images: pd.DataFrame | None = None,
    quality: pd.DataFrame | None = None,
    method: str = "",
) -> Consensus:
    """Return one resolved set of labels per image; the order of the annotators does not matter.

    An image that is resolved as empty keeps one row with ``shape`` = ``none``; an image of which
    every annotator was unsure keeps one row with ``shape`` = ``unsure``.

    Args:
        human_labels: a ``human_labels`` table: counted annotations only.
        iou_threshold: least overlap of two regions of one object, in ``(0, 1]``; see ``matching``.
        ontology: the classes. A vote for a class outside it counts for the presence of the object,
            not for its class. Without an ontology one class is chosen per image unless an
            annotator chose several.
        images: ``image_id``, ``width`` and ``height``: regions are cut at the edge of the image.
            For an image that is missing here, distances between keypoints are relative to the
            extent of all regions of the round.
        quality: annotators' quality from elsewhere, see ``weigh_people``; default: from agreement.
        method: method that decides the classes, as for ``evidence.resolve_classes``.
    """
    tasks = read_tasks(human_labels, images)
    choose_one = _choose_one(human_labels, ontology)
    annotations = [
        sort_out(task, iou_threshold=iou_threshold, choose_one=choose_one) for task in tasks
    ]
    candidates = [each for objects in annotations for each in (*objects.regions, *objects.choices)]
    people = sorted({person for task in tasks for person in task.people})
    weights = weigh_people(candidates, people, quality)
    presence = [_presence(each, weights, ontology) for each in candidates]
    ids = _label_ids(candidates, presence)
    regions, choices = (
        decide_classes(votes, boxes, method=method)
        for votes, boxes in _votes_by_kind(candidates, ids, ontology)
    )
    verdicts = regions.verdicts | choices.verdicts
    spread = Spread.among(each.labels for each in candidates)
    resolved = _resolve_all(candidates, presence, ids, verdicts, weights, spread)
    method, reason, workers = _combined(regions, choices)
    extent = drawn_extent(human_labels)
    # Sums depend on the order of annotators in their last digits; the bytes of a version must not.
    labels = ConsensusLabels.from_rows(_rows(annotations, resolved)).round(_DECIMALS)
    return Consensus(
        labels=labels,
        conflicts=find_conflicts(annotations, resolved, ontology=ontology).round(_DECIMALS),
        mean_agreement=mean_f1(tasks, iou_threshold=iou_threshold),
        disputed=int(labels["disputed"].sum()),
        rejected=sum(each.label is None for each in resolved),
        method=method,
        reason=reason,
        workers=workers,
        common=Common(weights, regions.naming, choices.naming, spread, choose_one, extent, method),
    )


def resolve_task(
    annotations: pd.DataFrame,
    common: Common,
    *,
    iou_threshold: float,
    ontology: Ontology | None = None,
    images: pd.DataFrame | None = None,
) -> tuple[LabelledObjects, list[Resolved]]:
    """Return the labelled objects of one image and their resolution under its round's parameters.

    Given all annotations of the task, the result is its labels in the round, provided that classes
    were decided by majority. Given some of them, it is the labels that the task would have without
    the others, with the annotators' weights unchanged. ``there`` is computed; the posterior of a
    class is its share of the votes alone.

    Args:
        annotations: the ``human_labels`` of one task, whole annotations.
        common: the fitted parameters of the round.
        iou_threshold: as in the round.
        ontology: as in the round.
        images: ``image_id``, ``width`` and ``height``.
    """
    (task,) = read_tasks(annotations, images, extent=common.extent)
    objects = sort_out(task, iou_threshold=iou_threshold, choose_one=common.choose_one)
    candidates = [*objects.regions, *objects.choices]
    presence = [_presence(each, common.weights, ontology) for each in candidates]
    ids = _label_ids(candidates, presence)
    verdicts = {}
    for naming, (votes, boxes) in zip(
        (common.regions, common.choices), _votes_by_kind(candidates, ids, ontology), strict=True
    ):
        for label_id, each in votes.items():
            name, share = naming.decide(label_id, each, boxes.get(label_id))
            verdicts[label_id] = ClassVerdict(name, share, level=share < 1.0)
    resolved = _resolve_all(candidates, presence, ids, verdicts, common.weights, common.spread)
    return objects, resolved


def _combined(regions: Classes, choices: Classes) -> tuple[str, str, pd.DataFrame]:
    """Return method, reason and workers of both kinds of decisions together."""
    decided = [each for each in (regions, choices) if each.verdicts]
    method = ", ".join(dict.fromkeys(each.method for each in decided)) or MAJORITY
    reason = " ".join(dict.fromkeys(each.reason for each in decided)) or "No class was named."
    workers = pd.concat([each.workers for each in decided or [regions]], ignore_index=True)
    return method, reason, workers


@dataclass(frozen=True)
class _Presence:
    posterior: float
    level: bool
    accepted: bool


def _choose_one(human_labels: pd.DataFrame, ontology: Ontology | None) -> bool:
    if ontology is not None:
        return ontology.choose == "one"
    chosen = human_labels[human_labels[HumanLabels.shape].isin(CLASSIFICATIONS)]
    return not chosen.duplicated(["task_id", "annotator"]).any()


def _presence(candidate: Candidate, weights: Weights, ontology: Ontology | None) -> _Presence:
    """Return the probability that a candidate exists, from the annotators who saw it or did not.

    The log odds are the sum of the supporters' log odds minus the sum of the others'. This is
    Bayes' rule with the prior under which annotators of equal weight, evenly split, give 0.5.
    """
    odds = weights.of(candidate.owners) - weights.of(candidate.absent)
    nameable = any(not outside_ontology(label, ontology) for label in candidate.labels)
    even = 2 * len(candidate.owners) == len(candidate.task.voters)
    level = even and abs(odds) <= _LEVEL * weights.of(candidate.task.voters)
    posterior = float(1.0 / (1.0 + np.exp(-odds)))
    return _Presence(posterior, level, accepted=nameable and (level or odds >= 0))


def _label_ids(candidates: Sequence[Candidate], presence: Sequence[_Presence]) -> list[str | None]:
    """Return image id and running number for each accepted candidate, None for the others."""
    numbers: Counter[str] = Counter()
    ids: list[str | None] = []
    for candidate, there in zip(candidates, presence, strict=True):
        image_id = candidate.task.image_id
        ids.append(f"{image_id}:{numbers[image_id]:04d}" if there.accepted else None)
        numbers[image_id] += there.accepted
    return ids


def _votes_by_kind(
    candidates: Sequence[Candidate], ids: Sequence[str | None], ontology: Ontology | None
) -> list[tuple[dict[str, list[tuple[str, str]]], dict[str, FloatArray]]]:
    """Return the class votes and enclosing boxes by label id: for regions, then for whole images.

    The two kinds are decided apart: an annotator who is good at one need not be good at the other.
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


def _resolve_all(
    candidates: Sequence[Candidate],
    presence: Sequence[_Presence],
    ids: Sequence[str | None],
    verdicts: Mapping[str, ClassVerdict],
    weights: Weights,
    spread: Spread,
) -> list[Resolved]:
    return [
        _resolve_candidate(each, there, label_id, verdicts, weights, spread)
        for each, there, label_id in zip(candidates, presence, ids, strict=True)
    ]


def _resolve_candidate(
    candidate: Candidate,
    there: _Presence,
    label_id: str | None,
    verdicts: Mapping[str, ClassVerdict],
    weights: Weights,
    spread: Spread,
) -> Resolved:
    """Return the outcome of a candidate: rejected, or a label fused from its regions."""
    if label_id is None:
        return Resolved(candidate, there.posterior, there.level)
    verdict = verdicts[label_id]
    precision = [weights.precision[owner] for owner in candidate.owners]
    fused = fuse(
        candidate.labels, precision, candidate.overlap, class_name=verdict.class_name, spread=spread
    )
    label = clip_region(fused, candidate.task.size)
    if label is None:
        # No part of the region is in the image; this is reported as a conflict.
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
    for objects in annotations:
        accepted = of_task.get(objects.task.task_id, [])
        rows += [_row(each) for each in accepted] if accepted else [_bare_row(objects)]
    return rows


def _row(each: Resolved) -> dict[str, object]:
    assert each.label is not None
    candidate, label = each.candidate, each.label
    support = len(candidate.owners)
    votes = sum(one.class_name == label.class_name for one in candidate.labels)
    return {
        **_task_columns(candidate.task),
        "label_id": each.label_id,
        **_label_columns(label),
        "support": support,
        "class_agreement": votes / support,
        "mean_iou": each.mean_overlap,
        "disputed": votes < support or bool(candidate.absent),
    }


def _bare_row(objects: LabelledObjects) -> dict[str, object]:
    """Return the row of an image without accepted objects, or of which every annotator was unsure.

    No object had enough support; the annotators who labelled one are overruled.
    """
    task = objects.task
    label = NOTHING if task.voters else UNSURE
    support = len(set(task.voters) - set(task.owners)) if task.voters else len(task.unsure)
    return {
        **_task_columns(task),
        "label_id": f"{task.image_id}:{label.shape}",
        **_label_columns(label),
        "support": support,
        "class_agreement": None,
        "mean_iou": None,
        "disputed": support < len(task.voters) or not task.voters,
    }


def _task_columns(task: AnnotatedTask) -> dict[str, object]:
    return {
        "round_id": task.round_id,
        "task_id": task.task_id,
        "image_id": task.image_id,
        "annotations": len(task.people),
    }


def _label_columns(label: Label) -> dict[str, object]:
    names = ["shape", "class_name", *BOX_COLUMNS, "geometry"]
    return {name: getattr(label, name) for name in names}
