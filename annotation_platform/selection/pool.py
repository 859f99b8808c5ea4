"""The images that can be selected, with their groups, vectors and predictions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.schema.geometry import FloatArray
from annotation_platform.schema.shapes import CLASSIFICATIONS
from annotation_platform.schema.tables import CleanedImages, ModelPredictions, ReviewedLabels
from annotation_platform.selection.diversity import Positions, Vectors
from annotation_platform.selection.uncertainty import (
    box_uncertainty,
    classification_uncertainty,
    expected_objects,
)


@dataclass(frozen=True)
class SelectionInputs:
    """The tables from which the images of a round are selected.

    Attributes:
        pool: ``cleaned_images`` rows that have not been annotated; rows that are not accepted and
            rows that repeat an image are left out and counted. ``group_id`` and ``outcome`` may be
            missing.
        embeddings: ``image_embeddings`` of one embedder, for images of ``pool`` and
            ``selected_before``.
        predictions: ``model_predictions`` with calibrated scores; none before the first model.
        labels: the labels so far, by ``class_name``, one row each.
        selected_before: ``cleaned_images`` rows of the images that were selected before.
    """

    pool: pd.DataFrame
    embeddings: pd.DataFrame
    predictions: pd.DataFrame = field(default_factory=ModelPredictions.empty)
    labels: pd.DataFrame = field(default_factory=ReviewedLabels.empty)
    selected_before: pd.DataFrame = field(default_factory=CleanedImages.empty)


@dataclass(frozen=True)
class Candidates:
    """The N images that can be selected, by image id, as arrays; C classes, G groups.

    Each of P predictions that are right or wrong on their own is a question: boxes, and choices if
    an image can have any number of them. If an image has one of K choices, that is one question:
    ``chances``.
    """

    image_ids: list[str]
    groups: Positions  # (N,) group of near-duplicates, from 0
    selected_of_group: Positions  # (G,) members that were selected before
    vectors: Vectors  # (N, D), zeros for images without a vector
    usable: npt.NDArray[np.bool_]  # (N,) whether there is a vector of finite values
    selected_vectors: Vectors  # (K, D) of images selected before
    images: Positions  # (P,) row of each prediction's image
    scores: FloatArray  # (P,) calibrated, or NaN
    chances: FloatArray  # (N, K) calibrated; NaN if unknown; K is 0 without choices
    expected: FloatArray  # (N, C) objects, or choices, of each class, by the predictions
    classes: list[str]
    known: Positions  # (C,) labels so far

    def __len__(self) -> int:
        return len(self.image_ids)

    def uncertainty(self, measure: str) -> FloatArray:
        """Return the uncertainty of each image's predictions, ``(N,)``; 0 without predictions.

        The uncertainty of a single choice is added: its entropy if the measure is an entropy, else
        the probability that the likeliest choice is wrong.
        """
        values = box_uncertainty(self.images, self.scores, len(self), measure=measure)
        predicted = np.bincount(self.images, minlength=len(self)) > 0
        values = np.where(predicted, values, 0.0)
        if self.chances.shape[1] == 0:
            return values
        own = "entropy" if measure.endswith("entropy") else "least_confidence"
        return np.asarray(
            values + np.nan_to_num(classification_uncertainty(self.chances, measure=own))
        )


def gather(inputs: SelectionInputs, *, choose: Literal["one", "many"] = "one") -> Candidates:
    """Return the candidates of the pool, whose images are distinct, from all tables.

    ``choose`` is whether an image has one class or any number of classes.

    Raises:
        DataError: the vectors are of two embedders, and cannot be compared.
    """
    selected_before, predictions = inputs.selected_before, inputs.predictions
    image_ids = sorted(inputs.pool["image_id"])
    groups, selected_of_group = _groups(inputs.pool, selected_before, image_ids)
    vectors, usable, selected_vectors = _vectors(
        inputs.embeddings, image_ids, selected_before["image_id"]
    )
    images = _positions(predictions["image_id"], image_ids)
    here = predictions[(images >= 0) & predictions["class_name"].notna().to_numpy()]
    images = _positions(here["image_id"], image_ids)
    scores = here["score"].to_numpy(np.float64, na_value=np.nan)
    one_of = here["shape"].isin(CLASSIFICATIONS).to_numpy() & (choose == "one")
    counts = inputs.labels["class_name"].value_counts()
    classes = sorted({*counts.index, *here["class_name"].unique()})
    expected = expected_objects(
        images,
        scores,
        _positions(here["class_name"], classes),
        len(image_ids),
        class_count=len(classes),
    )
    return Candidates(
        image_ids=image_ids,
        groups=groups,
        selected_of_group=selected_of_group,
        vectors=vectors,
        usable=usable,
        selected_vectors=selected_vectors,
        images=images[~one_of],
        scores=scores[~one_of],
        chances=_chances(here[one_of], image_ids),
        expected=expected,
        classes=classes,
        known=np.array([counts.get(name, 0) for name in classes], dtype=np.int64),
    )


def _chances(choices: pd.DataFrame, image_ids: list[str]) -> FloatArray:
    """Return the probability of each choice of each image, ``(N, K)``, by name."""
    names = sorted(choices["class_name"].unique())
    chances = np.full((len(image_ids), len(names)), np.nan)
    rows, columns = (
        _positions(choices["image_id"], image_ids),
        _positions(choices["class_name"], names),
    )
    chances[rows, columns] = choices["score"].to_numpy(np.float64, na_value=np.nan)
    return chances


def _positions(values: "pd.Series[str]", names: list[str]) -> Positions:
    """Return the position of each value in ``names``; -1 for a value that is missing there."""
    return pd.Index(names, dtype="str").get_indexer(pd.Index(values)).astype(np.int64)


def _groups(
    pool: pd.DataFrame, selected_before: pd.DataFrame, image_ids: list[str]
) -> tuple[Positions, Positions]:
    """Return each image's group, and the number of each group's members selected before.

    An image without a group is a group of its own.
    """
    name = _group_names(pool)
    numbers: dict[str, int] = {}
    groups = [numbers.setdefault(name[image], len(numbers)) for image in image_ids]
    members = Counter(_group_names(selected_before).values())
    return (
        np.array(groups, dtype=np.int64),
        np.array([members[one] for one in numbers], dtype=np.int64),
    )


def _group_names(images: pd.DataFrame) -> dict[str, str]:
    if "group_id" not in images:
        return {image: image for image in images["image_id"]}
    named = images["group_id"].fillna(images["image_id"])
    return dict(zip(images["image_id"], named, strict=True))


def _vectors(
    embeddings: pd.DataFrame, image_ids: list[str], selected_before: "pd.Series[str]"
) -> tuple[Vectors, npt.NDArray[np.bool_], Vectors]:
    embedders = sorted(embeddings["embedder"].unique()) if "embedder" in embeddings else []
    if len(embedders) > 1:
        raise DataError(
            f"vectors of {' and '.join(embedders)} cannot be compared. "
            "Call features_for() for a single embedder."
        )
    vector = dict(zip(embeddings["image_id"], embeddings["vector"], strict=True))
    lengths = Counter(len(one) for one in vector.values() if np.ndim(one) == 1)
    width = max(lengths, key=lambda length: (lengths[length], length), default=0)
    matrix, usable = _matrix([vector.get(image) for image in image_ids], width)
    before, sound = _matrix([vector.get(image) for image in sorted(set(selected_before))], width)
    return matrix, usable, before[sound]


def _matrix(vectors: Sequence[Any], width: int) -> tuple[Vectors, npt.NDArray[np.bool_]]:
    matrix = np.zeros((len(vectors), width), dtype=np.float32)
    present = np.zeros(len(vectors), dtype=bool)
    for row, vector in enumerate(vectors):
        if width and np.shape(vector) == (width,):
            matrix[row] = vector
            present[row] = True
    usable = present & np.isfinite(matrix).all(axis=1)
    matrix[~usable] = 0.0
    return matrix, usable
