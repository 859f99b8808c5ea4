"""What past rounds recorded: who said what, when it was asked, and what is known to be true."""

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
"""Share of tasks that may be left out because the record has too few answers to them."""


@dataclass(frozen=True)
class Record:
    """The answers of some rounds, and what is true of some of their images.

    Attributes:
        labels: rows of ``human_labels``, whole answers, with one more column ``wave``: 0 for
            answers to places that were asked for at first, 1 and so on for those asked for since,
            because the answers so far did not lead by enough.
        truth: what is true of an image that a round asked about: ``round_id``, ``image_id``,
            ``source`` and ``weight`` (one by the chance that its truth is known), ``label_id`` and
            the label columns, under the ontology. An image that holds nothing has one row of shape
            ``none``.
        images: ``image_id``, ``width`` and ``height``.
        ontology: today's classes.
        asked_under: by round, the classes that people chose from; today's where it is not named.
        proposed: by task, the classes that were proposed; none where it is not named.
        review_seconds: mean time of a reviewer for an image; 0 where none was recorded.
        notes: what was left out of it, and why, as sentences.
    """

    labels: pd.DataFrame
    truth: pd.DataFrame
    images: pd.DataFrame
    ontology: Ontology
    asked_under: Mapping[str, Ontology] = field(default_factory=dict)
    proposed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    review_seconds: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def rounds(self) -> list[str]:
        """The rounds, in order."""
        return sorted(self.labels["round_id"].unique())

    def of_tasks(self, tasks: npt.NDArray[np.object_], note: str) -> "Record":
        """Return what it has of these tasks alone; ``note`` says why, if anything is left out."""
        kept = self.labels["task_id"].isin(tasks)
        if kept.all():
            return self
        labels = self.labels[kept].reset_index(drop=True)
        key = ["round_id", "image_id"]
        there = pd.MultiIndex.from_frame(labels[key])
        truth = self.truth[pd.MultiIndex.from_frame(self.truth[key]).isin(there)]
        return replace(
            self, labels=labels, truth=truth.reset_index(drop=True), notes=(*self.notes, note)
        )

    def has_truth(self, tasks: pd.DataFrame) -> npt.NDArray[np.bool_]:
        """Return for each of ``(T,)`` rows of round and image whether the truth is known."""
        key = ["round_id", "image_id"]
        known = pd.MultiIndex.from_frame(self.truth[key])
        return np.asarray(pd.MultiIndex.from_frame(tasks[key]).isin(known))


def require_support(
    short: npt.NDArray[np.bool_],
    have: npt.NDArray[np.int64],
    known: npt.NDArray[np.bool_],
    policy: LabelingPolicy,
) -> str:
    """Return what to note of the tasks whose answers are too few for a policy; empty: none are.

    Args:
        short: ``(T,)`` whether the policy asks for more answers than a task has.
        have: ``(T,)`` how many answers each task has.
        known: ``(T,)`` whether its truth is known.
        policy: what asks.

    Raises:
        DataError: it asks for more than there are on over ``MOST_LEFT_OUT`` of the tasks, or of
            those with a known truth. It says how many answers there are, and what can be asked.
    """
    groups = [("tasks", short, have), ("tasks whose truth is known", short[known], have[known])]
    for what, lacking, counts in groups:
        if lacking.mean() > MOST_LEFT_OUT:
            # The largest number that all but so many of the tasks have.
            most = int(np.sort(counts)[int(MOST_LEFT_OUT * len(counts))])
            raise DataError(
                f"{_asked(policy)} needs more answers than were recorded on {int(lacking.sum())} of"
                f" {len(counts)} {what}: {_counts(counts)}. {_remedy(policy, most)}"
            )
    if not short.any():
        return ""
    return f"{int(short.sum())} of {len(short)} tasks have too few answers and are left out"


def _asked(policy: LabelingPolicy) -> str:
    if policy.stop_at_lead:
        return (
            f"labeling.stop_at_lead {policy.stop_at_lead} "
            f"with most_annotations {policy.most_annotations}"
        )
    if policy.annotations_by_class:
        return f"labeling.answers_per_task {policy.annotations_per_task} with annotations_by_class"
    return f"labeling.answers_per_task {policy.annotations_per_task}"


def _remedy(policy: LabelingPolicy, most: int) -> str:
    if policy.stop_at_lead:
        return f"Ask for most_annotations up to {most}, and no larger lead than was asked for then."
    return f"Ask for 1 to {most}."


def _counts(have: npt.NDArray[np.int64]) -> str:
    counts = sorted(Counter(have.tolist()).items(), key=lambda item: -item[1])
    said = ", ".join(f"{tasks} have {annotations}" for annotations, tasks in counts[:4])
    return f"{said}, …" if len(counts) > 4 else said
