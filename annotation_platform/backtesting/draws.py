"""Random draws of the recorded annotations that another policy would have had.

Annotations that were requested in one batch are exchangeable: their annotators were chosen
independently of their content. So another policy would have had any of them with the same
probability, a subset without replacement. Annotations that were requested because earlier ones
disagreed are not exchangeable with those: they come after them, in the order of their batches.
Drawing among all annotations of a task would give the tasks that were stopped early annotations
selected for agreement (Girshick, Mosteller and Savage, "Unbiased Estimates for Certain Binomial
Sampling Problems", 1946, on the effect of stopping on shares).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.vote_margin import vote_margins
from annotation_platform.policy import LabelingPolicy
from annotation_platform.schema.tables import HumanLabels

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Draw:
    """One draw of the annotations of a policy, from ``A`` annotations of ``T`` tasks."""

    chosen: BoolArray  # (A,)
    short: BoolArray  # (T,) whether the policy requests more annotations than were recorded


class Draws:
    """Draws the annotations that a policy would have had.

    Args:
        labels: as in a ``Record``.
        policy: policy that sets the number of annotations.
        predicted: by task, the classes that were predicted.
    """

    def __init__(
        self,
        labels: pd.DataFrame,
        policy: LabelingPolicy,
        predicted: Mapping[str, frozenset[str]],
    ) -> None:
        annotations = labels.drop_duplicates("annotation_id")
        annotations = annotations.sort_values(["task_id", "annotation_id"], ignore_index=True)
        task, names = pd.factorize(annotations["task_id"])
        self.annotations = annotations  # one row each, task by task
        self.tasks = np.asarray(names, dtype=object)  # (T,)
        self.have: IntArray = np.bincount(task, minlength=len(names)).astype(np.int64)
        self.task = task  # (A,) position of each annotation's task in ``tasks``
        self._batch = annotations["batch"].to_numpy()
        self._start = np.concatenate([[0], np.cumsum(self.have)])
        self._policy = policy
        first = [policy.first_annotations(predicted.get(name, frozenset())) for name in names]
        self._first = np.array(first, dtype=np.int64)
        self._labels = labels
        self._annotation = pd.Index(annotations["annotation_id"]).get_indexer(
            pd.Index(labels[HumanLabels.annotation_id])
        )
        # The margin of a set of annotations is constant, and few distinct sets occur.
        self._margins: dict[tuple[int, bytes], int] = {}

    def draw(self, rng: np.random.Generator) -> Draw:
        """Return one draw.

        A task for which the policy requests more annotations than were recorded gets all of them,
        and is ``short``.
        """
        order = np.lexsort((rng.random(len(self.task)), self._batch, self.task))
        turn = np.empty(len(order), dtype=np.int64)
        turn[order] = np.arange(len(order)) - self._start[self.task[order]]
        short = self._first > self.have
        count = np.minimum(self._first, self.have)
        open_ = np.arange(len(self.tasks)) if self._policy.vote_margin else np.zeros(0, np.intp)
        while len(open_):
            margin = self._vote_margin(open_, turn < count[self.task])
            more = np.minimum(
                self._policy.vote_margin - margin, self._policy.maximum_annotations - count[open_]
            )
            open_, more = open_[more > 0], more[more > 0]
            requested = count[open_] + more
            lacking = requested > self.have[open_]
            short[open_[lacking]] = True
            count[open_] = np.minimum(requested, self.have[open_])
            open_ = open_[~lacking]
        return Draw(turn < count[self.task], short)

    def rows(self, chosen: BoolArray) -> pd.DataFrame:
        """Return the labels of the chosen annotations."""
        rows: pd.DataFrame = self._labels[chosen[self._annotation]]
        return rows

    def _vote_margin(self, tasks: npt.NDArray[np.intp], chosen: BoolArray) -> IntArray:
        """Return the vote margin of the chosen annotations of each of these tasks."""
        keys = [
            (at, chosen[self._start[at] : self._start[at + 1]].tobytes()) for at in tasks.tolist()
        ]
        new = [key for key in keys if key not in self._margins]
        if new:
            is_new = np.zeros(len(self.tasks), dtype=bool)
            is_new[[at for at, _ in new]] = True
            found = vote_margins(self.rows(chosen & is_new[self.task]))
            self._margins |= {key: found[self.tasks[key[0]]] for key in new}
        return np.array([self._margins[key] for key in keys], dtype=np.int64)
