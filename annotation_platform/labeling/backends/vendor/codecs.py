"""Codecs of vendor annotations, other than plain Label Studio regions."""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from annotation_platform.formats.coco import read_coco_boxes
from annotation_platform.labeling.backends.label_studio.codec import CODEC as LABEL_STUDIO
from annotation_platform.labeling.backends.label_studio.codec import NAME as LABEL_STUDIO_NAME
from annotation_platform.labeling.backends.regions import NamedEntry, decode_labels
from annotation_platform.schema.annotations import (
    Canvas,
    Codec,
    DecodedAnnotation,
    Payload,
    Region,
)
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.shapes import UNSURE, Label

ANNOTATIONS_NAME, COCO_NAME = "vendor-answers/1", "vendor-coco/1"


def native_payload(result: list[Any], *, unsure: bool) -> Payload:
    """Return an entry of ``answers.json`` as a payload; ``unsure`` if its author was unsure."""
    if unsure:
        return Payload(ANNOTATIONS_NAME, {"unsure": True, "result": result})
    return Payload(LABEL_STUDIO_NAME, result)


class AnnotationsCodec(Codec):
    """Reads entries of ``answers.json`` whose author was unsure: no drawn region counts."""

    def decode(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return ``unsure``, and the problems of the drawn regions."""
        drawn = LABEL_STUDIO.decode(content["result"], canvas)
        return DecodedAnnotation([Region(UNSURE)], drawn.problems, drawn.refused)

    def values(self, content: Any) -> list[str]:
        """Return the value of each region, and one for being unsure."""
        return [*LABEL_STUDIO.values(content["result"]), "unsure"]


class CocoCodec(Codec):
    """Reads a COCO document of one image: its annotations unchanged, and all categories."""

    def decode(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the boxes, and the boxes around other shapes; crowds are left out."""
        return decode_labels(_named(coco_boxes(content)), canvas)

    def values(self, content: Any) -> list[str]:
        """Return each annotation, without the ids that its file gave it."""
        return [
            json.dumps({**each, "id": 0, "image_id": 0}, sort_keys=True)
            for each in content["annotations"]
        ]


ANNOTATIONS_CODEC = AnnotationsCodec()
COCO_CODEC = CocoCodec()


def coco_boxes(content: Any) -> list[Label]:
    """Return the boxes of a COCO document of one image, in pixels."""
    annotations = content["annotations"]
    if not any(each.get(key) for each in annotations for key in _MORE_THAN_A_BOX) and all(
        "bbox" in each for each in annotations
    ):
        names = {each["id"]: each["name"] for each in content["categories"]}
        boxes = ((names[each["category_id"]], *each["bbox"]) for each in annotations)
        return [Label.box(name, x, y, x + w, y + h) for name, x, y, w, h in boxes]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "annotations.json"
        file.write_text(json.dumps(content))
        labels = read_coco_boxes(file).labels
    columns = [labels[name].tolist() for name in ("class_name", *BOX_COLUMNS)]
    return [Label.box(*box) for box in zip(*columns, strict=True)]


_MORE_THAN_A_BOX = ("segmentation", "rotated_box", "keypoints", "iscrowd")


def _named(labels: list[Label]) -> list[NamedEntry]:
    return [
        (f"region box-{position}", f"box-{position}", partial(_itself, label))
        for position, label in enumerate(labels)
    ]


def _itself(label: Label) -> Label:
    return label
