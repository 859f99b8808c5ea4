"""The record of past rounds: annotations, the order of their requests, and ground truth."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.policy import LabelingPolicy
from annotation_platform.schema.ontology import Ontology

MOST_LEFT_OUT = 0.05
"""Largest share of tasks that may be left out because they have too few annotations."""


@dataclass(frozen=True)
class Record:
    """The annotations of some rounds, and the ground truth of some of their images.

    Attributes:
        labels: rows of ``human_labels``, whole annotations, with one more column ``batch``: 0 for
            annotations that were requested at first, 1 and so on for those requested later because
            the vote margin was too small.
        truth: ground truth of images of the rounds: ``round_id``, ``image_id``, ``source`` and
            ``weight`` (the inverse of the probability that its truth is known), ``label_id`` and
            the label columns, under the ontology. An image without objects has one row of shape
            ``none``.
        images: ``image_id``, ``width`` and ``height``.
        ontology: today's classes.
        asked_under: by round, the classes that annotators chose from; by default today's.
        predicted: by task, the predicted classes; by default none.
        review_seconds: mean review time of an image; 0 if no review was recorded.
        notes: what was left out, and why, as sentences.
    """

    labels: pd.DataFrame
    truth: pd.DataFrame
    images: pd.DataFrame
    ontology: Ontology
    asked_under: Mapping[str, Ontology] = field(default_factory=dict)
    predicted: Mapping[str, frozenset[str]] = field(default_factory=dict)
    review_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def rounds(self) -> list[str]:
        """The rounds, in order."""
        return sorted(self.labels["round_id"].unique())

    def of_tasks(self, tasks: npt.NDArray[np.object_], note: str) -> "Record":
        """Return the record of these tasks; ``note`` is added if any task is left out."""
        is_included = self.labels["task_id"].isin(tasks)
        if is_included.all():
            return self
        labels = self.labels[is_included].reset_index(drop=True)
        key = ["round_id", "image_id"]
        remaining = pd.MultiIndex.from_frame(labels[key])
        truth = self.truth[pd.MultiIndex.from_frame(self.truth[key]).isin(remaining)]
        return replace(
            self, labels=labels, truth=truth.reset_index(drop=True), notes=(*self.notes, note)
        )

    def has_truth(self, tasks: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return for each of ``(T,)`` rows of round and image whether it has ground truth."""
        key = ["round_id", "image_id"]
        known = pd.MultiIndex.from_frame(self.truth[key])
        return np.asarray(pd.MultiIndex.from_frame(tasks[key]).isin(known))


def require_support(
    short: npt.NDArray[np.bool_],
    have: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    policy: LabelingPolicy,
) -> str:
    """Return a note on the tasks with too few annotations for a policy; empty if there are none.

    Args:
        short: ``(T,)`` whether the policy requests more annotations than a task has.
        have: ``(T,)`` number of annotations of each task.
        known: ``(T,)`` whether its ground truth is known.
        policy: the policy to replay.

    Raises:
        DataError: it requests more annotations than were recorded on over ``MOST_LEFT_OUT`` of the
            tasks, or of those with ground truth. The message has the numbers and the possible
            settings.
    """
    groups = [("tasks", short, have), ("tasks with ground truth", short[known], have[known])]
    for noun, lacking, counts in groups:
        if lacking.mean() > MOST_LEFT_OUT:
            # The largest number of annotations that enough of the tasks have.
            most = int(np.sort(counts)[int(MOST_LEFT_OUT * len(counts))])
            raise DataError(
                f"{_settings(policy)} needs more annotations than were recorded on"
                f" {int(lacking.sum())} of {len(counts)} {noun}: {_counts(counts)}."
                f" {_remedy(policy, most)}"
            )
    if not short.any():
        return ""
    return f"{int(short.sum())} of {len(short)} tasks have too few annotations and are left out"


def _settings(policy: LabelingPolicy) -> str:
    if policy.vote_margin:
        return (
            f"labeling.vote_margin {policy.vote_margin} "
            f"with maximum_annotations {policy.maximum_annotations}"
        )
    if policy.annotations_by_class:
        return (
            f"labeling.annotations_per_task {policy.annotations_per_task} with annotations_by_class"
        )
    return f"labeling.annotations_per_task {policy.annotations_per_task}"


def _remedy(policy: LabelingPolicy, most: int) -> str:
    if policy.vote_margin:
        return f"Set maximum_annotations to at most {most}, and no larger lead than was recorded."
    return f"Set it to 1 to {most}."


def _counts(have: npt.NDArray[np.int64]) -> str:
    counts = sorted(Counter(have.tolist()).items(), key=lambda item: -item[1])
    listed = ", ".join(f"{tasks} have {annotations}" for annotations, tasks in counts[:4])
    return f"{listed}, …" if len(counts) > 4 else listed
