"""Which of the recorded answers another policy would have had, drawn by lot.

The answers that were asked for at the same time are exchangeable: who gave them was chosen without
looking at what they said. So another policy would have had any of them as likely, a subset without
replacement. Answers that were asked for because the first ones disagreed are not: they come after
those, in the order of the waves in which they were asked for. To draw among all answers of a task
would give the tasks that were stopped early answers that were picked for agreeing (Girshick,
Mosteller and Savage, "Unbiased Estimates for Certain Binomial Sampling Problems", 1946, on what
stopping does to shares).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.lead import leads
from annotation_platform.policy import LabelingPolicy

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Draw:
    """One draw: what the policy would have had of ``A`` answers to ``T`` tasks."""

    chosen: BoolArray  # (A,)
    short: BoolArray  # (T,) whether it would have asked for more than there are


class Draws:
    """Draws what a policy would have had, again and again.

    Args:
        labels: as of a ``Record``.
        policy: how many answers it asks for.
        proposed: by task, the classes that were proposed.
    """

    def __init__(
        self,
        labels: pd.DataFrame,
        policy: LabelingPolicy,
        proposed: Mapping[str, frozenset[str]],
    ) -> None:
        annotations = labels.drop_duplicates("annotation_id")
        annotations = annotations.sort_values(["task_id", "annotation_id"], ignore_index=True)
        task, names = pd.factorize(annotations["task_id"])
        self.annotations = annotations  # one row each, task by task
        self.tasks = np.asarray(names, dtype=object)  # (T,)
        self.have: IntArray = np.bincount(task, minlength=len(names)).astype(np.int64)
        self.task = task  # (A,) of each answer, its number among the tasks
        self._wave = annotations["wave"].to_numpy()
        self._start = np.concatenate([[0], np.cumsum(self.have)])
        self._policy = policy
        first = [policy.first_annotations(proposed.get(name, frozenset())) for name in names]
        self._first = np.array(first, dtype=np.int64)
        self._labels = labels
        self._annotation = pd.Index(annotations["annotation_id"]).get_indexer(
            pd.Index(labels["annotation_id"])
        )
        # What a set of answers leads by does not change, and few sets come up again and again.
        self._leads: dict[tuple[int, bytes], int] = {}

    def draw(self, rng: np.random.Generator) -> Draw:
        """Return what the policy would have had.

        A task on which it would have asked for more answers than there are has all of them, and is
        ``short``.
        """
        order = np.lexsort((rng.random(len(self.task)), self._wave, self.task))
        turn = np.empty(len(order), dtype=np.int64)
        turn[order] = np.arange(len(order)) - self._start[self.task[order]]
        short = self._first > self.have
        count = np.minimum(self._first, self.have)
        open_ = np.arange(len(self.tasks)) if self._policy.stop_at_lead else np.zeros(0, np.intp)
        while len(open_):
            lead = self._lead(open_, turn < count[self.task])
            more = np.minimum(
                self._policy.stop_at_lead - lead, self._policy.most_annotations - count[open_]
            )
            open_, more = open_[more > 0], more[more > 0]
            wanted = count[open_] + more
            lacking = wanted > self.have[open_]
            short[open_[lacking]] = True
            count[open_] = np.minimum(wanted, self.have[open_])
            open_ = open_[~lacking]
        return Draw(turn < count[self.task], short)

    def rows(self, chosen: BoolArray) -> pd.DataFrame:
        """Return the labels of the chosen answers."""
        rows: pd.DataFrame = self._labels[chosen[self._annotation]]
        return rows

    def _lead(self, tasks: npt.NDArray[np.intp], chosen: BoolArray) -> IntArray:
        """Return by how many votes the chosen answers on each of these tasks lead."""
        keys = [
            (at, chosen[self._start[at] : self._start[at + 1]].tobytes()) for at in tasks.tolist()
        ]
        new = [key for key in keys if key not in self._leads]
        if new:
            asked = np.zeros(len(self.tasks), dtype=bool)
            asked[[at for at, _ in new]] = True
            found = leads(self.rows(chosen & asked[self.task]))
            self._leads |= {key: found[self.tasks[key[0]]] for key in new}
        return np.array([self._leads[key] for key in keys], dtype=np.int64)
