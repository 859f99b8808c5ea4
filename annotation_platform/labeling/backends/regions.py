"""The neutral codec ``regions/1``: labels as JSON, in pixels of the stored image.

Content is a list with one object for each region, and at most one more for a reviewer's decision::

    [{"id": "box-0", "label": {"shape": "box", "class_name": "boat", "x1": 4.0, …}, "score": 0.9},
     {"decision": "accept", "comment": "the hull"}]

``label`` holds the attributes of ``schema.shapes.Label`` that are set. The simulator stores its
annotations in this form, and so can any back end that has no form of its own.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Required

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from annotation_platform.labeling.annotations import (
    Canvas,
    DecodedAnnotation,
    NamedLabel,
    Payload,
    Region,
    only_choice,
)
from annotation_platform.labeling.backends.label_studio.outlines import (
    OutlineError,
    crosses_itself,
    enclosed,
    share_inside,
    without_repetition,
)
from annotation_platform.labeling.backends.protocol import Proposal
from annotation_platform.schema.shapes import UNSURE, Label, rotated_corners

NAME = "regions/1"

_OUTSIDE_SHARE = 0.05
"""How far outside the image, as a share of its side, a box or polygon is clipped, not refused."""

_LEAST_SHARE_INSIDE = 0.5
"""At least this share of a rotated box is in the image: it cannot be cut and stay one."""

_ROUNDING_PIXELS = 0.01


@with_config(ConfigDict(strict=True, extra="forbid"))
class _LabelFields(TypedDict, total=False):
    shape: Required[str]
    class_name: str
    geometry: str
    x1: float
    y1: float
    x2: float
    y2: float


_LABEL = TypeAdapter(_LabelFields)

NamedEntry = tuple[str, str, Callable[[], Label]]
"""The name by which problems call a region, its id, and its label or a ValueError."""


def write_regions(
    labels: Iterable[Label], *, scores: Sequence[float | None] = (), key: str = ""
) -> list[dict[str, Any]]:
    """Return labels as content of ``regions/1``: one region each, in order.

    Args:
        labels: in pixels of the stored image; "nothing here" is no region.
        scores: of the labels, if a model made them; None for a label without one.
        key: put before each region's id.
    """
    given = list(labels)
    return [
        {
            "id": f"{key}{label.shape.replace('_', '-')}-{position}",
            "label": {
                name: value for name, value in asdict(label).items() if value not in ("", None)
            },
            **({} if score is None else {"score": score}),
        }
        for position, (label, score) in enumerate(
            zip(given, scores or [None] * len(given), strict=True)
        )
        if label.shape != "none"
    ]


def write_decision(decision: str, comment: str = "") -> list[dict[str, Any]]:
    """Return a reviewer's decision, ``accept`` or ``reject``, as content of ``regions/1``."""
    return [{"decision": decision, "comment": comment}]


def shown_regions(proposals: Iterable[Proposal]) -> Payload:
    """Return pre-annotations as a payload."""
    shown = list(proposals)
    scores = [each.score for each in shown]
    return Payload(NAME, write_regions([each.label for each in shown], scores=scores))


def read_proposals(content: Iterable[dict[str, Any]]) -> list[Proposal]:
    """Return the pre-annotations of what ``shown_regions`` wrote."""
    return [Proposal(Label(**each["label"]), each.get("score")) for each in content]


def decode_labels(entries: Iterable[NamedEntry], canvas: Canvas) -> DecodedAnnotation:
    """Return the regions of labels that a codec read, judged by the image and the classes.

    A label is refused if its class is not in the ontology or is drawn as something else, if a
    coordinate is no finite number, if it has no area, or if it reaches too far outside. A box or
    polygon that reaches outside by up to 5 percent of a side is clipped; a rotated box is kept
    whole if at least half of it is inside; a point must be inside. Two choices where one is asked
    are both refused, a region given twice counts once, and ``unsure`` stands alone.
    """
    found: list[NamedLabel] = []
    problems: list[str] = []
    refused = 0
    seen: dict[str, Label] = {}
    for name, region_id, read in entries:
        try:
            label, notes = _judged(read(), canvas)
        except ValueError as error:
            problems.append(f"{name}: {error}")
            refused += 1
            continue
        problems += [f"{name}: {note}" for note in notes]
        if seen.get(name) == label:
            problems.append(f"{name}: given twice, counted once")
            continue
        seen[name] = label
        found.append(NamedLabel(name, label, region_id))
    if canvas.ontology.choose == "one":
        found, surplus = only_choice(found)
        problems += surplus
        refused += len(surplus)
    unsure = [each for each in found if each.label == UNSURE][:1]
    regions = [Region(each.label, each.region_id) for each in unsure or found]
    return DecodedAnnotation(regions, problems, refused)


