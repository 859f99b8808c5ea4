"""Boxes in pixels to Label Studio's regions in percent, and back; nothing is dropped unsaid."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from annotation_platform.labeling.client import Proposal
from annotation_platform.labeling.interface import CONTROL_NAME, IMAGE_NAME
from annotation_platform.schema.ontology import Ontology

# What browsers lose in arithmetic; a box that is off by less is exactly at the edge.
_ROUNDING_PIXELS = 0.01

_LARGEST_PERCENT = 1e9


@dataclass(frozen=True)
class LabelledBox:
    """A box with its class, in pixels of the stored picture."""

    class_name: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True)
class ParsedResult:
    """The boxes of one annotation, in the order drawn, and what is wrong with it.

    Each problem is a sentence that begins with the region it is about. A problem may come with
    a box (a turned one, a clipped one) or instead of one; no region disappears without either.
    """

    boxes: list[LabelledBox]
    problems: list[str]


class _RegionError(ValueError):
    """A region holds no usable box, for the reason given."""


def boxes_to_result(
    boxes: Iterable[Proposal | LabelledBox], width: int, height: int
) -> list[dict[str, Any]]:
    """Return the boxes as Label Studio regions: percent of the picture, one region per box.

    Args:
        boxes: Boxes in absolute pixels of the stored picture; a proposal's score goes along.
        width: Width of the stored picture in pixels, at least 1.
        height: Height of the stored picture in pixels, at least 1.

    Returns:
        One region per box, in order; no boxes give an empty list. The regions are named by
        their position, so the same boxes give the same regions.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a picture of {width} × {height} pixels has no percent")
    regions = []
    for position, box in enumerate(boxes):
        region = {
            "id": f"box-{position}",
            "type": "rectanglelabels",
            "from_name": CONTROL_NAME,
            "to_name": IMAGE_NAME,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "x": box.x1 * 100 / width,
                "y": box.y1 * 100 / height,
                "width": (box.x2 - box.x1) * 100 / width,
                "height": (box.y2 - box.y1) * 100 / height,
                "rotation": 0,
                "rectanglelabels": [box.class_name],
            },
        }
        if isinstance(box, Proposal):
            region["score"] = box.score
        regions.append(region)
    return regions


def result_to_boxes(
    result: Any, width: int, height: int, ontology: Ontology, *, outside_percent: float = 5.0
) -> ParsedResult:
    """Return the boxes that a Label Studio result says, in pixels, and the problems found.

    Label Studio stores whatever it is sent, so nothing is taken for granted. A region gives a
    problem *instead of* a box if it is no rectangle, has not exactly one class of the ontology,
    has a coordinate that is no finite number, has no area, was drawn on a picture of another
    size or on a turned picture, or reaches further outside than ``outside_percent``. It gives
    a problem *and* a box if it was turned (the box around it) or had to be clipped. The same
    region said twice counts once, with a problem.

    Args:
        result: The ``result`` of an annotation or a prediction, as Label Studio gives it.
        width: Width of the stored picture in pixels.
        height: Height of the stored picture in pixels.
        ontology: The classes that a label may name.
        outside_percent: How far outside the picture, in percent of its side, a box may
            reach and still be clipped rather than refused.

    Returns:
        Boxes inside the picture with an area; an empty result gives none and no problem,
        which is a valid answer: there is nothing to see in the picture.
    """
    if not isinstance(result, list):
        return ParsedResult(
            [], [f"result: expected a list of regions, not {type(result).__name__}"]
        )
    boxes: list[LabelledBox] = []
    problems: list[str] = []
    seen: dict[str, LabelledBox] = {}
    classes = set(ontology.names)
    for position, region in enumerate(result):
        name = _region_name(region, position)
        try:
            box, notes = _region_to_box(region, width, height, classes, outside_percent)
        except _RegionError as error:
            problems.append(f"{name}: {error}")
            continue
        problems += [f"{name}: {note}" for note in notes]
        if seen.get(name) == box:
            problems.append(f"{name}: said twice, counted once")
            continue
        seen[name] = box
        boxes.append(box)
    return ParsedResult(boxes, problems)


def _region_name(region: Any, position: int) -> str:
    given = region.get("id") if isinstance(region, dict) else None
    return f"region {given}" if given else f"region number {position + 1}"


