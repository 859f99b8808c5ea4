"""The vote margin of a task, which decides whether one more annotation is requested."""

import pandas as pd

from annotation_platform.consensus.matching import cluster_boxes
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS, UNSURE
from annotation_platform.schema.tables import HumanLabels

_SAME = 0.5
"""Least overlap of two boxes around the same object."""


def vote_margins(human_labels: pd.DataFrame) -> dict[str, int]:
    """Return the vote margin of each task: the smallest margin over all its questions.

    Each drawn object is two questions: whether it exists, and its class; each choice is one. The
    margin of a question is the votes for its first option minus those for its second. If no
    annotator labelled anything the margin is the number of annotations. ``unsure`` annotations do
    not vote. Regions are compared by their enclosing boxes.
    """
    return {
        str(task_id): _vote_margin(annotations)
        for task_id, annotations in human_labels.groupby("task_id")
    }


def _vote_margin(annotations: pd.DataFrame) -> int:
    votes = annotations[annotations["shape"] != UNSURE.shape]
    people = votes[HumanLabels.annotation_id].nunique()
    margins = [people]
    drawn = votes[votes[HumanLabels.shape].isin(REGIONS)]
    boxes, owners = as_boxes(drawn[BOX_COLUMNS]), list(drawn["annotation_id"])
    groups = cluster_boxes(boxes, owners, iou_threshold=_SAME)
    names = drawn["class_name"].to_numpy()
    for group in groups:
        seen = len(group)
        margins.append(abs(seen - (people - seen)))
        if 2 * seen > people:
            margins.append(_margin(pd.Series(names[group])))
    chosen = votes[votes[HumanLabels.shape].isin(CLASSIFICATIONS)]
    if not chosen.empty:
        # The choices of an annotation are one set if several classes may be chosen.
        sets = chosen.groupby("annotation_id")["class_name"].agg(
            lambda each: "\n".join(sorted(each))
        )
        unchosen = [""] * (people - len(sets))
        margins.append(_margin(pd.Series([*sets, *unchosen])))
    return min(margins)


def _margin(votes: pd.Series) -> int:
    counts = votes.value_counts().tolist()
    return int(counts[0] - (counts[1] if len(counts) > 1 else 0))
