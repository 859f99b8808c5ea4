"""One label, in pixels of a picture, as the regions with which Label Studio says it."""

import math
from typing import Any

from annotation_platform.labeling.backends.label_studio.brush import encode_mask
from annotation_platform.labeling.backends.label_studio.interface import (
    CONTROLS,
    IMAGE_NAME,
    UNSURE_NAME,
)
from annotation_platform.schema.shapes import Label

_POINT_PERCENT = 0.5
"""How wide Label Studio shows a point, in percent of the picture's width."""


def write_region(label: Label, key: str, width: int, height: int) -> list[dict[str, Any]]:
    """Return the regions that say one label: none for "nothing here", one for each outline.

    Args:
        label: A label in pixels of a picture.
        key: The ``id`` of the region; further outlines are under it and have their number added.
        width: Width of the picture in pixels.
        height: Height of the picture in pixels.
    """
    if label.shape == "none":
        return []
    said = {
        "type": "choices",
        "from_name": UNSURE_NAME if label.shape == "unsure" else CONTROLS[label.shape],
        "to_name": IMAGE_NAME,
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
    }
    if label.shape in {"choice", "unsure"}:
        chosen = label.class_name if label.shape == "choice" else UNSURE_NAME
        return [{"id": key, **said, "value": {"choices": [chosen]}}]
    if label.shape == "polygon":
        return _outlines(label, key, said)
    kind, value = _value(label, width, height)
    return [{"id": key, **said, "type": kind, "value": {**value, kind: [label.class_name]}}]


def _outlines(label: Label, key: str, said: dict[str, Any]) -> list[dict[str, Any]]:
    kind = "polygonlabels"
    across, down = 100 / said["original_width"], 100 / said["original_height"]
    regions = []
    for number, outline in enumerate(label.values):
        points = [[x * across, y * down] for x, y in zip(outline[::2], outline[1::2], strict=True)]
        value = {"points": points, "closed": True, kind: [label.class_name]}
        name = {"id": f"{key}-{number}", "parentID": key} if number else {"id": key}
        regions.append({**name, **said, "type": kind, "value": value})
    return regions


def _value(label: Label, width: int, height: int) -> tuple[str, dict[str, Any]]:
    """Return the type of region that says a label, and what it says but for the class."""
    across, down = 100 / width, 100 / height
    if label.shape == "mask":
        pixels = label.pixels
        if pixels.shape != (height, width):
            raise ValueError(f"a mask of {pixels.shape} pixels on a picture of {width} × {height}")
        return "brushlabels", {"format": "rle", "rle": encode_mask(pixels)}
    if label.shape == "keypoint":
        x, y = label.values
        return "keypointlabels", {"x": x * across, "y": y * down, "width": _POINT_PERCENT}
    left, top, box_width, box_height, degrees = _rectangle(label)
    return "rectanglelabels", {
        "x": left * across,
        "y": top * down,
        "width": box_width * across,
        "height": box_height * down,
        "rotation": degrees,
    }


def _rectangle(label: Label) -> tuple[float, float, float, float, float]:
    """Return the top left corner, sides and degrees of a box, turned about that corner or not."""
    if label.shape == "rotated_box":
        x, y, width, height, degrees = label.values
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        left = x - (width * cos - height * sin) / 2
        top = y - (width * sin + height * cos) / 2
        return left, top, width, height, degrees
    if label.x1 is None or label.y1 is None or label.x2 is None or label.y2 is None:
        raise ValueError(f"{label} has no place")
    return label.x1, label.y1, label.x2 - label.x1, label.y2 - label.y1, 0
