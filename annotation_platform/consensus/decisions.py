"""The decisions of each annotator, object by object, compared with a reference.

The reference is the ground truth of a gold task, or the consensus of the others. A decision is

* an object of the reference that the annotator drew, whose class can be right or wrong,
* an object of the reference that the annotator did not draw, which is wrong,
* a region that the annotator drew around no object of the reference, which is wrong,
* nothing drawn in an image without reference objects: one decision for the image, right,
* a choice for the whole image.

All functions return the columns ``COLUMNS``: ``given`` and ``reference`` are a class or
``NOT_DRAWN``; ``choice`` distinguishes choices from regions.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.consensus.matching import match_pairs
from annotation_platform.consensus.units import (
    NOT_DRAWN,
    classification_units,
    matching_boxes,
)
from annotation_platform.schema.geometry import BOX_COLUMNS, Boxes, iou_matrix
from annotation_platform.schema.shapes import CLASSIFICATIONS, REGIONS
from annotation_platform.schema.tables import HumanLabels

COLUMNS = ["annotator", "image_id", "given", "reference", "choice"]


@dataclass(frozen=True)
class Objects:
    """The regions of one annotation or reference."""

    boxes: Boxes  # (N, 4) boxes for matching
    classes: npt.NDArray[np.object_]  # (N,) names


def against_others(votes: pd.DataFrame, regions: pd.DataFrame) -> pd.DataFrame:
    """Return every decision for which the other annotators of the task have a majority.

    The annotator's own annotation does not vote: an object exists if more than half of the others
    drew it, and does not exist if fewer did; its class is the most frequent one among those who
    drew it. If the others are evenly split, or there are none, there is no decision. (The
    annotator's own boxes do take part in matching the boxes of the others into objects.)

    Args:
        votes: the result of ``voting_rows``.
        regions: the result of ``region_units`` for them.
    """
    drawn = regions.assign(reference=_label_of_others(regions), choice=False)
    decided = drawn[(drawn["label"] != NOT_DRAWN) | (drawn["reference"] != NOT_DRAWN)]
    choices = classification_units(votes)
    chosen = choices.assign(reference=_label_of_others(choices), choice=True)
    parts = [part.rename(columns={"label": "given"}) for part in (decided, chosen) if len(part)]
    known = [part.loc[part["reference"].notna(), COLUMNS] for part in parts]
    return _together([*known, _nothing_there(votes, decided)])


def against_gold(votes: pd.DataFrame, gold: pd.DataFrame, *, iou_threshold: float) -> pd.DataFrame:
    """Return every decision about the images with ground truth.

    Args:
        votes: the result of ``voting_rows``.
        gold: columns ``image_id``, ``shape``, ``class_name`` and the box; an image without objects
            has one row of shape ``none``.
        iou_threshold: least overlap of a region with the object that it shows, in ``(0, 1]``.
    """
    truth = objects_by(gold[~gold["shape"].isin(CLASSIFICATIONS)], ["image_id"])
    known = votes[votes[HumanLabels.image_id].isin([image for (image,) in truth])]
    rows = [
        (person, image, given, reference, False)
        for (image, _, person), annotation in objects_by(
            known, ["image_id", "task_id", "annotator"]
        ).items()
        for given, reference in compare(annotation, truth[(image,)], iou_threshold=iou_threshold)
    ]
    right = classification_units(gold.assign(task_id=gold["image_id"], annotator=""))
    chosen = classification_units(votes).merge(
        right[["image_id", "label"]], on="image_id", suffixes=("", "_gold")
    )
    chosen = chosen.rename(columns={"label": "given", "label_gold": "reference"})
    return _together([pd.DataFrame(rows, columns=COLUMNS), chosen.assign(choice=True)[COLUMNS]])


def compare(
    annotation: Objects, reference: Objects, *, iou_threshold: float
) -> list[tuple[str, str]]:
    """Return ``given`` and ``reference`` of every decision of one annotation about regions.

    Regions are paired one to one, with as many pairs of the same class as possible.
    """
    overlap = iou_matrix(annotation.boxes, reference.boxes)
    same_class = annotation.classes[:, None] == reference.classes[None]
    worth = np.where(overlap >= iou_threshold, overlap + same_class, 0.0)
    pairs = match_pairs(worth, threshold=iou_threshold)
    decided = [(annotation.classes[row], reference.classes[column]) for row, column in pairs]
    extra = np.delete(annotation.classes, [row for row, _ in pairs])
    missed = np.delete(reference.classes, [column for _, column in pairs])
    decided += [(name, NOT_DRAWN) for name in extra] + [(NOT_DRAWN, name) for name in missed]
    return decided or [(NOT_DRAWN, NOT_DRAWN)]


def objects_by(rows: pd.DataFrame, key: list[str]) -> dict[tuple[Hashable, ...], Objects]:
    """Return the regions of each group of rows, in the order of the key; a group may have none."""
    groups = rows[key].drop_duplicates().sort_values(key)
    nothing = Objects(np.empty((0, 4)), np.empty(0, dtype=object))
    found = {tuple(group): nothing for group in groups.itertuples(index=False)}
    drawn = rows[rows["shape"].isin(REGIONS)]
    if drawn.empty:
        return found
    drawn = drawn.sort_values([*key, *BOX_COLUMNS, "class_name"])
    boxes, classes = matching_boxes(drawn), drawn["class_name"].to_numpy(dtype=object)
    for name, positions in drawn.reset_index(drop=True).groupby(key).indices.items():
        found[name if isinstance(name, tuple) else (name,)] = Objects(
            boxes[positions], classes[positions]
        )
    return found


def consensus_objects(
    votes: pd.DataFrame, regions: pd.DataFrame
) -> dict[tuple[Hashable, ...], Objects]:
    """Return, by task, the objects that more than half of its annotators drew.

    Each has the median box and the most frequent class.

    Args:
        votes: the result of ``voting_rows``.
        regions: the result of ``region_units`` for them.
    """
    people = regions.groupby("unit")["annotator"].transform("size")
    drawn = regions[regions["label"] != NOT_DRAWN].assign(people=people)
    by_unit = drawn.groupby("unit")
    found = by_unit[BOX_COLUMNS].median()
    found["task_id"], found["shape"] = by_unit["task_id"].first(), "box"
    counts = drawn.groupby(["unit", "label"]).size().rename("votes").reset_index()
    counts = counts.sort_values(["unit", "votes", "label"], ascending=[True, False, True])
    found["class_name"] = counts.drop_duplicates("unit").set_index("unit")["label"]
    found = found[2 * by_unit.size() > by_unit["people"].first()]
    every_task = votes[[HumanLabels.task_id]].drop_duplicates().assign(shape="none")
    return objects_by(pd.concat([found, every_task]) if len(found) else every_task, ["task_id"])


def _label_of_others(units: pd.DataFrame) -> pd.Series:
    """Return for each row of a units table the label of the unit's other annotators.

    It is missing if there are none, or if they are evenly split on the object or its class.
    """
    # Comparing Arrow text gives Arrow booleans, which do not support subtraction.
    drawn = (units["label"] != NOT_DRAWN).astype(bool)
    others = units.groupby("unit")["annotator"].transform("size") - 1
    seen = drawn.groupby(units["unit"]).transform("sum") - drawn
    counts = units[drawn].groupby(["unit", "label"]).size().rename("votes").reset_index()
    rows = units[["unit", "label"]].assign(row=np.arange(len(units)))
    rivals = rows.merge(counts, on="unit", suffixes=("", "_of_others"))
    rivals["votes"] -= (rivals["label"] == rivals["label_of_others"]).astype(bool)
    # The two classes with most votes of the others, by row; a tie gives no label.
    rivals = rivals[rivals["votes"] > 0].sort_values(["row", "votes"], ascending=[True, False])
    first = rivals.drop_duplicates("row")
    second = rivals[rivals.duplicated("row")].drop_duplicates("row").set_index("row")["votes"]
    clear = first["votes"].to_numpy() > first["row"].map(second).fillna(0).to_numpy()
    label = pd.Series(None, index=np.arange(len(units)), dtype=object)
    label[first["row"].to_numpy()[clear]] = first["label_of_others"].to_numpy()[clear]
    label = label.set_axis(units.index).where(2 * seen > others)
    return label.mask(2 * seen < others, NOT_DRAWN)


def _nothing_there(votes: pd.DataFrame, decided: pd.DataFrame) -> pd.DataFrame:
    """Return a decision for each annotator who, like the others, drew nothing.

    ``decided`` are the rows in which the annotator or the others drew something, or were split.
    """
    with_choices = votes.loc[votes[HumanLabels.shape].isin(CLASSIFICATIONS), HumanLabels.task_id]
    with_regions = votes.loc[votes[HumanLabels.shape].isin(REGIONS), HumanLabels.task_id]
    drawing = votes[~votes[HumanLabels.task_id].isin(set(with_choices) - set(with_regions))]
    drawing = drawing[["task_id", "image_id", "annotator"]].drop_duplicates()
    drawing = drawing[drawing.groupby("task_id")["annotator"].transform("size") > 1]
    key = ["task_id", "annotator"]
    something = pd.MultiIndex.from_frame(decided[key])
    nothing = drawing[~pd.MultiIndex.from_frame(drawing[key]).isin(something)]
    return nothing.assign(given=NOT_DRAWN, reference=NOT_DRAWN, choice=False)[COLUMNS]


def _together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the parts as one sorted table, without the empty parts, whose types are undefined."""
    filled = [part for part in parts if len(part)] or parts[:1]
    together = pd.concat(filled, ignore_index=True).astype({"choice": bool})
    return together.sort_values(COLUMNS, ignore_index=True)
