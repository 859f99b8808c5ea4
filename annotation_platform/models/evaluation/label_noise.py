"""Label noise injected on purpose, and its effect on the model that is trained on it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.models.detection.detector import NetworkDetector, predict_files
from annotation_platform.models.detection.training import examples_of, train_detector
from annotation_platform.models.evaluation.evaluation import Evaluation, evaluate, figure_intervals
from annotation_platform.models.evaluation.promotion import compare
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.policy import TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, FloatArray, box_areas, iou_matrix

SHARES = (0.0, 0.05, 0.1, 0.2)
KINDS = ("swapped", "moved", "dropped")
_MOVED_IOU = 0.5
_TRIES = 50


@dataclass(frozen=True)
class NoisyLabels:
    """A dataset with injected errors, and the number of errors of each kind."""

    dataset: Dataset
    boxes: int  # with an area, before the errors
    errors: dict[str, int]  # by kind


def inject_label_noise(dataset: Dataset, share: float, *, seed: int) -> NoisyLabels:
    """Return the boxes of ``dataset`` with errors in this share of them, rounded to whole boxes.

    A third of these each get another class, are moved to where they overlap their old position by
    an IoU below 0.5, or are dropped; with a single class none is swapped. With the same seed, a
    larger share has the same errors and more. Boxes without an area stay unchanged.

    Raises:
        DataError: the share is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise DataError(f"a share of {share} noisy labels is impossible: give one from 0 to 1.")
    boxes = dataset.boxes()
    labels = boxes.labels.copy()
    names = list(boxes.ontology.names)
    sides = boxes.images.set_index("image_id")[["width", "height"]]
    kinds = KINDS if len(names) > 1 else KINDS[1:]
    solid = np.flatnonzero(box_areas(labels[BOX_COLUMNS].to_numpy(dtype=float)) > 0)
    rng = np.random.default_rng([seed, 2])
    order = rng.permutation(solid)
    seeds = rng.integers(2**63, size=len(order))
    errors = dict.fromkeys(KINDS, 0)
    dropped = []
    for number, at in enumerate(order[: round(share * len(order))]):
        kind, own = kinds[number % len(kinds)], np.random.default_rng(seeds[number])
        errors[kind] += 1
        if kind == "dropped":
            dropped.append(labels.index[at])
        elif kind == "swapped":
            others = [name for name in names if name != labels["class_name"].iloc[at]]
            labels.loc[labels.index[at], "class_name"] = str(own.choice(others))
        else:
            width, height = sides.loc[labels["image_id"].iloc[at]].to_numpy(dtype=float)
            box = labels[BOX_COLUMNS].iloc[at].to_numpy(dtype=float)
            labels.loc[labels.index[at], BOX_COLUMNS] = _moved(box, width, height, own)
    remaining = labels.drop(index=dropped).reset_index(drop=True)
    return NoisyLabels(replace(boxes, labels=remaining), len(solid), errors)


def noise_curve(
    train: Dataset,
    test: Dataset,
    paths: Mapping[str, Path],
    *,
    policy: TrainingPolicy,
    seed: int,
    shares: Sequence[float] = SHARES,
    progress: Callable[[float], None] | None = None,
) -> pd.DataFrame:
    """Return the figures of models trained with different shares of noisy labels.

    For each share one model is trained by ``train_detector``, always with the same seed, on the
    train split with noise of ``inject_label_noise``, and evaluated on the unchanged test split. No
    model is stored. The intervals of ``evaluate`` and ``compare`` cover other test images, not
    other training runs; two runs on the same labels differ by about .01 mAP.

    Args:
        train, test: images with their boxes.
        paths: the file of each image of both, by image id.
        policy: of each training.
        seed: of training and noise.
        shares: of the boxes, 0 to 1, the smallest first.
        progress: called with the share done, 0 to 1.

    Returns:
        A row for each share: ``share``, ``boxes`` (of the train split), ``swapped``, ``moved``,
        ``dropped``, ``map``, ``map50`` and their ``_low`` and ``_high``, ``difference`` of ``map``
        from the first row's model on the same images, with ``_low`` and ``_high``.

    Raises:
        NotReadyError: there is no test image, or no training box.
        DataError: a share is not from 0 to 1.
    """
    if test.images.empty:
        raise NotReadyError("the version has no test images yet. Release more rounds first.")
    test_paths = {image_id: paths[image_id] for image_id in test.images["image_id"]}
    rows: list[dict[str, object]] = []
    first: Evaluation | None = None
    for number, share in enumerate(shares):

        def report(done: float, number: int = number) -> None:
            if progress is not None:
                progress((number + done) / len(shares))

        noisy = inject_label_noise(train, share, seed=seed)
        trained = train_detector(
            examples_of(noisy.dataset, paths, tile_side=policy.tile_side),
            class_names=train.ontology.areas,
            policy=policy,
            seed=seed,
            options=TrainingOptions(progress=report),
        )
        detector = NetworkDetector.from_bytes(trained.state, where="the trained model")
        found = evaluate(test.boxes(), predict_files(detector, test_paths))
        first = first or found
        figures = _figures(found, first)
        rows.append({"share": share, "boxes": noisy.boxes, **noisy.errors, **figures})
    return pd.DataFrame(rows)


def _figures(found: Evaluation, first: Evaluation) -> dict[str, float]:
    intervals = figure_intervals(found.coco).overall
    than_first = compare(found, first).map
    ends = {"map": intervals["ap"], "map50": intervals["ap50"], "difference": than_first}
    values = {"map": found.map, "map50": found.map50, "difference": than_first.value}
    return {
        key: value
        for name, end in ends.items()
        for key, value in (
            (name, values[name]),
            (f"{name}_low", end.low),
            (f"{name}_high", end.high),
        )
    }


def _moved(box: FloatArray, width: float, height: float, rng: np.random.Generator) -> FloatArray:
    """Return the box at a random position; a box too large to be moved is cut to a quarter."""
    sides = box[2:] - box[:2]
    room = np.maximum(np.array([width, height]) - sides, 0.0)
    for _ in range(_TRIES):
        corner = rng.uniform(0.0, 1.0, 2) * room
        there = np.concatenate([corner, corner + sides])
        if iou_matrix(box[None], there[None])[0, 0] < _MOVED_IOU:
            return np.asarray(there)
    corner = box[:2] + rng.integers(2, size=2) * sides / 2
    return np.asarray(np.concatenate([corner, corner + sides / 2]))