class RegionsCodec:
    """Reads content of ``regions/1``; whatever else it may be is a problem of the annotation."""

    def decode(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the regions of an annotation."""
        if not isinstance(content, list):
            problem = f"content: expected a list of regions, not {type(content).__name__}"
            return DecodedAnnotation([], [problem], 1)
        return decode_labels((_entry(each, n) for n, each in enumerate(content)), canvas)

    def decode_review(self, content: Any, canvas: Canvas) -> DecodedAnnotation:
        """Return the regions of a reviewer's annotation, and its decision and comment."""
        entries = content if isinstance(content, list) else []
        about = [each for each in entries if isinstance(each, dict) and "decision" in each]
        said = self.decode([each for each in entries if each not in about], canvas)
        if len(about) != 1 or about[0]["decision"] not in ("accept", "reject"):
            return said
        comment = str(about[0].get("comment", "")).strip()
        return replace(said, decision=about[0]["decision"], comment=comment)

    def values(self, content: Any) -> list[str]:
        """Return the label of each region; ids and scores do not matter."""
        regions = content if isinstance(content, list) else [content]
        found = (each.get("label", each) if isinstance(each, dict) else each for each in regions)
        return [json.dumps(value, sort_keys=True) for value in found]


CODEC = RegionsCodec()


def _entry(each: Any, position: int) -> NamedEntry:
    key = each.get("id") if isinstance(each, dict) else None
    name = f"region {key}" if key else f"region number {position + 1}"
    return name, key if isinstance(key, str) else "", lambda: _label(each)


def _label(each: Any) -> Label:
    if not isinstance(each, dict) or not isinstance(each.get("label"), dict):
        raise ValueError("expected an object with a label")  # noqa: TRY004  a problem of the data
    try:
        return Label(**_LABEL.validate_python(each["label"]))
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _judged(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    """Return a label as it can be used, and notes about it; a ValueError if it cannot."""
    if label == UNSURE:
        return label, []
    name, notes = _class_name(label, canvas)
    shape = canvas.ontology.shape_of[name]
    judge = _JUDGES.get(label.shape)
    if judge is None or (shape != label.shape and (label.shape, shape) != ("box", "rotated_box")):
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
    """Return today's name of a label's class, and a note if the label has an earlier one."""
    given = label.class_name or ""
    today = canvas.ontology.successors.get(given)
    if today is None:
        raise ValueError(f"class {given!r:.100} is not in the ontology")
    if len(today) != 1:
        became = " or ".join(map(repr, today)) or "nothing"
        raise ValueError(f"class {given!r} is retired and has become {became}")
    return today[0], [] if today[0] == given else [f"class {given!r} is called {today[0]!r} now"]


def _box(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    corners = _box_of(label)
    _check_outside(corners, canvas)
    x1, y1, x2, y2 = clipped = _clip(corners, canvas)
    if x1 >= x2 or y1 >= y2:
        raise ValueError("too small to have an area")
    notes = ["partly outside the picture; clipped at its edge"] if _differ(clipped, corners) else []
    return Label.box(str(label.class_name), *clipped), notes


def _rotated_box(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    turned = Label.rotated_box(str(label.class_name), *_finite(label.values))
    corners = rotated_corners(*label.values).tolist()
    inside = share_inside(corners, canvas.width, canvas.height)
    if inside < _LEAST_SHARE_INSIDE:
        raise ValueError(f"{100 - inside * 100:.1f} percent of it are outside the picture")
    reach = _box_of(turned)
    x1, y1, x2, y2 = clipped = _clip(reach, canvas)
    notes = ["partly outside the picture; kept whole"] if _differ(clipped, reach) else []
    return replace(turned, x1=x1, y1=y1, x2=x2, y2=y2), notes


def _polygon(label: Label, canvas: Canvas) -> tuple[Label, list[str]]:
    outlines: list[list[float]] = []
    notes: list[str] = []
    for outline in label.values:
        numbers = _finite(outline)
        points = zip(numbers[::2], numbers[1::2], strict=True)
        corners = without_repetition(list(points))
        reach = _box_of(Label.polygon("", [numbers]))
        _check_outside(reach, canvas)
        remarks = []
        if crosses_itself(corners):
            remarks.append("crosses or touches itself; what its outline encloses is taken")
        if _differ(reach, _clip(reach, canvas)):
            remarks.append("partly outside the picture; clipped at its edge")
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
        raise ValueError("outside the picture")
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

_Corners = tuple[float, float, float, float]


def _box_of(label: Label) -> _Corners:
    x1, y1, x2, y2 = _finite([label.x1, label.y1, label.x2, label.y2])
    return x1, y1, x2, y2


def _finite(values: Sequence[Any]) -> list[float]:
    for value in values:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise ValueError(f"a coordinate is {value!r:.40}, not a usable number")
    return [float(value) for value in values]


def _check_outside(corners: _Corners, canvas: Canvas) -> None:
    x1, y1, x2, y2 = corners
    width, height = canvas.width, canvas.height
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise ValueError("entirely outside the picture")
    outside = max(-x1 / width, -y1 / height, (x2 - width) / width, (y2 - height) / height)
    # The grace is for arithmetic: exactly the tolerance is still within it.
    if outside > _OUTSIDE_SHARE + 1e-11:
        raise ValueError(f"reaches {outside * 100:.1f} percent outside the picture")


def _clip(corners: _Corners, canvas: Canvas) -> _Corners:
    x1, y1, x2, y2 = corners
    width, height = float(canvas.width), float(canvas.height)
    return max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)


def _differ(one: _Corners, other: _Corners) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) > _ROUNDING_PIXELS
