"""Scores of a set of annotations by image: right labels, manual effort, disputed images.

Every figure is a ratio of two sums over images, so it can be computed on any resample of them.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.backtesting.record import Record
from annotation_platform.consensus.agreement import hits_by_image
from annotation_platform.consensus.resolve import Consensus, resolve_consensus
from annotation_platform.curation.carry_over import carry_over
from annotation_platform.labeling.reviews import reviews_due
from annotation_platform.policy import Policy
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS
from annotation_platform.schema.tables import Conflicts, ConsensusLabels, HumanLabels, ReviewTasks
from annotation_platform.schema.tables.shared import Purpose

OBJECTS, CHOICES = "objects_f1", "choices_right"
RELEASED_OBJECTS, RELEASED_CHOICES = "released_objects_f1", "released_choices_right"
REVIEWED, LEFT_OUT, ANNOTATIONS, SECONDS = "review_rate", "left_out_rate", "annotations", "seconds"
FIGURES = (
    *(OBJECTS, CHOICES, RELEASED_OBJECTS, RELEASED_CHOICES),
    *(REVIEWED, LEFT_OUT, ANNOTATIONS, SECONDS),
)
"""The figures of a policy, in the order of the sums."""


@dataclass(frozen=True)
class _Truth:
    """The ground truth of the images of one round."""

    regions: pd.DataFrame
    counts: Mapping[str, int]  # regions by image
    choices: Mapping[str, frozenset[str]]  # the classes chosen, by image
    weight: Mapping[str, float]  # by image


@dataclass(frozen=True)
class _ReviewOutcome:
    """The outcome of the review rule for the images of a round."""

    asked: set[str]  # images of labelling tasks; the others are gold
    reviewed: set[str]
    left_out: set[str]


class Scorer:
    """Resolves annotations as a merge does, and counts the right labels.

    Args:
        record: the record of past rounds.
        iou_threshold: least overlap of a label with the object that it shows, in ``(0, 1]``.
    """

    def __init__(self, record: Record, *, iou_threshold: float) -> None:
        self.images = np.sort(record.labels["image_id"].astype(object).unique())  # (N,)
        self._record, self._threshold = record, iou_threshold
        self._at = {image: at for at, image in enumerate(self.images)}
        self._has_choices = bool(record.truth["shape"].isin(CLASSIFICATIONS).any())
        # If the ground truth has no labels at all, every drawn object is wrong.
        drawn = bool(record.truth["shape"].isin(REGIONS).any())
        self._has_objects = drawn or not self._has_choices
        self._truth = {str(key): _truth_of(rows) for key, rows in record.truth.groupby("round_id")}

    def score(self, rows: pd.DataFrame, policy: Policy, *, method: str = "") -> FloatArray:
        """Return ``(2, F, N)`` sums, numerators and denominators, by figure and image.

        Consensus figures: for objects twice the hits over the labels found plus the true labels,
        so the ratio is F1; for choices the images whose set of classes is the true one. Released
        figures cover the labels that pass the review rule: with ``review.gate: manual`` a reviewed
        image gets its true labels; with ``auto`` images with an open conflict are left out. Rates,
        annotations and seconds (reviews included) are those of the images of labelling tasks,
        without gold tasks.

        Args:
            rows: rows of the record's ``labels``, whole annotations.
            policy: supplies ``consensus``, ``review`` and ``seed``.
            method: method that decides classes; empty: as in a merge.
        """
        sums = np.zeros((2, len(FIGURES), len(self.images)))
        for key, labels in rows.groupby("round_id"):
            round_id = str(key)
            consensus = resolve_consensus(
                labels,
                iou_threshold=policy.consensus.iou_threshold,
                ontology=self._record.asked_under.get(round_id, self._record.ontology),
                images=self._record.images,
                method=method,
            )
            outcome = _review_outcome(round_id, labels, consensus, policy)
            self._count_effort(sums, labels, outcome)
            if round_id in self._truth:
                images = sorted(
                    set(self._truth[round_id].weight) & set(labels[HumanLabels.image_id])
                )
                found = carry_over(consensus.labels, self._record.ontology).labels
                self._count_right(sums, self._truth[round_id], found, images, outcome)
        return sums

    def _count_effort(
        self, sums: FloatArray, labels: pd.DataFrame, outcome: _ReviewOutcome
    ) -> None:
        asked = sorted(outcome.asked)
        for name, images in ((REVIEWED, outcome.reviewed), (LEFT_OUT, outcome.left_out)):
            self._add(sums, name, asked, _among(images, asked), 1.0)
        annotations = labels[labels[HumanLabels.image_id].isin(outcome.asked)].drop_duplicates(
            "annotation_id"
        )
        by_image = annotations.groupby("image_id")["lead_time_seconds"]
        self._add(sums, ANNOTATIONS, asked, by_image.size()[asked].to_numpy(), 1.0)
        seconds = by_image.sum(skipna=False)[asked].to_numpy()
        seconds = seconds + self._record.review_seconds * _among(outcome.reviewed, asked)
        self._add(sums, SECONDS, asked, seconds, 1.0)

    def _count_right(
        self,
        sums: FloatArray,
        truth: _Truth,
        found: pd.DataFrame,
        images: Sequence[str],
        outcome: _ReviewOutcome,
    ) -> None:
        weight = np.array([truth.weight[image] for image in images])
        released = weight * ~_among(outcome.left_out, images)
        seen = _among(outcome.reviewed, images)
        if self._has_objects:
            hits, total, there = self._objects(found, truth, images)
            self._add(sums, OBJECTS, images, 2 * hits * weight, total * weight)
            hits, total = np.where(seen, there, hits), np.where(seen, 2 * there, total)
            self._add(sums, RELEASED_OBJECTS, images, 2 * hits * released, total * released)
        if self._has_choices:
            pairs = zip(_choices(found, images), images, strict=True)
            right = np.array([classes == truth.choices[image] for classes, image in pairs])
            self._add(sums, CHOICES, images, right * weight, weight)
            self._add(sums, RELEASED_CHOICES, images, (right | seen) * released, released)

    def _objects(
        self, found: pd.DataFrame, truth: _Truth, images: Sequence[str]
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return by image the hits, the labels found plus the true labels, and the true labels."""
        drawn = found[found["shape"].isin(REGIONS) & found["image_id"].isin(images)]
        hits = hits_by_image(drawn, truth.regions, iou_threshold=self._threshold)
        there = np.array([truth.counts.get(image, 0) for image in images], dtype=np.float64)
        counts = Counter(drawn["image_id"])
        seen = np.array([counts[image] for image in images], dtype=np.float64)
        right = np.array([hits.get(image, 0) for image in images], dtype=np.float64)
        return right, seen + there, there

    def _add(
        self,
        sums: FloatArray,
        name: str,
        images: Sequence[str],
        above: npt.NDArray[np.generic],
        below: FloatArray | float,
    ) -> None:
        """Add to the sums of a figure; an image of several rounds is one image."""
        at = np.array([self._at[image] for image in images], dtype=np.intp)
        number = FIGURES.index(name)
        np.add.at(sums[0, number], at, above.astype(np.float64))
        np.add.at(sums[1, number], at, below)