def _region_to_box(
    region: Any, width: int, height: int, classes: set[str], outside_percent: float
) -> tuple[LabelledBox, list[str]]:
    """Return the box of one region and notes about it, or raise why there is none."""
    if not isinstance(region, dict):
        raise _RegionError(f"expected an object, not {type(region).__name__}")
    if region.get("type") != "rectanglelabels":
        raise _RegionError(f"a {region.get('type') or 'region without a type'} is not a box")
    value = region.get("value")
    if not isinstance(value, dict):
        raise _RegionError("it has no value")
    class_name = _only_class(value.get("rectanglelabels"), classes)
    _check_picture(region, width, height)
    x, y, box_width, box_height, rotation = (
        _number(value, key) for key in ("x", "y", "width", "height", "rotation")
    )
    if box_width <= 0 or box_height <= 0:
        raise _RegionError(f"{box_width:g} × {box_height:g} percent is no area")
    left, top = x * width / 100, y * height / 100
    right, bottom = left + box_width * width / 100, top + box_height * height / 100
    corners = (left, top, right, bottom)
    notes = []
    if not math.isclose(rotation % 360, 0, abs_tol=1e-6):
        corners = _around_turned(corners, rotation)
        notes.append(f"turned by {rotation:g} degrees; the box around it is taken")
    clipped = _clip(corners, width, height, math.inf if notes else outside_percent)
    if max(abs(a - b) for a, b in zip(clipped, corners, strict=True)) > _ROUNDING_PIXELS:
        notes.append("partly outside the picture; clipped at its edge")
    return LabelledBox(class_name, *clipped), notes


def _only_class(labels: Any, classes: set[str]) -> str:
    if not isinstance(labels, list) or len(labels) != 1 or not isinstance(labels[0], str):
        raise _RegionError(f"expected exactly one class, not {labels!r}")
    if labels[0] not in classes:
        raise _RegionError(f"class {labels[0]!r} is not in the ontology")
    return labels[0]


def _check_picture(region: dict[str, Any], width: int, height: int) -> None:
    drawn_on = (region.get("original_width"), region.get("original_height"))
    if drawn_on != (width, height):
        raise _RegionError(
            f"drawn on a picture of {drawn_on[0]} × {drawn_on[1]} pixels, "
            f"the stored one has {width} × {height}"
        )
    if region.get("image_rotation", 0) not in (0, None):
        raise _RegionError(f"drawn on a picture turned by {region['image_rotation']!r} degrees")


def _number(value: dict[str, Any], key: str) -> float:
    number = value.get(key, 0 if key == "rotation" else None)
    # A bool is an int to Python, but nobody's coordinate.
    # The bound keeps later arithmetic finite, whatever integer somebody sends.
    if (
        isinstance(number, bool)
        or not isinstance(number, int | float)
        or not -_LARGEST_PERCENT <= number <= _LARGEST_PERCENT
    ):
        raise _RegionError(f"{key} is {number!r:.40}, not a usable number")
    return float(number)


def _around_turned(
    corners: tuple[float, float, float, float], rotation: float
) -> tuple[float, float, float, float]:
    """Return the box around a rectangle turned clockwise about its top left corner, as there."""
    left, top, right, bottom = corners
    cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    turned = [
        (left + dx * cos - dy * sin, top + dx * sin + dy * cos)
        for dx in (0.0, right - left)
        for dy in (0.0, bottom - top)
    ]
    xs, ys = zip(*turned, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _clip(
    corners: tuple[float, float, float, float], width: int, height: int, outside_percent: float
) -> tuple[float, float, float, float]:
    left, top, right, bottom = corners
    outside = max(-left / width, -top / height, (right - width) / width, (bottom - height) / height)
    x1, y1 = max(left, 0.0), max(top, 0.0)
    x2, y2 = min(right, float(width)), min(bottom, float(height))
    if x1 >= x2 or y1 >= y2:
        raise _RegionError("entirely outside the picture")
    # The grace is for arithmetic: exactly the tolerance is still within it.
    if outside * 100 > outside_percent + 1e-9:
        raise _RegionError(f"reaches {outside * 100:.1f} percent outside the picture")
    return x1, y1, x2, y2
