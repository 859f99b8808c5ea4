"""How far the answers on a task lead: what says whether it is worth asking one more person."""

import pandas as pd

from annotation_platform.consensus.matching import cluster_boxes
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS, UNSURE


def leads(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> dict[str, int]:
    """Return by how many votes the answers on each task lead, the closest question deciding.

    Each object that anybody drew is two questions: whether it is there, and of which class; each
    choice is one. The lead of a question is the votes for its first answer less those for its
    second. Where nobody said anything the lead is the number of answers. Answers that say unsure
    vote for nothing. Regions are compared by their enclosing boxes.

    Args:
        human_labels: a ``human_labels`` table.
        iou_threshold: least overlap of two boxes round the same object, in ``(0, 1]``.
    """
    return {
        str(task_id): _lead(annotations, iou_threshold)
        for task_id, annotations in human_labels.groupby("task_id")
    }


def _lead(annotations: pd.DataFrame, iou_threshold: float) -> int:
    votes = annotations[annotations["shape"] != UNSURE.shape]
    people = votes["annotation_id"].nunique()
    margins = [people]
    drawn = votes[votes["shape"].isin(REGIONS)]
    boxes, owners = as_boxes(drawn[BOX_COLUMNS]), list(drawn["annotation_id"])
    groups = cluster_boxes(boxes, owners, iou_threshold=iou_threshold)
    names = drawn["class_name"].to_numpy()
    for group in groups:
        seen = len(group)
        margins.append(abs(seen - (people - seen)))
        if 2 * seen > people:
            margins.append(_margin(pd.Series(names[group])))
    chosen = votes[votes["shape"].isin(CLASSIFICATIONS)]
    if not chosen.empty:
        # What an answer chose, taken together: with several classes to choose it is one set.
        sets = chosen.groupby("annotation_id")["class_name"].agg(
            lambda each: "\n".join(sorted(each))
        )
        unchosen = [""] * (people - len(sets))
        margins.append(_margin(pd.Series([*sets, *unchosen])))
    return min(margins)


def _margin(said: pd.Series) -> int:
    counts = said.value_counts().tolist()
    return int(counts[0] - (counts[1] if len(counts) > 1 else 0))
