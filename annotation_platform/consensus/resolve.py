"""One set of boxes per image from the answers of several people.

Boxes are matched across people whatever class they carry; an object stands if at least half of
the answers saw it; its box is the median of theirs, coordinate by coordinate, its class the one
most of them chose. Where that overrules somebody, the box is marked as disputed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.agreement import pairwise_agreement
from annotation_platform.consensus.matching import cluster_boxes
from annotation_platform.schema.geometry import BOX_COLUMNS, Boxes, as_boxes, iou_matrix
from annotation_platform.schema.tables import make_table


@dataclass(frozen=True)
class Consensus:
    """The resolved labels of a round and how far people agreed on them."""

    labels: pd.DataFrame  # schema.tables.CONSENSUS_LABELS
    mean_agreement: float  # mean pairwise F1 at the matching threshold; NaN for single answers
    disputed: int  # boxes settled against somebody's vote
    rejected: int  # objects that fewer than half of the answers saw


def resolve_consensus(human_labels: pd.DataFrame, *, iou_threshold: float = 0.5) -> Consensus:
    """Return one resolved set of boxes per image; the order of the annotators does not matter.

    An image that everybody found empty keeps one row with ``shape`` = ``none``.

    Args:
        human_labels: a ``human_labels`` table: counted answers only.
        iou_threshold: least overlap of two boxes round the same object, in ``(0, 1]``.
    """
    rows: list[dict[str, object]] = []
    rejected = 0
    frequency = Counter(human_labels["class_name"].dropna())
    for _, answers in human_labels.groupby("task_id", sort=True):
        resolved, lone = _resolve_image(answers, frequency, iou_threshold)
        rows += resolved
        rejected += lone
    labels = make_table("consensus_labels", rows)
    return Consensus(
        labels=labels,
        mean_agreement=pairwise_agreement(human_labels, iou_threshold=iou_threshold),
        disputed=int(labels["disputed"].sum()),
        rejected=rejected,
    )


def _resolve_image(
    answers: pd.DataFrame, frequency: Counter[str], iou_threshold: float
) -> tuple[list[dict[str, object]], int]:
    """Return the resolved rows of one image and the number of objects turned down."""
    people = answers["annotator"].nunique()
    # In an order of their own, so that exact ties do not fall by the order of rows.
    drawn = answers[answers["shape"] == "box"].sort_values(
        [*BOX_COLUMNS, "class_name", "annotator"]
    )
    boxes = as_boxes(drawn[BOX_COLUMNS])
    owners, names = list(drawn["annotator"]), list(drawn["class_name"])
    groups = cluster_boxes(boxes, owners, iou_threshold=iou_threshold)
    kept = [group for group in groups if 2 * len(group) >= people]
    first = answers.iloc[0]
    same = {"round_id": first["round_id"], "task_id": first["task_id"]}
    image = {"image_id": first["image_id"], "answers": people}
    rows: list[dict[str, object]] = []
    for number, group in enumerate(kept):
        chosen = [names[position] for position in group]
        label_id = f"{first['image_id']}:{number:04d}"
        fused = _fuse(boxes[group], chosen, people, frequency)
        rows.append({**same, **image, "label_id": label_id, **fused})
    if not rows:
        # Nothing that anybody drew was seen by half of them; whoever drew something is overruled.
        nothing = {"label_id": f"{first['image_id']}:none", "shape": "none", "class_name": None}
        blank = {**dict.fromkeys(BOX_COLUMNS), "class_agreement": None, "mean_iou": None}
        saw_nothing = people - drawn["annotator"].nunique()
        votes = {"support": saw_nothing, "disputed": saw_nothing < people}
        rows.append({**same, **image, **nothing, **blank, **votes})
    return rows, len(groups) - len(kept)


def _fuse(
    boxes: Boxes, names: Sequence[str], people: int, frequency: Counter[str]
) -> dict[str, object]:
    fused = np.median(boxes, axis=0)
    overlaps = iou_matrix(boxes, fused[None])[:, 0]
    class_name, votes = _vote(names, overlaps, frequency)
    return {
        "shape": "box",
        "class_name": class_name,
        **dict(zip(BOX_COLUMNS, fused.tolist(), strict=True)),
        "support": len(boxes),
        "class_agreement": votes / len(names),
        "mean_iou": float(overlaps.mean()),
        "disputed": votes < len(names) or len(boxes) < people,
    }


def _vote(
    names: Sequence[str], overlaps: npt.NDArray[np.float64], frequency: Counter[str]
) -> tuple[str, int]:
    """Return the class most chose and its votes.

    A tie goes to those who drew most precisely, then to the class that is commoner in the round.
    """
    votes = Counter(names)
    precision = {
        name: float(np.mean([o for n, o in zip(names, overlaps, strict=True) if n == name]))
        for name in votes
    }
    winner = max(votes, key=lambda name: (votes[name], precision[name], frequency[name], name))
    return winner, votes[winner]
