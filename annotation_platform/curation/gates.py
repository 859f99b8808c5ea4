"""What must be true of labels before they may go into a version. Each returns what is wrong."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.consensus.agreement import pooled_f1
from annotation_platform.formats.coco import read_coco, write_coco
from annotation_platform.formats.yolo import read_yolo, write_yolo
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.shapes import KEPT_WHOLE, POINTS, REGIONS

_SAME_BOX = 0.99
"""Least overlap of a box with itself after a format was written and read."""

_READ_BACK = 10_000
"""So many images of earlier rounds are written and read back at every release."""


def boxes_outside_image(labels: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    """Return the label ids of regions with no area or an edge outside their image.

    ``labels`` has label columns; ``images`` has ``image_id``, ``width`` and ``height``. Of a
    rotated box, or any shape that is kept whole, only the centre must be inside; a keypoint has no
    area.
    """
    boxes = labels[labels["shape"].isin(REGIONS)].merge(
        images.drop_duplicates("image_id")[["image_id", "width", "height"]],
        on="image_id",
        how="left",
    )
    whole, point = boxes["shape"].isin(KEPT_WHOLE), boxes["shape"].isin(POINTS)
    middle = {side: (boxes[f"{side}1"] + boxes[f"{side}2"]) / 2 for side in "xy"}
    inside = (
        (boxes["x1"].mask(whole, middle["x"]) >= 0)
        & (boxes["y1"].mask(whole, middle["y"]) >= 0)
        & (boxes["x2"].mask(whole, middle["x"]) <= boxes["width"])
        & (boxes["y2"].mask(whole, middle["y"]) <= boxes["height"])
    )
    area = (boxes["x1"] < boxes["x2"]) & (boxes["y1"] < boxes["y2"]) | point
    return list(boxes.loc[~(inside & area), "label_id"])


def labels_outside_ontology(labels: pd.DataFrame, ontology: Ontology) -> list[str]:
    """Return the label ids whose class the ontology does not have, nor says what became of it."""
    named = labels[labels["class_name"].notna()]
    return list(named.loc[~named["class_name"].isin(ontology.successors), "label_id"])


def unusable_annotations(human_labels: pd.DataFrame) -> list[str]:
    """Return the ids of answers with a region that is no usable label."""
    refused = human_labels[human_labels["refused_regions"] > 0]
    return sorted(set(refused["annotation_id"]))


def refused_labels(imported_labels: pd.DataFrame) -> list[str]:
    """Return the images whose own labels cannot be used, each with the reason."""
    refused = imported_labels[imported_labels["problem"] != ""].drop_duplicates("image_id")
    pairs = zip(refused["image_id"], refused["problem"], strict=True)
    return sorted(f"{image_id}: {problem}" for image_id, problem in pairs)


def unresolved_tasks(labels: pd.DataFrame, tasks: pd.DataFrame) -> list[str]:
    """Return the ids of answered tasks that have no resolved label.

    ``tasks`` is a ``round_tasks`` table; tasks whose answer is known need none.
    """
    annotated = tasks[(tasks["state"] == "answered") & (tasks["purpose"] == "label")]
    return sorted(set(annotated["task_id"]) - set(labels["task_id"]))


def unsettled_conflicts(conflicts: pd.DataFrame) -> list[str]:
    """Return the conflicts that no rule settled, each with what it is about."""
    open_ = conflicts[~conflicts["settled"]]
    pairs = zip(open_["conflict_id"], open_["detail"], strict=True)
    return sorted(f"{conflict_id}: {detail}" for conflict_id, detail in pairs)


def contradicted_certificates(reaudits: pd.DataFrame) -> list[str]:
    """Return the rounds of certificates that people contradict, each with what they found."""
    found = reaudits[reaudits["contradicted"]]
    columns = ["certified_round", "errors", "labels", "alpha"]
    return [
        f"{round_id}: {errors} errors by {labels} labels, {alpha:.1%} allowed"
        for round_id, errors, labels, alpha in found[columns].itertuples(index=False)
    ]


def groups_in_two_splits(training_set: pd.DataFrame) -> list[str]:
    """Return the groups of near-duplicates that stand in more than one split."""
    splits = training_set.groupby("group_id")["split"].nunique()
    return sorted(splits[splits > 1].index)


def test_images_in_train(training_set: pd.DataFrame, earlier: Iterable[pd.DataFrame]) -> list[str]:
    """Return the images that were in the test split of an earlier training set and are not now."""
    tested: set[str] = set()
    for table in earlier:
        tested.update(table.loc[table["split"] == "test", "image_id"].unique())
    moved = training_set[training_set["image_id"].isin(tested) & (training_set["split"] != "test")]
    return sorted(set(moved["image_id"]))


def sample_to_read_back(training_set: pd.DataFrame, round_id: str) -> pd.DataFrame:
    """Return the labels of the images on which formats are tried out before a release.

    What is written of an image depends on that image alone. So all whose labels are this
    round's are tried, once, and 10,000 of the others, drawn anew for each round.
    """
    others = training_set.loc[training_set["round_id"] != round_id, "image_id"].drop_duplicates()
    passed_over = others.iloc[
        np.random.default_rng(round_number(round_id)).permutation(len(others))[_READ_BACK:]
    ]
    return training_set[~training_set["image_id"].isin(passed_over)]


def formats_disagree(dataset: Dataset) -> list[str]:
    """Return in which formats the labels do not read back as they were written.

    Every image and every enclosing box must come back, its class the same and its place to within
    one percent of overlap.
    """
    dataset = dataset.boxes()
    sizes = {
        row["image_id"]: (row["width"], row["height"]) for row in dataset.images.to_dict("records")
    }
    with tempfile.TemporaryDirectory() as place:
        write_coco(dataset, Path(place))
        write_yolo(dataset, Path(place))
        read_back = {
            "COCO": read_coco(Path(place)),
            "YOLO": read_yolo(Path(place), sizes=sizes),
        }
    problems = []
    for name, found in read_back.items():
        if set(found.images["image_id"]) != set(dataset.images["image_id"]):
            problems.append(f"{name}: the images differ")
        same = pooled_f1(found.labels, dataset.labels, iou_threshold=_SAME_BOX)
        if same < 1.0:
            problems.append(f"{name}: only {same:.2%} of the boxes came back as they were")
    return problems
