"""Explain labels by the annotations of one image in one round.

A label is resolved again from the annotations of its image and the estimates of its round
(``consensus/common.py``), so the explanation has the inputs that made the label. The label can also
be resolved without some of the annotations, at unchanged weights of annotators.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.consensus.common import Common
from annotation_platform.consensus.conflicts import conflicts_in_task
from annotation_platform.consensus.matching import match_pairs
from annotation_platform.consensus.objects import LabelledObjects, Resolved
from annotation_platform.consensus.resolve import counting_annotations, resolve_task
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.snapshots import as_of
from annotation_platform.provenance.rebuilding.recipes import derive_consensus
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import REGIONS, Label
from annotation_platform.schema.shapes.overlap import overlap_matrix
from annotation_platform.schema.tables import ConsensusLabels, HumanLabels, ReviewedLabels
from annotation_platform.schema.tables.shared import LABEL_COLUMNS
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs

_EXHAUSTIVE = 7
"""At most this many annotations of an image are tried in every combination."""
_ROUNDING = 1e-6
"""Labels are stored to a millionth of a pixel."""


@dataclass(frozen=True)
class Vote:
    """The vote of one counted annotation on a label.

    ``says`` is the class that the annotator chose, empty if they did not mark the object;
    ``weight`` is the weight of their vote on its presence, as log odds.
    """

    annotator: str
    annotation_id: str
    submitted_at: str
    says: str
    weight: float
    overlap: float | None  # of the annotator's region with the label, 0 to 1
    proposed_by: str  # weights of the pre-annotation that was shown; empty: none
    seconds: float | None


@dataclass(frozen=True)
class LabelProvenance:
    """The provenance of one label.

    Attributes:
        label_id: id in the version.
        label: the columns of the label.
        origin: ``people``, ``auto``, or the source of an imported label.
        decision: the review decision; empty without one.
        decided_by: the reviewer's pseudonym; empty: a rule.
        votes: the vote of each counted annotation.
        there: probability, 0 to 1, that the object is present, by these votes; None: no votes.
        class_agreement: share of the annotators who marked the object that chose this class.
        conflicts: contradictions between annotations about it, and how they were settled.
        rests_on: the minimal flip set: ids of the fewest annotations of this image without which
            the label would be another one, or none; ``review`` is the reviewer's decision.
        is_smallest: whether no smaller set exists; otherwise it is the smallest set found.
        certificate: the certificate of an automatically accepted prediction.
    """

    label_id: str
    label: dict[str, Any]
    origin: str
    decision: str = ""
    decided_by: str = ""
    votes: list[Vote] = field(default_factory=list)
    there: float | None = None
    class_agreement: float | None = None
    conflicts: list[str] = field(default_factory=list)
    rests_on: list[str] = field(default_factory=list)
    is_smallest: bool = True
    certificate: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AnnotatedImage:
    """The annotations of one image in one round, with the other inputs of its labels."""

    image_id: str
    annotations: pd.DataFrame  # human_labels of the image
    reviewed: pd.DataFrame
    images: pd.DataFrame
    common: Common
    iou_threshold: float
    ontology: Ontology | None
    guideline: str
    successors: dict[str, tuple[str, ...]]  # present names of the classes
    tried: dict[frozenset[str], tuple[list[str], list[Resolved]]] = field(default_factory=dict)

    @classmethod
    def read(cls, state: VersionState, round_id: str, image_id: str) -> "AnnotatedImage":
        """Return the inputs of a version; a DataError if they were not stored."""
        inputs = state.known_inputs_of(ConsensusLabels, round_id)
        assert state.lake is not None
        annotations = state.rows("human_labels", round_id, image_id)
        annotations = counting_annotations(annotations, inputs.settings.get("disregarded", ()))
        guideline = str(annotations[HumanLabels.guideline].iloc[0]) if len(annotations) else ""
        ontology = read_guideline(state.lake.store, guideline) if guideline else None
        return cls(
            image_id=image_id,
            annotations=annotations,
            reviewed=state.rows("reviewed_labels", round_id, image_id),
            images=state.rows("cleaned_images", round_id, image_id),
            common=_common(round_id, state.lake, inputs),
            iou_threshold=float(inputs.settings["iou_threshold"]),
            ontology=ontology,
            guideline=guideline,
            successors=state.policy.ontology.successors,
        )

    @cached_property
    def resolved(self) -> tuple[LabelledObjects, list[Resolved]]:
        """The labelled objects of all annotators, and the resolved labels."""
        return self._resolve(self.annotations)

    def labels(self) -> list[Resolved]:
        """Return the labels that all annotations together give."""
        return self._without(())[1]

    def explain(self, row: dict[str, Any]) -> LabelProvenance:
        """Return the provenance of one label of the image, a row of ``training_set``."""
        reviewed = self.reviewed.iloc[0]
        target = _label(row)
        found = self._find(target)
        if (
            str(reviewed[ReviewedLabels.decided_by])
            or reviewed[ReviewedLabels.decision] != "undisputed"
        ):
            rests_on, is_smallest = ["review"], True
        elif found is None:
            rests_on, is_smallest = [], False
        else:
            rests_on, is_smallest = self.smallest_set(str(found.label_id))
        share = None
        if found is not None and found.label is not None:
            names = [each.class_name for each in found.candidate.labels]
            share = names.count(found.label.class_name) / len(names)
        return LabelProvenance(
            label_id=str(row["label_id"]),
            label=shown_label(row),
            origin=PEOPLE,
            decision=str(reviewed[ReviewedLabels.decision]),
            decided_by=str(reviewed[ReviewedLabels.decided_by]),
            votes=list(self._votes(found, target)) if found else [],
            there=round(found.there, 6) if found else None,
            class_agreement=share,
            conflicts=self._conflicts(found.label_id) if found else [],
            rests_on=rests_on,
            is_smallest=is_smallest,
        )

    def smallest_set(self, label_id: str) -> tuple[list[str], bool]:
        """Return the fewest annotations without which a consensus label is gone or renamed.

        A label is also gone if it overlaps its earlier position by less than the matching
        threshold of the round. Labels of one class are paired one to one, so that a near label
        does not replace a lost one. Sets of one size are tried in the order of their ids; the flag
        is true if all smaller sets were tried.
        """
        ids = sorted(self.annotations[HumanLabels.annotation_id].unique())
        if len(ids) > _EXHAUSTIVE:
            return self._greedy(label_id, ids), False
        for size in range(1, len(ids) + 1):
            for several in itertools.combinations(ids, size):
                if label_id not in self.remaining(several):
                    return list(several), True
        return [], True

    def _greedy(self, label_id: str, ids: Sequence[str]) -> list[str]:
        """Return a set found by removing the strongest votes first, then reduced one by one."""
        (found,) = [each for each in self.labels() if each.label_id == label_id]
        owner_of = dict(
            zip(
                self.annotations[HumanLabels.annotation_id],
                self.annotations[HumanLabels.annotator],
                strict=True,
            )
        )
        order = sorted(
            ids,
            key=lambda each: (
                owner_of[each] not in found.candidate.owners,
                -self.common.weights.reliability.get(owner_of[each], 0.0),
                each,
            ),
        )
        chosen: list[str] = []
        for each in order:
            chosen.append(each)
            if label_id not in self.remaining(chosen):
                break
        for each in tuple(chosen):
            fewer = [other for other in chosen if other != each]
            if fewer and label_id not in self.remaining(fewer):
                chosen = fewer
        return sorted(chosen)

    def remaining(self, left_out: Collection[str]) -> list[str]:
        """Return the ids of the consensus labels that remain without these annotations."""
        return self._without(left_out)[0]

    def _without(self, left_out: Collection[str]) -> tuple[list[str], list[Resolved]]:
        """Return the labels that remain without these annotations, and all resolved labels.

        The weights of annotators do not change.
        """
        key = frozenset(left_out)
        if key not in self.tried:
            annotations = self.annotations[~self.annotations[HumanLabels.annotation_id].isin(key)]
            resolved: list[Resolved] = []
            if len(annotations):
                _, resolved = self._resolve(annotations) if key else self.resolved
            labels = [each for each in resolved if each.label is not None]
            whole = self._without(())[1] if key else labels
            self.tried[key] = (self._paired(whole, labels), labels)
        return self.tried[key]

    def _resolve(self, annotations: pd.DataFrame) -> tuple[LabelledObjects, list[Resolved]]:
        return resolve_task(
            annotations,
            self.common,
            iou_threshold=self.iou_threshold,
            ontology=self.ontology,
            images=self.images,
        )

    def _paired(self, whole: Sequence[Resolved], rest: Sequence[Resolved]) -> list[str]:
        """Return the ids of the labels that have a partner of their shape and class."""

        def kind_of(each: Resolved) -> tuple[str, str]:
            assert each.label is not None
            return each.label.shape, str(each.label.class_name)

        remaining = []
        for kind in {kind_of(each) for each in whole}:
            sides = [[each for each in side if kind_of(each) == kind] for side in (whole, rest)]
            labels = [[each.label for each in side if each.label is not None] for side in sides]
            if kind[0] in REGIONS:
                extent = whole[0].candidate.task.extent
                overlap = overlap_matrix(*labels, image_size=extent)
            else:
                overlap = np.ones((len(labels[0]), len(labels[1])))
            pairs = match_pairs(overlap, threshold=self.iou_threshold)
            remaining += [str(sides[0][row].label_id) for row, _ in pairs]
        return remaining

    def _find(self, target: Label) -> Resolved | None:
        """Return the consensus label that became a label of the version; None if there is none."""
        best, most = None, 0.0
        for each in self.labels():
            label = each.label
            if label is None or (label.shape, self._present_name(label.class_name)) != (
                target.shape,
                target.class_name,
            ):
                continue
            overlap = 1.0
            if label.shape in REGIONS:
                extent = each.candidate.task.extent
                overlap = float(overlap_matrix([label], [target], image_size=extent)[0, 0])
            if overlap >= self.iou_threshold - _ROUNDING and overlap > most:
                best, most = each, overlap
        return best

    def _conflicts(self, label_id: str | None) -> list[str]:
        """Return a sentence for each conflict about a label, and whether a rule settled it."""
        objects, resolved = self.resolved
        return [
            f"{each.kind}: {each.detail}{' (settled by rule)' if each.settled else ''}"
            for each in conflicts_in_task(objects, resolved, self.ontology)
            if each.label_id == label_id
        ]

    def _present_name(self, name: str | None) -> str | None:
        now = self.successors.get(name or "", ())
        return now[0] if len(now) == 1 else name

    def _votes(self, found: Resolved, target: Label) -> Iterator[Vote]:
        candidate = found.candidate
        label_of = dict(zip(candidate.owners, candidate.labels, strict=True))
        first = self.annotations.drop_duplicates("annotation_id").sort_values("annotator")
        for annotation in first.to_dict("records"):
            person = str(annotation[HumanLabels.annotator])
            label = label_of.get(person)
            overlap = None
            if label is not None and label.shape in REGIONS:
                extent = candidate.task.extent
                overlap = float(overlap_matrix([label], [target], image_size=extent)[0, 0])
            seconds = annotation[HumanLabels.lead_time_seconds]
            yield Vote(
                annotator=person,
                annotation_id=str(annotation[HumanLabels.annotation_id]),
                submitted_at=str(annotation[HumanLabels.submitted_at]),
                says="" if label is None else label.class_name or "several",
                weight=round(self.common.weights.reliability.get(person, 0.0), 6),
                overlap=overlap,
                proposed_by=str(annotation[HumanLabels.weights_sha256]),
                seconds=None if pd.isna(seconds) else float(seconds),
            )


def _common(round_id: str, lake: Lake, inputs: TableInputs) -> Common:
    """Return the estimates of a round, from its annotations if they were not stored."""
    known = inputs.settings.get("common")
    if known:
        return Common.from_dict(known)
    return derive_consensus(round_id, as_of(lake, inputs), inputs.settings).common


def _label(row: dict[str, Any]) -> Label:
    x1, y1, x2, y2 = (None if pd.isna(row[edge]) else float(row[edge]) for edge in BOX_COLUMNS)
    name = None if pd.isna(row["class_name"]) else str(row["class_name"])
    return Label(str(row["shape"]), name, str(row["geometry"]), x1, y1, x2, y2)


def shown_label(row: dict[str, Any]) -> dict[str, Any]:
    """Return the shown columns of a label as JSON values."""
    return plain_values({name: row[name] for name in (*LABEL_COLUMNS, "support", "annotations")})


def plain_values(values: dict[Any, Any]) -> dict[str, Any]:
    """Return values as JSON values; missing ones are None."""
    return {str(key): None if pd.isna(value) else _native(value) for key, value in values.items()}


def _native(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float | bool) else str(value)
