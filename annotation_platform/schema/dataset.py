"""A dataset as every format reads and writes it: images, labels, classes."""

from dataclasses import dataclass, replace

import pandas as pd

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS, UPRIGHT_BOXES, WITH_CLASS

IMAGE_COLUMNS = ["image_id", "file_name", "split", "width", "height"]
LABEL_COLUMNS = ["image_id", "class_name", "x1", "y1", "x2", "y2"]
MORE_LABEL_COLUMNS = {"shape": "box", "geometry": "", "instance": "", "attributes": ""}
"""What a label may say beyond a box, and what it says where a format knows nothing of it."""


@dataclass(frozen=True)
class Dataset:
    """Images and their labels.

    ``images`` has the columns of ``IMAGE_COLUMNS``: one row per image, labelled or not;
    ``file_name`` is relative to the dataset's folder and ``split`` is empty where there is none.

    ``labels`` has the columns of ``LABEL_COLUMNS``, one row per label, and those of
    ``MORE_LABEL_COLUMNS``, which are added where they are missing:

    * ``shape`` and ``geometry`` as ``schema/shapes`` has them: regions in absolute pixels, with
      their enclosing box, and choices, which have none;
    * ``instance``: labels of an image that share it, and it is not empty, are one object: its
      outline and its points;
    * ``attributes``: further facts of a format, as a JSON object with sorted keys; empty for
      nothing. ``crowd``, ``difficult``, ``truncated``, ``occluded`` and ``hidden`` are 0 or 1,
      ``pose`` a text, ``cuboid`` a box in space (``height width length x y z rotation_y``, metres
      and radians, as in KITTI).
    """

    images: pd.DataFrame
    labels: pd.DataFrame
    ontology: Ontology

    def __post_init__(self) -> None:
        """Add the columns that the labels lack."""
        missing = {
            key: value for key, value in MORE_LABEL_COLUMNS.items() if key not in self.labels
        }
        if missing:
            object.__setattr__(self, "labels", self.labels.assign(**missing))

    @classmethod
    def from_training_set(cls, training_set: pd.DataFrame, ontology: Ontology) -> "Dataset":
        """Return the dataset that a ``training_set`` table describes, sorted by image id.

        File names are those of a version's folder: ``images/<split>/<image_id>.<extension>``.
        """
        images = training_set.drop_duplicates("image_id").sort_values("image_id")
        file_names = (
            "images/" + images["split"] + "/" + images["image_id"] + "." + images["extension"]
        )
        labels = training_set[training_set["shape"].isin(WITH_CLASS)]
        labels = labels.sort_values(["image_id", "label_id"])
        return cls(
            images=images.assign(file_name=file_names)[IMAGE_COLUMNS].reset_index(drop=True),
            labels=labels[[*LABEL_COLUMNS, "shape", "geometry"]].reset_index(drop=True),
            ontology=ontology,
        )

    def boxes(self) -> "Dataset":
        """Return the boxes, and those around all other areas as far as they are in the image.

        Points and choices have none, and are left out.
        """
        sides = self.images.set_index("image_id")[["width", "height"]]
        labels = self.labels[self.labels["shape"].isin(AREAS)].reset_index(drop=True)
        others = labels[~labels["shape"].isin(UPRIGHT_BOXES)]
        for side, length in (("x", "width"), ("y", "height")):
            edges = [f"{side}1", f"{side}2"]
            longest = others["image_id"].map(sides[length])
            labels.loc[others.index, edges] = others[edges].clip(0).clip(upper=longest, axis=0)
        return replace(self, labels=labels.assign(shape="box", geometry="", instance=""))
