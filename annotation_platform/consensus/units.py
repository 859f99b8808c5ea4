"""Units of agreement: the objects of an image, and choices for the whole image.

Boxes do not come as ratings of a fixed list of items, so the items are derived from them: the boxes
that annotators drew around one object form one unit, and each annotator of the image gives it a
class or, by not drawing it, ``NOT_DRAWN``. An object that no annotator drew is not a unit.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.matching import cluster_boxes
from annotation_platform.errors import TableError
from annotation_platform.schema.geometry import BOX_COLUMNS, Boxes, FloatArray, as_boxes, box_areas
from annotation_platform.schema.shapes import CLASSIFICATIONS, POINTS, REGIONS, UNSURE
from annotation_platform.schema.tables import HumanLabels

NOT_DRAWN = "(not drawn)"
"""The label of an object by an annotator of the image who did not draw it."""

KEYPOINT_SIDE = 48.0
"""Pixels: keypoints are matched as squares of this side, so 16 apart along an axis is IoU 0.5."""

_UNIT_COLUMNS = ["unit", "task_id", "image_id", "annotator", "label", *BOX_COLUMNS]


def voting_rows(human_labels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that vote: those of annotators who were not unsure of the task.

    Raises:
        TableError: a column is missing.
    """
    need_columns(human_labels, ["task_id", "image_id", "annotator", "shape", "class_name"])
    key = pd.MultiIndex.from_frame(human_labels[[HumanLabels.task_id, HumanLabels.annotator]])
    unsure = key[(human_labels[HumanLabels.shape] == UNSURE.shape).to_numpy()]
    return human_labels[~key.isin(unsure)]


def region_units(votes: pd.DataFrame, *, iou_threshold: float = 0.5) -> pd.DataFrame:
    """Return the label of each annotator of an image for each object drawn in it.

    Regions of all shapes are matched by their enclosing box, regardless of class.

    Args:
        votes: the result of ``voting_rows``.
        iou_threshold: least overlap of two boxes around the same object, in ``(0, 1]``.

    Returns:
        Columns ``unit``, ``task_id``, ``image_id``, ``annotator``, ``label`` (a class or
        ``NOT_DRAWN``) and the enclosing box, missing for ``NOT_DRAWN``. A row for every unit and
        every annotator with a vote on its task; the order of the rows of ``votes`` does not matter.
    """
    drawn = votes[votes[HumanLabels.shape].isin(REGIONS)]
    if drawn.empty:
        return pd.DataFrame({name: pd.Series([], dtype=object) for name in _UNIT_COLUMNS})
    # Sorted by content, so that the order of rows does not decide exact ties.
    drawn = drawn.sort_values(["task_id", *BOX_COLUMNS, "class_name", "annotator"])
    drawn = drawn.assign(label=drawn["class_name"], unit=_cluster(drawn, iou_threshold))
    # A unit belongs to one task and has a row for each annotator of that task.
    units = drawn[["unit", "task_id", "image_id"]].drop_duplicates("unit")
    annotators = votes[[HumanLabels.task_id, HumanLabels.annotator]].drop_duplicates()
    labels = units.merge(annotators, on="task_id").merge(
        drawn[["unit", "annotator", "label", *BOX_COLUMNS]], on=["unit", "annotator"], how="left"
    )
    labels["label"] = labels["label"].astype(object).where(labels["label"].notna(), NOT_DRAWN)
    return labels.sort_values(["unit", "annotator"], ignore_index=True)[_UNIT_COLUMNS]


def classification_units(votes: pd.DataFrame) -> pd.DataFrame:
    """Return the choice of each annotator for a whole image, one row per task and annotator.

    Several choices in one annotation are one label, their names sorted and joined by ``" + "``.

    Returns:
        The columns of ``region_units``, without boxes; ``unit`` is a running number of the task.
    """
    chosen = votes[votes[HumanLabels.shape].isin(CLASSIFICATIONS)].drop_duplicates(
        ["task_id", "annotator", "class_name"]
    )
    if chosen.empty:
        return pd.DataFrame({name: pd.Series([], dtype=object) for name in _UNIT_COLUMNS})
    chosen = chosen.sort_values(["task_id", "annotator", "class_name"])
    labels = (
        chosen.groupby(["task_id", "image_id", "annotator"], sort=True)["class_name"]
        .agg(" + ".join)
        .rename("label")
        .reset_index()
    )
    labels["unit"] = pd.factorize(labels["task_id"])[0]
    return labels.reindex(columns=_UNIT_COLUMNS)


def matching_boxes(rows: pd.DataFrame) -> Boxes:
    """Return the ``(N, 4)`` boxes by which regions are matched; a keypoint gets a square."""
    boxes = as_boxes(rows[BOX_COLUMNS].to_numpy(dtype=np.float64)).copy()
    points = rows["shape"].isin(POINTS).to_numpy()
    boxes[points] += np.array([-1.0, -1.0, 1.0, 1.0]) * KEYPOINT_SIDE / 2
    return boxes


def paired_iou(first: pd.DataFrame, second: pd.DataFrame) -> FloatArray:
    """Return the ``(N,)`` overlaps of two tables of ``N`` boxes, row by row; NaN without a box."""
    a, b = (as_boxes(boxes.to_numpy(dtype=np.float64)) for boxes in (first, second))
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.clip(sides, 0.0, None).prod(axis=1)
    union = box_areas(a) + box_areas(b) - shared
    return np.asarray(shared / np.where(union > 0, union, np.nan))


def need_columns(table: pd.DataFrame, names: list[str]) -> None:
    """Raise a TableError that names the columns which ``table`` lacks, if any."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise TableError(
            f"the table lacks the column {', '.join(missing)}. "
            "See docs/reference/tables.md for the expected columns."
        )


def _cluster(drawn: pd.DataFrame, iou_threshold: float) -> npt.NDArray[np.intp]:
    """Return a running number of the object for each row; rows of a task are contiguous."""
    boxes = matching_boxes(drawn)
    owners = list(drawn["annotator"])
    task, _ = pd.factorize(drawn["task_id"])
    starts = np.flatnonzero(np.diff(task, prepend=-1))
    unit = np.zeros(len(drawn), dtype=np.intp)
    number = 0
    for start, stop in zip(starts, [*starts[1:], len(drawn)], strict=True):
        here = slice(start, stop)
        for group in cluster_boxes(boxes[here], owners[here], iou_threshold=iou_threshold):
            unit[start + group] = number
            number += 1
    return unit
