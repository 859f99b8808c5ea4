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
from annotation_platform.schema.tables import Frame, TrainingSet

Target = dict[str, torch.Tensor]
Transforms = Callable[[torch.Tensor, Target], tuple[torch.Tensor, Target]]


class VersionSamples(Dataset[tuple[torch.Tensor, Target]]):
    """The images of one split with their areas.

    An item is ``(image, target)``: the image ``float32 (3, H, W)`` in ``[0, 1]``, the target
    ``boxes`` ``float32 (N, 4)`` in absolute pixels, ``labels`` ``int64 (N,)``, ``image_id``,
    ``area`` and ``iscrowd``, and with ``masks`` also ``masks`` ``uint8 (N, H, W)``. Images
    without an area have ``N`` = 0. Label 0 is the background, as in torchvision; label ``i`` is
    class ``classes[i]``, by ascending class id.

    Args:
        labels: a ``training_set`` table.
        ontology: its classes.
        folder: with the version's files.
        split: ``train``, ``val`` or ``test``.
        image_ids: images of the split in the order of the items; an image may be repeated (see
            ``curation.balance``). By default each image once.
        transforms: called with image and target, as torchvision's are.
        masks: whether targets have the areas as masks; a box fills its mask.

    Raises:
        DataError: an image of ``image_ids`` is not in the split.
    """

    def __init__(
        self,
        labels: Frame[TrainingSet],
        ontology: Ontology,
        folder: Path,
        split: str,
        *,
        image_ids: Sequence[str] | None = None,
        transforms: Transforms | None = None,
        masks: bool = False,
    ) -> None:
        rows = labels[labels[TrainingSet.split] == split]
        rows = rows.sort_values([TrainingSet.image_id, TrainingSet.label_id])
        ordered = sorted(ontology.classes, key=lambda each: each.id)
        self.classes = ["background", *(each.name for each in ordered)]
        present = set(rows[TrainingSet.image_id])
        self.image_ids: list[str] = sorted(present) if image_ids is None else list(image_ids)
        unknown = next((image for image in self.image_ids if image not in present), None)
        if unknown is not None:
            raise DataError(f"image {unknown} is not in the {split} split. Leave it out.")
        number: Mapping[str, int] = {name: index for index, name in enumerate(self.classes)}
        pairs = zip(rows[TrainingSet.image_id], rows[TrainingSet.extension], strict=True)
        extension = dict(pairs)
        images = folder / "images" / split
        self._paths = [images / f"{image}.{extension[image]}" for image in self.image_ids]
        areas = rows[rows[TrainingSet.shape].isin(AREAS)]
        areas = areas.assign(number=areas[TrainingSet.class_name].map(number))
        self._areas = {str(image): each for image, each in areas.groupby(TrainingSet.image_id)}
        self._transforms = transforms
        self._masks = masks

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, Target]:
        pixels = read_image(self._paths[index])
        image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
        rows = self._areas.get(self.image_ids[index])
        corners = [] if rows is None else rows[BOX_COLUMNS].to_numpy(np.float32).tolist()
        boxes = torch.tensor(corners, dtype=torch.float32).reshape(-1, 4)
        numbers = [] if rows is None else rows["number"].tolist()
        target = {
            "boxes": boxes,
            "labels": torch.tensor(numbers, dtype=torch.int64),
            "image_id": torch.tensor(index),
            "area": (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
            "iscrowd": torch.zeros(len(boxes), dtype=torch.int64),
        }
        if self._masks:
            height, width = pixels.shape[:2]
            masks = np.zeros((len(boxes), height, width), np.uint8)
            for number, label in enumerate([] if rows is None else _labels(rows)):
                masks[number] = _mask(label, (height, width))
            target["masks"] = torch.from_numpy(masks)
        if self._transforms is not None:
            return self._transforms(image, target)
        return image, target


def collate(batch: list[tuple[torch.Tensor, Target]]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return images and targets as two tuples; images of different sizes cannot be stacked."""
    images, targets = zip(*batch, strict=True)
    return images, targets


def _labels(rows: pd.DataFrame) -> list[Label]:
    columns = rows[["shape", "class_name", "geometry", *BOX_COLUMNS]]
    return [Label(*row) for row in columns.itertuples(index=False)]


def _mask(label: Label, size: tuple[int, int]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Return the pixels of an area, ``(H, W)``."""
    from pycocotools import mask as coco

    if SHAPES[label.shape].is_raster:
        return label.pixels.astype(np.uint8)
    runs = coco.merge(coco.frPyObjects(outlines_of(label), *size))
    return np.asarray(coco.decode(runs), np.uint8)
