"""Conditions on labels that go into a version. Each function returns the violations."""

import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.consensus.agreement import pooled_f1
from annotation_platform.formats.coco import read_coco, render_coco
from annotation_platform.formats.files import write_files
from annotation_platform.formats.yolo import read_yolo, render_yolo
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.rounds import Arrival, part_key, round_number, whole_key
from annotation_platform.schema.shapes import KEPT_WHOLE, POINTS, REGIONS
from annotation_platform.schema.tables import (
    CertificateRechecks,
    CleanedImages,
    Conflicts,
    Frame,
    HumanLabels,
    ImportedLabels,
    RoundTasks,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import Purpose, ReviewDecision, Split, TaskState

_SAME_BOX = 0.99
"""Least IoU of a box with itself after a format was written and read."""

_READ_BACK = 10_000
"""Images of earlier rounds that are written and read back at every release."""

OPEN_DECISIONS = (ReviewDecision.REJECTED, ReviewDecision.UNDECIDED)
"""Decisions that leave an image without labels."""


def missing_outcomes(objects: Sequence[Arrival], cleaned: Frame[CleanedImages]) -> list[str]:
    """Return the objects of a round that do not have exactly one row in its ``cleaned_images``.

    An object with several images has exactly one row for each of them instead, without a gap.
    """
    keys = zip(
        cleaned[CleanedImages.source_key], cleaned[CleanedImages.arrival_version], strict=True
    )
    rows = Counter(keys)
    expected = {(item.key, item.stamp) for item in objects}
    others: dict[tuple[str, str], list[str]] = {}
    for key, stamp in sorted(set(rows) - expected):
        arrival = whole_key(key), stamp
        others.setdefault(arrival if arrival in expected else (key, stamp), []).append(key)
    wrong = []
    for key, stamp in sorted(expected):
        parts = others.pop((key, stamp), [])
        named = parts or [key]
        found = rows[key, stamp] + sum(rows[part, stamp] for part in parts)
        has_gap = bool(parts) and parts != [part_key(key, each) for each in range(len(parts))]
        if found != len(named) or has_gap:
            wrong.append(f"{key!r} has {found} outcomes")
    return wrong + [f"{key!r} never landed" for key, _ in sorted(others)]


def boxes_outside_image(labels: pd.DataFrame, images: pd.DataFrame) -> list[str]:
    """Return the label ids of regions with no area or an edge outside their image.

    ``labels`` has label columns; ``images`` has ``image_id``, ``width`` and ``height``. For a
    rotated box, or any shape that is not clipped, only the centre must be inside. A keypoint needs
    no area.
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
    """Return the label ids whose class is neither in the ontology nor replaced by it."""
    named = labels[labels["class_name"].notna()]
    return list(named.loc[~named["class_name"].isin(ontology.successors), "label_id"])


def unusable_annotations(human_labels: pd.DataFrame) -> list[str]:
    """Return the ids of annotations with a region that is not a usable label."""
    refused = human_labels[human_labels[HumanLabels.refused_regions] > 0]
    return sorted(set(refused[HumanLabels.annotation_id]))


def refused_labels(imported_labels: pd.DataFrame) -> list[str]:
    """Return the images whose imported labels cannot be used, each with the reason."""
    refused = imported_labels[imported_labels[ImportedLabels.problem] != ""]
    refused = refused.drop_duplicates(ImportedLabels.image_id)
    pairs = zip(refused[ImportedLabels.image_id], refused[ImportedLabels.problem], strict=True)
    return sorted(f"{image_id}: {problem}" for image_id, problem in pairs)


def unresolved_tasks(labels: pd.DataFrame, tasks: pd.DataFrame) -> list[str]:
    """Return the ids of annotated tasks that have no resolved label.

    ``tasks`` is a ``round_tasks`` table; gold tasks need no label.
    """
    is_annotated = tasks[RoundTasks.state] == TaskState.ANNOTATED
    annotated = tasks[is_annotated & (tasks[RoundTasks.purpose] == Purpose.LABEL)]
    return sorted(set(annotated[RoundTasks.task_id]) - set(labels["task_id"]))


def unsettled_conflicts(conflicts: pd.DataFrame) -> list[str]:
    """Return the conflicts that no rule settled, each with its description."""
    open_ = conflicts[~conflicts[Conflicts.settled]]
    pairs = zip(open_[Conflicts.conflict_id], open_[Conflicts.detail], strict=True)
    return sorted(f"{conflict_id}: {detail}" for conflict_id, detail in pairs)


def contradicted_certificates(certificate_rechecks: pd.DataFrame) -> list[str]:
    """Return the rounds of certificates that later annotations contradict, with the errors."""
    found = certificate_rechecks[certificate_rechecks[CertificateRechecks.contradicted]]
    columns = [
        CertificateRechecks.certified_round,
        CertificateRechecks.errors,
        CertificateRechecks.labels,
        CertificateRechecks.alpha,
    ]
    return [
        f"{round_id}: {errors} errors in {labels} labels, {alpha:.1%} allowed"
        for round_id, errors, labels, alpha in found[columns].itertuples(index=False)
    ]


def groups_in_two_splits(training_set: pd.DataFrame) -> list[str]:
    """Return the duplicate groups with images in more than one split."""
    splits = training_set.groupby(TrainingSet.group_id)[TrainingSet.split].nunique()
    return sorted(splits[splits > 1].index)


def test_images_in_train(training_set: pd.DataFrame, earlier: Iterable[pd.DataFrame]) -> list[str]:
    """Return the images of an earlier test split that are now in another split."""
    tested: set[str] = set()
    for table in earlier:
        is_test = table[TrainingSet.split] == Split.TEST
        tested.update(table.loc[is_test, TrainingSet.image_id].unique())
    images = training_set[TrainingSet.image_id]
    moved = images[images.isin(tested) & (training_set[TrainingSet.split] != Split.TEST)]
    return sorted(set(moved))


def sample_to_read_back(training_set: pd.DataFrame, round_id: str) -> pd.DataFrame:
    """Return the labels of the images that are written and read back before a release.

    The files of an image depend on that image alone. So the sample has all images whose labels are
    of this round, and 10,000 of the others, drawn for each round with the round's own seed.
    """
    is_other = training_set[TrainingSet.round_id] != round_id
    others = training_set.loc[is_other, TrainingSet.image_id].drop_duplicates()
    left_out = others.iloc[
        np.random.default_rng(round_number(round_id)).permutation(len(others))[_READ_BACK:]
    ]
    return training_set[~training_set[TrainingSet.image_id].isin(left_out)]


def formats_disagree(dataset: Dataset) -> list[str]:
    """Return the formats in which labels change when they are written and read back.

    Every image and every enclosing box must come back, with the same class and an IoU of at least
    0.99.
    """
    dataset = dataset.boxes()
    sizes = {
        row["image_id"]: (row["width"], row["height"]) for row in dataset.images.to_dict("records")
    }
    with tempfile.TemporaryDirectory() as folder:
        write_files(render_coco(dataset) | render_yolo(dataset), Path(folder))
        read_back = {
            "COCO": read_coco(Path(folder)),
            "YOLO": read_yolo(Path(folder), sizes=sizes),
        }
    problems = []
    for name, found in read_back.items():
        if set(found.images["image_id"]) != set(dataset.images["image_id"]):
            problems.append(f"{name}: the images differ")
        same = pooled_f1(found.labels, dataset.labels, iou_threshold=_SAME_BOX)
        if same < 1.0:
            problems.append(f"{name}: only {same:.2%} of the boxes came back as they were")
    return problems
