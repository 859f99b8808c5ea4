"""What each annotator decided, object by object, and what a reference says instead.

The reference is the known answer of a gold task, or the consensus of the others. A decision is

* an object of the reference that the person drew, whose class can be right or wrong,
* an object of the reference that the person did not draw, which is wrong,
* a region that the person drew around nothing of the reference, which is wrong,
* nothing drawn where the reference holds nothing: one decision for the image, right,
* a choice for the image as a whole.

All functions return the columns ``COLUMNS``: ``said`` and ``reference`` are a class or
``NOT_DRAWN``; ``choice`` tells choices from regions.
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

COLUMNS = ["annotator", "image_id", "said", "reference", "choice"]


@dataclass(frozen=True)
class Objects:
    """The regions of one answer or reference."""

    boxes: Boxes  # (N, 4) by which they are matched
    classes: npt.NDArray[np.object_]  # (N,) names


def against_others(votes: pd.DataFrame, regions: pd.DataFrame) -> pd.DataFrame:
    """Return every decision on which the others of the same task are of one mind.

    The person's own answer has no part in the vote: an object is there if more than half of the
    others drew it and is not if fewer did; its class is what most of those who drew it say. Where
    the others are evenly split, or there are none, there is no decision. (The person's own boxes
    do take part in finding out which boxes of the others are of one object.)

    Args:
        votes: what ``voting_rows`` returns.
        regions: what ``region_units`` returns for them.
    """
    drawn = regions.assign(reference=_others_say(regions), choice=False)
    decided = drawn[(drawn["label"] != NOT_DRAWN) | (drawn["reference"] != NOT_DRAWN)]
    choices = classification_units(votes)
    chosen = choices.assign(reference=_others_say(choices), choice=True)
    said = [part.rename(columns={"label": "said"}) for part in (decided, chosen) if len(part)]
    known = [part.loc[part["reference"].notna(), COLUMNS] for part in said]
    return _together([*known, _nothing_there(votes, decided)])


def against_gold(votes: pd.DataFrame, gold: pd.DataFrame, *, iou_threshold: float) -> pd.DataFrame:
    """Return every decision about the images whose answer is known.

    Args:
        votes: what ``voting_rows`` returns.
        gold: columns ``image_id``, ``shape``, ``class_name`` and the box; an image that holds
            nothing has one row of shape ``none``.
        iou_threshold: least overlap of a region with the object that it shows, in ``(0, 1]``.
    """
    truth = objects_by(gold[~gold["shape"].isin(CLASSIFICATIONS)], ["image_id"])
    known = votes[votes["image_id"].isin([image for (image,) in truth])]
    rows = [
        (person, image, said, reference, False)
        for (image, _, person), annotation in objects_by(
            known, ["image_id", "task_id", "annotator"]
        ).items()
        for said, reference in compare(annotation, truth[(image,)], iou_threshold=iou_threshold)
    ]
    right = classification_units(gold.assign(task_id=gold["image_id"], annotator=""))
    chosen = classification_units(votes).merge(
        right[["image_id", "label"]], on="image_id", suffixes=("", "_gold")
    )
    chosen = chosen.rename(columns={"label": "said", "label_gold": "reference"})
    return _together([pd.DataFrame(rows, columns=COLUMNS), chosen.assign(choice=True)[COLUMNS]])


def compare(
    annotation: Objects, reference: Objects, *, iou_threshold: float
) -> list[tuple[str, str]]:
    """Return ``said`` and ``reference`` of every decision of one answer about regions.

    Regions are paired one to one, as many as possible with their own class.
    """
    overlap = iou_matrix(annotation.boxes, reference.boxes)
    alike = annotation.classes[:, None] == reference.classes[None]
    worth = np.where(overlap >= iou_threshold, overlap + alike, 0.0)
    pairs = match_pairs(worth, threshold=iou_threshold)
    decided = [(annotation.classes[row], reference.classes[column]) for row, column in pairs]
    extra = np.delete(annotation.classes, [row for row, _ in pairs])
    missed = np.delete(reference.classes, [column for _, column in pairs])
    decided += [(name, NOT_DRAWN) for name in extra] + [(NOT_DRAWN, name) for name in missed]
    return decided or [(NOT_DRAWN, NOT_DRAWN)]


def objects_by(rows: pd.DataFrame, key: list[str]) -> dict[tuple[Hashable, ...], Objects]:
    """Return the regions of each group of rows, in the order of the key; some have none."""
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
    """Return, by task, what more than half of its people drew: the median box, a class of most.

    Args:
        votes: what ``voting_rows`` returns.
        regions: what ``region_units`` returns for them.
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
    every_task = votes[["task_id"]].drop_duplicates().assign(shape="none")
    return objects_by(pd.concat([found, every_task]) if len(found) else every_task, ["task_id"])


def _others_say(units: pd.DataFrame) -> pd.Series:
    """Return for each row of a units table what the other annotators of the unit say of it.

    Missing where they are evenly split, about the object or about its class, or are none.
    """
    # Text of Arrow compares to booleans of Arrow, which know no subtraction.
    drawn = (units["label"] != NOT_DRAWN).astype(bool)
    others = units.groupby("unit")["annotator"].transform("size") - 1
    seen = drawn.groupby(units["unit"]).transform("sum") - drawn
    counts = units[drawn].groupby(["unit", "label"]).size().rename("votes").reset_index()
    rows = units[["unit", "label"]].assign(row=np.arange(len(units)))
    rivals = rows.merge(counts, on="unit", suffixes=("", "_of_others"))
    rivals["votes"] -= (rivals["label"] == rivals["label_of_others"]).astype(bool)
    # The two classes with most votes of others, by row; equal ones are no answer.
    rivals = rivals[rivals["votes"] > 0].sort_values(["row", "votes"], ascending=[True, False])
    first = rivals.drop_duplicates("row")
    second = rivals[rivals.duplicated("row")].drop_duplicates("row").set_index("row")["votes"]
    clear = first["votes"].to_numpy() > first["row"].map(second).fillna(0).to_numpy()
    said = pd.Series(None, index=np.arange(len(units)), dtype=object)
    said[first["row"].to_numpy()[clear]] = first["label_of_others"].to_numpy()[clear]
    said = said.set_axis(units.index).where(2 * seen > others)
    return said.mask(2 * seen < others, NOT_DRAWN)


def _nothing_there(votes: pd.DataFrame, decided: pd.DataFrame) -> pd.DataFrame:
    """Return a decision for everybody who drew nothing where the others did not either.

    ``decided`` are the rows in which the person or the others drew something, or were split.
    """
    about_all = votes.loc[votes["shape"].isin(CLASSIFICATIONS), "task_id"]
    drawn_in = votes.loc[votes["shape"].isin(REGIONS), "task_id"]
    asked = votes[~votes["task_id"].isin(set(about_all) - set(drawn_in))]
    asked = asked[["task_id", "image_id", "annotator"]].drop_duplicates()
    asked = asked[asked.groupby("task_id")["annotator"].transform("size") > 1]
    key = ["task_id", "annotator"]
    something = pd.MultiIndex.from_frame(decided[key])
    nothing = asked[~pd.MultiIndex.from_frame(asked[key]).isin(something)]
    return nothing.assign(said=NOT_DRAWN, reference=NOT_DRAWN, choice=False)[COLUMNS]


def _together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Return the parts as one table in an order of its own; an empty part has no types to keep."""
    kept = [part for part in parts if len(part)] or parts[:1]
    together = pd.concat(kept, ignore_index=True).astype({"choice": bool})
    return together.sort_values(COLUMNS, ignore_index=True)
