"""A dataset as every format reads and writes it: images, labels, classes."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS

IMAGE_COLUMNS = ["image_id", "file_name", "split", "width", "height"]
LABEL_COLUMNS = ["image_id", "class_name", "x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class Dataset:
    """Images and their boxes.

    ``images`` has the columns of ``IMAGE_COLUMNS``: one row per picture, boxes or not;
    ``file_name`` is relative to the dataset's folder and ``split`` is empty where there is none.
    ``labels`` has the columns of ``LABEL_COLUMNS``, one row per box, absolute pixels.
    """

    images: pd.DataFrame
    labels: pd.DataFrame
    ontology: Ontology

    @classmethod
    def from_training_set(cls, training_set: pd.DataFrame, ontology: Ontology) -> "Dataset":
        """Return the dataset that a ``training_set`` table describes, sorted by image id.

        Of shapes other than boxes it has the enclosing box, as far as it is in the picture;
        points and choices have none.
        File names are those of a version's folder: ``images/<split>/<image_id>.<extension>``.
        """
        images = training_set.drop_duplicates("image_id").sort_values("image_id")
        file_names = (
            "images/" + images["split"] + "/" + images["image_id"] + "." + images["extension"]
        )
        labels = training_set[training_set["shape"].isin(AREAS)]
        labels = labels.sort_values(["image_id", "label_id"])
        for side, length in (("x", "width"), ("y", "height")):
            edges = [f"{side}1", f"{side}2"]
            labels[edges] = labels[edges].clip(lower=0).clip(upper=labels[length], axis=0)
        return cls(
            images=images.assign(file_name=file_names)[IMAGE_COLUMNS].reset_index(drop=True),
            labels=labels[LABEL_COLUMNS].reset_index(drop=True),
            ontology=ontology,
        )
