"""Judges whether a label in pixels can be used on its image, and corrects it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from annotation_platform.schema.annotations import Canvas
from annotation_platform.schema.shapes import (
    KEPT_WHOLE,
    UNSURE,
    UPRIGHT_BOXES,
    Label,
    rotated_corners,
)
from annotation_platform.schema.shapes.outline_repair import (
    LEAST_SHARE_INSIDE,
    Extent,
    OutlineError,
    check_outside,
    clip,
    crosses_itself,
    differ,
    enclosed,
    share_inside,
    without_repetition,
)

_OUTSIDE_PERCENT = 5.0
"""The percentage of a side by which a box or polygon may reach outside and be clipped."""


def judge(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    """Return the usable label, and notes about changes.

    ``regions.decode_labels`` lists the rules.

    Raises:
        ValueError: the label cannot be used, for the given reason.
    """
    if label == UNSURE:
        return label, []
    name, notes = _class_name(label, canvas)
    shape = canvas.ontology.shape_of[name]
    judge = _JUDGES.get(label.shape)
    is_turned = label.shape in UPRIGHT_BOXES and shape in KEPT_WHOLE
    if judge is None or (shape != label.shape and not is_turned):
        raise ValueError(f"shape {label.shape!r:.40}, but class {name!r} has shape {shape!r}")
    try:
        judged, more = judge(replace(label, class_name=name), canvas)
    except OutlineError as error:
        raise ValueError(str(error)) from error
    except (TypeError, KeyError, IndexError) as error:
        raise ValueError(f"geometry {label.geometry!r:.80} cannot be used") from error
    if judged.shape != shape:
        x1, y1, x2, y2 = _box_of(judged)
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        judged = Label.rotated_box(name, *middle, x2 - x1, y2 - y1, 0)
    return judged, notes + more


def _class_name(label: Label, canvas: Canvas) -> tuple[str, list[str]]:
    """Return the current name of a label's class, and a note if the label has an earlier one."""
    name = label.class_name or ""
    today = canvas.ontology.successors.get(name)
    if today is None:
        raise ValueError(f"class {name!r:.100} is not in the ontology")
    if len(today) != 1:
        became = " or ".join(map(repr, today)) or "nothing"
        raise ValueError(f"class {name!r} is retired and has become {became}")
    return today[0], [] if today[0] == name else [f"class {name!r} is called {today[0]!r} now"]


def _box(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    corners = _box_of(label)
    check_outside(corners, canvas.width, canvas.height, _OUTSIDE_PERCENT)
    x1, y1, x2, y2 = clipped = clip(corners, canvas.width, canvas.height)
    if x1 >= x2 or y1 >= y2:
        raise ValueError("too small to have an area")
    notes = ["partly outside the image; clipped at its edge"] if differ(clipped, corners) else []
    return Label.box(str(label.class_name), *clipped), notes


def _rotated_box(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    turned = Label.rotated_box(str(label.class_name), *_finite(label.values))
    corners = rotated_corners(*label.values).tolist()
    inside = share_inside(corners, canvas.width, canvas.height)
    if inside < LEAST_SHARE_INSIDE:
        raise ValueError(f"{100 - inside * 100:.1f} percent of it are outside the image")
    reach = _box_of(turned)
    x1, y1, x2, y2 = clipped = clip(reach, canvas.width, canvas.height)
    notes = ["partly outside the image; kept whole"] if differ(clipped, reach) else []
    return replace(turned, x1=x1, y1=y1, x2=x2, y2=y2), notes


def _polygon(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    outlines: list[list[float]] = []
    notes: list[str] = []
    for outline in label.values:
        numbers = _finite(outline)
        points = zip(numbers[::2], numbers[1::2], strict=True)
        corners = without_repetition(list(points))
        reach = _box_of(Label.polygon("", [numbers]))
        check_outside(reach, canvas.width, canvas.height, _OUTSIDE_PERCENT)
        remarks = []
        if crosses_itself(corners):
            remarks.append("crosses or touches itself; what its outline encloses is taken")
        if differ(reach, clip(reach, canvas.width, canvas.height)):
            remarks.append("partly outside the image; clipped at its edge")
        outlines += enclosed(corners, canvas.width, canvas.height) if remarks else [numbers]
        notes += remarks
    return Label.polygon(str(label.class_name), outlines), notes


def _mask(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    if list(label.values["size"]) != [canvas.height, canvas.width]:
        raise ValueError(f"a mask of another size than {canvas.width} × {canvas.height} pixels")
    return Label.mask(str(label.class_name), label.pixels), []


def _keypoint(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    x, y = _finite(label.values)
    if not (0 <= x <= canvas.width and 0 <= y <= canvas.height):
        raise ValueError("outside the image")
    return Label.keypoint(str(label.class_name), x, y), []


def _choice(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:  # noqa: ARG001
    return Label.choice(str(label.class_name)), []


_JUDGES: dict[str, Callable[[Label, Canvas], tuple[Label, list[str]]]] = {
    "box": _box,
    "rotated_box": _rotated_box,
    "polygon": _polygon,
    "mask": _mask,
    "keypoint": _keypoint,
    "choice": _choice,
}


def _box_of(label: Label) -> Extent:
    x1, y1, x2, y2 = _finite([label.x1, label.y1, label.x2, label.y2])
    return x1, y1, x2, y2


def _finite(values: Sequence[Any]) -> list[float]:
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise ValueError(f"a coordinate is {value!r:.40}, not a usable number")
    return [float(value) for value in values]
