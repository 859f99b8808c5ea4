"""One region of Label Studio's, percent of a picture, as labels in pixels; or why it is none."""

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from annotation_platform.labeling.backends.label_studio.brush import decode_mask
from annotation_platform.labeling.backends.label_studio.interface import UNSURE_NAME
from annotation_platform.labeling.backends.label_studio.outlines import (
    OutlineError,
    crosses_itself,
    enclosed,
    share_inside,
    without_repetition,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import UNSURE, Label, rotated_corners

_ROUNDING_PIXELS = 0.01
"""What browsers lose in arithmetic; a region that is off by less is exactly at the edge."""

_LARGEST_PERCENT = 1e9

_LEAST_SHARE_INSIDE = 0.5
"""So much of a turned box must lie in the picture: it cannot be cut and stay one."""

_SHAPES_OF_TYPE = {
    "rectanglelabels": ("box", "rotated_box"),
    "polygonlabels": ("polygon",),
    "brushlabels": ("mask",),
    "keypointlabels": ("keypoint",),
    "choices": ("choice",),
}

_NAMED = {
    "box": "a box",
    "rotated_box": "a rotated box",
    "polygon": "a polygon",
    "mask": "a mask",
    "keypoint": "a point",
    "choice": "chosen of the picture",
}

_SAID_OF_A_REGION = frozenset({"x", "y", "points", "rle"})

_Corners = tuple[float, float, float, float]


class RegionError(ValueError):
    """A region holds no usable label, for the reason given."""


@dataclass(frozen=True)
class Picture:
    """What regions were drawn on, and how far, in percent of a side, they may reach outside."""

    width: int
    height: int
    outside_percent: float


def read_region(region: Any, picture: Picture, ontology: Ontology) -> tuple[list[Label], list[str]]:
    """Return what one region says and notes about it; several labels only for choices.

    Raises:
        RegionError: it says nothing that can be used.
    """
    if not isinstance(region, dict):
        raise RegionError(f"expected an object, not {type(region).__name__}")
    kind = region.get("type")
    # Choices are read where no class is one, too: there is always the question ``unsure``.
    used = {"choice", *ontology.shape_of.values()}
    if not isinstance(kind, str) or used.isdisjoint(_SHAPES_OF_TYPE.get(kind, ())):
        raise RegionError(f"type {kind!r:.40} is not used here")
    value = region.get("value")
    if not isinstance(value, dict):
        raise RegionError("it has no value")
    # A choice is said of the whole picture, and often says nothing of its size.
    if kind != "choices" or region.get("original_width") is not None:
        _check_picture(region, picture)
    if kind == "choices":
        return _choices(region, value, ontology)
    name, notes = _only_class(value.get(kind), ontology, _SHAPES_OF_TYPE[kind])
    try:
        label, more = _READERS[ontology.shape_of[name]](name, value, picture)
    except OutlineError as error:
        raise RegionError(str(error)) from error
    return [label], notes + more


def _check_picture(region: dict[str, Any], picture: Picture) -> None:
    drawn_on = (region.get("original_width"), region.get("original_height"))
    if drawn_on != (picture.width, picture.height):
        raise RegionError(
            f"drawn on a picture of {drawn_on[0]!r:.20} × {drawn_on[1]!r:.20} pixels, "
            f"the stored one has {picture.width} × {picture.height}"
        )
    if region.get("image_rotation", 0) not in (0, None):
        raise RegionError(f"drawn on a picture turned by {region['image_rotation']!r:.20} degrees")


def _choices(
    region: dict[str, Any], value: dict[str, Any], ontology: Ontology
) -> tuple[list[Label], list[str]]:
    if not _SAID_OF_A_REGION.isdisjoint(value):
        raise RegionError("a choice about another region is not used here")
    chosen = value.get("choices")
    if not isinstance(chosen, list) or not chosen:
        raise RegionError(f"expected what is chosen, not {chosen!r:.80}")
    if region.get("from_name") == UNSURE_NAME and chosen == [UNSURE_NAME]:
        return [UNSURE], []
    labels: list[Label] = []
    notes: list[str] = []
    for each in chosen:
        try:
            name, more = _only_class([each], ontology, _SHAPES_OF_TYPE["choices"])
        except RegionError as error:
            notes.append(str(error))
            continue
        notes += more
        if Label.choice(name) not in labels:
            labels.append(Label.choice(name))
    if not labels:
        raise RegionError("; ".join(notes))
    return labels, notes


def _only_class(said: Any, ontology: Ontology, shapes: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the class that is named, and a note if it was named as it was called before."""
    if not isinstance(said, list) or len(said) != 1 or not isinstance(said[0], str):
        raise RegionError(f"expected exactly one class, not {said!r:.80}")
    today = ontology.successors.get(said[0])
    if today is None:
        meant = [name for name in ontology.names if _plain(name) == _plain(said[0])]
        question = f"; is {meant[0]!r} meant?" if meant else ""
        raise RegionError(f"class {said[0]!r:.100} is not in the ontology{question}")
    if len(today) != 1:
        became = " or ".join(map(repr, today)) or "nothing"
        raise RegionError(f"class {said[0]!r} is retired and has become {became}")
    shape = ontology.shape_of[today[0]]
    if shape not in shapes:
        raise RegionError(f"{_NAMED[shapes[0]]}, but class {today[0]!r} is {_NAMED[shape]}")
    renamed = [] if today[0] == said[0] else [f"class {said[0]!r} is called {today[0]!r} now"]
    return today[0], renamed


def _plain(name: str) -> str:
    """Return a name without what typists vary: case, spaces, and ways to write the same letter."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def _box(name: str, value: dict[str, Any], picture: Picture) -> tuple[Label, list[str]]:
    left, top, width, height, degrees = _rectangle(value, picture)
    corners = (left, top, left + width, top + height)
    tolerance, notes = picture.outside_percent, []
    if not math.isclose(degrees % 360, 0, abs_tol=1e-6):
        turned = _turned(left, top, width, height, degrees)
        corners = _extent(rotated_corners(*turned).tolist())
        # Turned at an edge, a box that fits what is seen reaches far outside.
        tolerance, notes = math.inf, [f"turned by {degrees:g} degrees; the box around it is taken"]
    _check_outside(corners, picture, tolerance)
    x1, y1, x2, y2 = clipped = _clip(corners, picture)
    if x1 >= x2 or y1 >= y2:
        raise RegionError("too small to have an area")
    if _differ(clipped, corners):
        notes.append("partly outside the picture; clipped at its edge")
    return Label.box(name, *clipped), notes


def _rotated_box(name: str, value: dict[str, Any], picture: Picture) -> tuple[Label, list[str]]:
    x, y, width, height, degrees = _turned(*_rectangle(value, picture))
    label = Label.rotated_box(name, x, y, width, height, degrees)
    corners = rotated_corners(x, y, width, height, degrees).tolist()
    inside = share_inside(corners, picture.width, picture.height)
    if inside == 0:
        raise RegionError("entirely outside the picture")
    if inside < _LEAST_SHARE_INSIDE:
        raise RegionError(f"{100 - inside * 100:.1f} percent of it lie outside the picture")
    reach = _extent(corners)
    x1, y1, x2, y2 = clipped = _clip(reach, picture)
    notes = ["partly outside the picture; kept whole"] if _differ(clipped, reach) else []
    return replace(label, x1=x1, y1=y1, x2=x2, y2=y2), notes


def _polygon(name: str, value: dict[str, Any], picture: Picture) -> tuple[Label, list[str]]:
    points = value.get("points")
    if not isinstance(points, list):
        raise RegionError(f"expected a list of points, not {points!r:.80}")
    # Exports of old versions do not say it, and hold closed polygons only.
    if value.get("closed", True) is not True:
        raise RegionError("its outline is not closed")
    corners = without_repetition([_point(point, picture) for point in points])
    reach = _extent(corners)
    _check_outside(reach, picture, picture.outside_percent)
    notes = []
    if crosses_itself(corners):
        notes.append("crosses or touches itself; what its outline encloses is taken")
    if reach != _clip(reach, picture):
        notes.append("partly outside the picture; clipped at its edge")
    if notes:
        return Label.polygon(name, enclosed(corners, picture.width, picture.height)), notes
    return Label.polygon(name, [[side for corner in corners for side in corner]]), []


def _mask(name: str, value: dict[str, Any], picture: Picture) -> tuple[Label, list[str]]:
    if value.get("format", "rle") != "rle":
        raise RegionError(f"a mask in the format {value['format']!r:.40} is not used here")
    try:
        pixels = decode_mask(value.get("rle"), picture.width, picture.height)
    except ValueError as error:
        raise RegionError(str(error)) from error
    if not pixels.any():
        raise RegionError("it covers no pixel, or none by half")
    return Label.mask(name, pixels), []


def _keypoint(name: str, value: dict[str, Any], picture: Picture) -> tuple[Label, list[str]]:
    x, y = _point([value.get("x"), value.get("y")], picture)
    if not (0 <= x <= picture.width and 0 <= y <= picture.height):
        raise RegionError("outside the picture")
    return Label.keypoint(name, x, y), []


_READERS: dict[str, Callable[[str, dict[str, Any], Picture], tuple[Label, list[str]]]] = {
    "box": _box,
    "rotated_box": _rotated_box,
    "polygon": _polygon,
    "mask": _mask,
    "keypoint": _keypoint,
}


def _rectangle(value: dict[str, Any], picture: Picture) -> tuple[float, float, float, float, float]:
    """Return left, top, width and height in pixels, and the degrees turned."""
    x, y, width, height = (_number(value.get(key), key) for key in ("x", "y", "width", "height"))
    degrees = _number(value.get("rotation", 0), "rotation")
    if width <= 0 or height <= 0:
        raise RegionError(f"{width:g} × {height:g} percent is no area")
    across, down = picture.width / 100, picture.height / 100
    return x * across, y * down, width * across, height * down, degrees


def _point(said: Any, picture: Picture) -> tuple[float, float]:
    if not isinstance(said, list) or len(said) != 2:
        raise RegionError(f"a point is {said!r:.80}, not x and y")
    x, y = _number(said[0], "x"), _number(said[1], "y")
    return _snap(x / 100, picture.width), _snap(y / 100, picture.height)


def _snap(share: float, side: int) -> float:
    """Return the pixel at a share of a side, exactly at the edge if it is no further outside."""
    pixel = share * side
    onto = min(max(pixel, 0.0), float(side))
    return onto if abs(onto - pixel) <= _ROUNDING_PIXELS else pixel


def _number(said: Any, name: str) -> float:
    # A bool is an int to Python, but nobody's coordinate.
    # The bound keeps later arithmetic finite, whatever integer somebody sends.
    if (
        isinstance(said, bool)
        or not isinstance(said, int | float)
        or not -_LARGEST_PERCENT <= said <= _LARGEST_PERCENT
    ):
        raise RegionError(f"{name} is {said!r:.40}, not a usable number")
    return float(said)


def _turned(
    left: float, top: float, width: float, height: float, degrees: float
) -> tuple[float, float, float, float, float]:
    """Return centre, sides and degrees of a rectangle turned clockwise about its top left."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = left + (width * cos - height * sin) / 2
    y = top + (width * sin + height * cos) / 2
    return x, y, width, height, degrees % 360


def _extent(corners: Iterable[Sequence[float]]) -> _Corners:
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _check_outside(corners: _Corners, picture: Picture, outside_percent: float) -> None:
    x1, y1, x2, y2 = corners
    width, height = picture.width, picture.height
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        raise RegionError("entirely outside the picture")
    outside = max(-x1 / width, -y1 / height, (x2 - width) / width, (y2 - height) / height)
    # The grace is for arithmetic: exactly the tolerance is still within it.
    if outside * 100 > outside_percent + 1e-9:
        raise RegionError(f"reaches {outside * 100:.1f} percent outside the picture")


def _clip(corners: _Corners, picture: Picture) -> _Corners:
    x1, y1, x2, y2 = corners
    width, height = float(picture.width), float(picture.height)
    return max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)


def _differ(one: _Corners, other: _Corners) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) > _ROUNDING_PIXELS
