"""A published version as a torch ``Dataset``, in the form that torchvision's detectors train on."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from annotation_platform.errors import DataError
from annotation_platform.models.network_inputs import read_image
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS, SHAPES, Label, outlines_of

Target = dict[str, torch.Tensor]
Transforms = Callable[[torch.Tensor, Target], tuple[torch.Tensor, Target]]


class VersionSamples(Dataset[tuple[torch.Tensor, Target]]):
    """The images of one split with their areas.

    An item is ``(image, target)``: the image ``float32 (3, H, W)`` in ``[0, 1]``, the target
    ``boxes`` ``float32 (N, 4)`` in absolute pixels, ``labels`` ``int64 (N,)``, ``image_id``,
    ``area`` and ``iscrowd``, and with ``masks`` also ``masks`` ``uint8 (N, H, W)``. Images
    without an area have ``N`` = 0. Label 0 is the background, as torchvision has it; label ``i`` is
    class ``classes[i]``, by rising class id.

    Args:
        labels: a ``training_set`` table.
        ontology: its classes.
        folder: of the version's files.
        split: ``train``, ``val`` or ``test``.
        image_ids: of the split, in the order wanted, an image as often as it is to be seen (see
            ``curation.balance``); by default all, each once.
        transforms: called with image and target, as torchvision's are.
        masks: whether to draw the areas as masks; boxes are filled whole.
    """

    def __init__(
        self,
        labels: pd.DataFrame,
        ontology: Ontology,
        folder: Path,
        split: str,
        *,
        image_ids: Sequence[str] | None = None,
        transforms: Transforms | None = None,
        masks: bool = False,
    ) -> None:
        rows = labels[labels["split"] == split].sort_values(["image_id", "label_id"])
        ordered = sorted(ontology.classes, key=lambda each: each.id)
        self.classes = ["background", *(each.name for each in ordered)]
        present = set(rows["image_id"])
        self.image_ids: list[str] = sorted(present) if image_ids is None else list(image_ids)
        strange = next((image for image in self.image_ids if image not in present), None)
        if strange is not None:
            raise DataError(f"image {strange} is not in the {split} split. Leave it out.")
        number: Mapping[str, int] = {name: place for place, name in enumerate(self.classes)}
        extension = dict(zip(rows["image_id"], rows["extension"], strict=True))
        place = folder / "images" / split
        self._paths = [place / f"{image}.{extension[image]}" for image in self.image_ids]
        areas = rows[rows["shape"].isin(AREAS)]
        areas = areas.assign(number=areas["class_name"].map(number))
        self._areas = {str(image): each for image, each in areas.groupby("image_id")}
        self._transforms = transforms
        self._masks = masks

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        pixels = read_image(self._paths[index])
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
        rows = self._areas.get(self.image_ids[index])
        found = [] if rows is None else rows[BOX_COLUMNS].to_numpy(np.float32).tolist()
        kept = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
        numbers = [] if rows is None else rows["number"].tolist()
        target = {
            "boxes": kept,
            "labels": torch.tensor(numbers, dtype=torch.int64),
            "image_id": torch.tensor(index),
            "area": (kept[:, 2] - kept[:, 0]) * (kept[:, 3] - kept[:, 1]),
            "iscrowd": torch.zeros(len(kept), dtype=torch.int64),
        }
        if self._masks:
            height, width = pixels.shape[:2]
            masks = np.zeros((len(kept), height, width), np.uint8)
            for place, label in enumerate([] if rows is None else _labels(rows)):
                masks[place] = _drawn(label, (height, width))
            target["masks"] = torch.from_numpy(masks)
        if self._transforms is not None:
            return self._transforms(image, target)
        return image, target


def collate(batch: list[tuple[torch.Tensor, Target]]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return images and targets as two tuples: images differ in size and are not stacked."""
    images, targets = zip(*batch, strict=True)
    return images, targets


def _labels(rows: pd.DataFrame) -> list[Label]:
    columns = rows[["shape", "class_name", "geometry", *BOX_COLUMNS]]
    return [Label(*row) for row in columns.itertuples(index=False)]


def _drawn(label: Label, size: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return the pixels of an area, ``(H, W)``."""
    from pycocotools import mask as coco

    if SHAPES[label.shape].is_raster:
        return label.pixels.astype(np.uint8)
    runs = coco.merge(coco.frPyObjects(outlines_of(label), *size))
    return np.asarray(coco.decode(runs), np.uint8)
