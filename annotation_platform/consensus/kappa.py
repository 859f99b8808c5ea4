"""Agreement beyond chance on nominal labels: Cohen's and Fleiss' kappa, Krippendorff's alpha.

All take a table of annotations with the columns ``task``, ``worker`` and ``label``, in any order of
rows; a missing label is an annotation that was not made. They are 1 for full agreement, 0 for the
agreement expected from the labels' frequencies alone and negative below that. If they are not
defined they are NaN, never 1: no two workers share a task, or only one label was ever used, so that
agreement by chance and by skill cannot be distinguished. Formulas and limits are in
``docs/algorithms/agreement.md``.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.errors import TableError
from annotation_platform.schema.geometry import FloatArray

IntArray = npt.NDArray[np.intp]


def cohen_kappa_pairs(annotations: pd.DataFrame) -> pd.DataFrame:
    """Return Cohen's kappa of every two workers, over the tasks that both annotated.

    Cohen, "A coefficient of agreement for nominal scales", 1960.

    Returns:
        Columns ``first``, ``second`` (``first < second``, rows in that order), ``tasks`` that both
        annotated, ``agreement`` (the share of them with the same label) and ``kappa``.

    Raises:
        TableError: a column is missing, or a worker annotated a task twice.
    """
    given = _given(annotations)
    worker, workers = pd.factorize(given["worker"], sort=True)
    label, labels = pd.factorize(given["label"])
    coded = pd.DataFrame({"task": given["task"].to_numpy(), "worker": worker, "label": label})
    both = coded.merge(coded, on="task", suffixes=("", "_other"))
    both = both[both["worker"] < both["worker_other"]]
    pair = both["worker"].to_numpy() * len(workers) + both["worker_other"].to_numpy()
    pairs, code = np.unique(pair, return_inverse=True)
    tasks = np.bincount(code, minlength=len(pairs)).astype(np.float64)
    same = (both["label"] == both["label_other"]).to_numpy(dtype=np.float64)
    agreement = np.bincount(code, same, minlength=len(pairs)) / tasks
    ours = _crosstab(code, both["label"].to_numpy(), len(labels))
    theirs = _crosstab(code, both["label_other"].to_numpy(), len(labels))
    joint = ours.merge(theirs, on=["row", "label"], suffixes=("", "_other"))
    product = (joint["count"] * joint["count_other"]).to_numpy(dtype=np.float64)
    expected = np.bincount(joint["row"], product, minlength=len(pairs)) / tasks**2
    return pd.DataFrame(
        {
            "first": workers.to_numpy()[pairs // max(len(workers), 1)],
            "second": workers.to_numpy()[pairs % max(len(workers), 1)],
            "tasks": tasks.astype(np.int64),
            "agreement": agreement,
            "kappa": beyond_chance(agreement, expected),
        }
    )


def fleiss_kappa(annotations: pd.DataFrame) -> float:
    """Return Fleiss' kappa over all tasks and workers.

    Fleiss, "Measuring nominal scale agreement among many raters", 1971, is defined for the same
    number of annotations on every task. If the numbers differ, every task weighs the same, as in
    Gwet, "Handbook of Inter-Rater Reliability", 2014: the expected agreement is that of the mean
    of the tasks' shares of labels, the observed one is over the tasks with at least two
    annotations.

    Raises:
        TableError: a column is missing, or a worker annotated a task twice.
    """
    counts, task, label, annotated = _counts(annotations)
    share = counts / annotated[task]
    labels = np.bincount(label, share) / max(len(annotated), 1)
    several = annotated >= 2
    if not several.any():
        return float("nan")
    pairs = np.bincount(task, counts * (counts - 1.0), minlength=len(annotated))[several]
    observed = float(np.mean(pairs / (annotated[several] * (annotated[several] - 1.0))))
    return float(beyond_chance(observed, float(labels @ labels)))


def krippendorff_alpha(annotations: pd.DataFrame) -> float:
    """Return Krippendorff's alpha for nominal labels, over the tasks with two annotations or more.

    Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. Any number of annotations may
    be missing; a task with ``m`` annotations weighs ``m``.

    Raises:
        TableError: a column is missing, or a worker annotated a task twice.
    """
    counts, task, label, annotated = _counts(annotations)
    return alpha_of_counts(counts, task, label, annotated)


def alpha_of_counts(
    counts: FloatArray, task: IntArray, label: IntArray, annotated: FloatArray
) -> float:
    """Return Krippendorff's alpha from the number of votes for each label of each task.

    Args:
        counts: ``N`` counts, each of one label of one task.
        task: ``N`` positions of the task in ``annotated``.
        label: ``N`` codes of the label, from 0.
        annotated: annotations per task: the sum of its counts.
    """
    several = annotated[task] >= 2
    counts, task, label = counts[several], task[several], label[several]
    values = float(counts.sum())
    if values == 0:
        return float("nan")
    observed = float((counts * (counts - 1.0) / (annotated[task] - 1.0)).sum()) / values
    totals = np.bincount(label, counts)
    expected = float((totals * (totals - 1.0)).sum()) / (values * (values - 1.0))
    return float(beyond_chance(observed, expected))


def beyond_chance(
    observed: FloatArray | float, expected: FloatArray | float
) -> npt.NDArray[np.float64]:
    """Return ``(observed - expected) / (1 - expected)``; NaN if chance alone gives 1."""
    room = 1.0 - np.asarray(expected, dtype=np.float64)
    # One label throughout gives exactly 1, except for the rounding of sums.
    room = np.where(room < 1e-12, np.nan, room)
    return np.asarray(1.0 - (1.0 - np.asarray(observed, dtype=np.float64)) / room)


def _given(annotations: pd.DataFrame) -> pd.DataFrame:
    """Return the annotations that have a label."""
    missing = [name for name in ("task", "worker", "label") if name not in annotations.columns]
    if missing:
        raise TableError(
            f"the annotations lack the column {', '.join(missing)}. "
            "Give a table with the columns task, worker and label."
        )
    given = annotations.loc[annotations["label"].notna(), ["task", "worker", "label"]]
    twice = given.duplicated(["task", "worker"])
    if twice.any():
        row = given[twice].iloc[0]
        raise TableError(
            f"worker {row['worker']} annotated task {row['task']} twice. "
            "Keep one annotation per worker and task, such as the latest."
        )
    return given


def _counts(annotations: pd.DataFrame) -> tuple[FloatArray, IntArray, IntArray, FloatArray]:
    """Return the arguments of ``alpha_of_counts``."""
    given = _given(annotations)
    task, _ = pd.factorize(given["task"])
    label, labels = pd.factorize(given["label"])
    table = _crosstab(task, label, len(labels))
    rows = np.asarray(table["row"], dtype=np.intp)
    counts = np.asarray(table["count"], dtype=np.float64)
    annotated = np.asarray(np.bincount(rows, counts), dtype=np.float64)
    return counts, rows, np.asarray(table["label"], dtype=np.intp), annotated


def _crosstab(row: IntArray, label: IntArray, labels: int) -> pd.DataFrame:
    """Return ``row``, ``label`` and ``count`` of the pairs that occur."""
    pair = row.astype(np.int64) * max(labels, 1) + label
    pairs, count = np.unique(pair, return_counts=True)
    return pd.DataFrame(
        {"row": pairs // max(labels, 1), "label": pairs % max(labels, 1), "count": count}
    )
