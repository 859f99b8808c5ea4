"""The content that release 0.1.0 stored of a vendor's annotation, to recognize old imports."""

from typing import Any

from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.labeling.backends.pybossa.codec import inner, is_skipped, is_unsure
from annotation_platform.labeling.backends.vendor.codecs import (
    ANNOTATIONS_NAME,
    COCO_NAME,
    coco_boxes,
)
from annotation_platform.schema.annotations import FIRST_CODEC, Payload
from annotation_platform.schema.shapes import UNSURE, Label


def in_first_codec(payload: Payload, width: int, height: int) -> Any:
    """Return the Label Studio regions that release 0.1.0 made of a payload.

    Args:
        payload: from one of the readers of returned files.
        width: width of the image in pixels, as the annotation gives it.
        height: height of the image in pixels, likewise.
    """
    size = (max(width, 1), max(height, 1))
    content = payload.content
    if payload.codec == FIRST_CODEC:
        return content
    if payload.codec == ANNOTATIONS_NAME:
        return [*content["result"], *write_result([UNSURE], *size)]
    if payload.codec == COCO_NAME:
        return write_result(coco_boxes(content), *size)
    if is_skipped(content):
        return []
    if is_unsure(content):
        return write_result([UNSURE], *size)
    regions = inner(content)
    return write_result([Label.choice(regions)], *size) if isinstance(regions, str) else regions