def _review_outcome(
    round_id: str, labels: pd.DataFrame, consensus: Consensus, policy: Policy
) -> _ReviewOutcome:
    asked = set(labels.loc[labels[HumanLabels.purpose] == Purpose.LABEL, HumanLabels.image_id])
    conflicts = consensus.conflicts
    if policy.review.gate == "auto":
        open_ = set(conflicts.loc[~conflicts[Conflicts.settled], Conflicts.image_id])
        return _ReviewOutcome(asked, reviewed=set(), left_out=open_)
    labels = consensus.labels[consensus.labels[ConsensusLabels.image_id].isin(asked)]
    due = reviews_due(round_id, labels, conflicts, policy)
    return _ReviewOutcome(asked, reviewed=set(due[ReviewTasks.image_id]), left_out=set())


def _among(chosen: Collection[str], images: Sequence[str]) -> npt.NDArray[np.bool_]:
    return np.array([image in chosen for image in images], dtype=bool)


def _truth_of(rows: pd.DataFrame) -> _Truth:
    regions = rows[rows["shape"].isin(REGIONS)]
    first = rows.drop_duplicates("image_id")
    weight = dict(zip(first["image_id"], first["weight"], strict=True))
    choices = dict(zip(weight, _choices(rows, list(weight)), strict=True))
    return _Truth(regions, Counter(regions["image_id"]), choices, weight)


def _choices(labels: pd.DataFrame, images: Sequence[str]) -> list[frozenset[str]]:
    """Return the set of classes chosen for each of these images, possibly empty."""
    chosen = labels[labels["shape"].isin(CLASSIFICATIONS)]
    names_of = chosen.groupby("image_id")["class_name"]
    sets = {str(image): frozenset(names) for image, names in names_of}
    return [sets.get(image, frozenset()) for image in images]
