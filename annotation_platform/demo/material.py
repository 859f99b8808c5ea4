"""Inputs of the demo: batches of image files, and the ground truth of the simulated annotators."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from annotation_platform.demo.scenes import ONTOLOGY, draw_batch
from annotation_platform.demo.truth import read_truth
from annotation_platform.errors import DataError
from annotation_platform.schema.dataset import Dataset


@dataclass(frozen=True)
class Material:
    """The files of each batch by name, and the ground truth of all by SHA-256 of the bytes."""

    batches: list[dict[str, bytes]]
    truth: Dataset


def drawn_material(batches: int, images: int, *, seed: int) -> Material:
    """Return drawn harbours: ``batches`` batches with ``images`` sound images each."""
    drawn = [draw_batch(number, images, seed=seed) for number in range(1, batches + 1)]
    known = pd.concat([batch.truth.images for batch in drawn], ignore_index=True)
    labels = pd.concat([batch.truth.labels for batch in drawn], ignore_index=True)
    truth = Dataset(known.drop_duplicates("image_id"), labels.drop_duplicates(), ONTOLOGY)
    return Material([batch.files for batch in drawn], truth)


def real_material(
    images: Path, truth_path: Path, *, batches: int, limit: int, seed: int
) -> tuple[Material, tuple[str, ...]]:
    """Return the images of a folder in equal batches, in random order, and the problems found.

    Args:
        images: the folder of images.
        truth_path: their Pascal VOC or COCO annotations.
        batches: number of batches.
        limit: maximum number of images; 0 takes all.
        seed: random seed of the order.

    Raises:
        DataError: there are no images or labels, or there are fewer images than batches.
    """
    truth = read_truth(images, truth_path)
    files = truth.dataset.images[["image_id", "file_name"]].sort_values("file_name")
    order = np.random.default_rng(seed).permutation(len(files))
    chosen = files.iloc[order[: limit or len(files)]]
    if len(chosen) < batches:
        raise DataError(
            f"{images}: {len(chosen)} images with ground truth are too few for {batches} batches. "
            "Pass a smaller --batches."
        )
    parts = [
        {name: (images / name).read_bytes() for name in chosen["file_name"].iloc[part]}
        for part in np.array_split(np.arange(len(chosen)), batches)
    ]
    return Material(parts, truth.dataset), truth.problems
