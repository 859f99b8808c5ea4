"""How Label Studio shows and stores each label shape: one codec per shape, in one table.

Label Studio stores coordinates in percent of the sides of an image; labels are in pixels.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from annotation_platform.errors import SettingsError
from annotation_platform.formats.label_studio.brush import decode_mask, encode_mask
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label, edges_of, rotated_corners
from annotation_platform.schema.shapes.outline_repair import (
    LEAST_SHARE_INSIDE,
    ROUNDING_PIXELS,
    Extent,
    check_outside,
    clip,
    crosses_itself,
    differ,
    enclosed,
    share_inside,
    without_repetition,
)

_LARGEST_PERCENT = 1e9

_POINT_PERCENT = 0.5
"""The width of a point in Label Studio, in percent of the image's width."""

Value = dict[str, Any]
"""The ``value`` of a region."""


class RegionError(ValueError):
    """A region has no usable label, for the given reason."""


@dataclass(frozen=True)
class RegionCanvas:
    """The image of regions, and how far they may reach outside, in percent of a side."""

    width: int
    height: int
    outside_percent: float


@dataclass(frozen=True)
class RegionCodec:
    """How Label Studio shows and stores labels of one shape.

    Attributes:
        shape: the name of the shape.
        control: the name of the tool in the configuration; results carry it as ``from_name``.
        phrase: the name of a label of the shape, for messages.
        tag, heading, attributes: the tag of the tool, its heading, and its further attributes.
        returned: what a vendor returns, for the instructions of an export.
        read: returns the label of a class in the ``value`` of a region, and notes about it. It
            raises RegionError or OutlineError if there is no usable label.
        write: returns the values, without the class, of the regions of a label on an image with a
            width and height; further regions are children of the first.
        fits: whether a value is of this shape, where several shapes share a type of region.
        joins: whether a child region of the same class is a part of its parent.
    """

    shape: str
    control: str
    phrase: str
    tag: str
    returned: str
    read: Callable[[str, Value, RegionCanvas], tuple[Label, list[str]]]
    write: Callable[[Label, int, int], list[Value]]
    heading: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    fits: Callable[[Value], bool] = lambda _: True
    joins: bool = False

    @property
    def kind(self) -> str:
        """The type of its regions, and the key of the class in their value."""
        return self.tag.lower()


def check_held(ontology: Ontology) -> None:
    """Raise a SettingsError if a class has a shape that Label Studio does not have."""
    for name, shape in ontology.shape_of.items():
        if shape not in CODECS:
            raise SettingsError(
                f"class {name!r} is a {shape}, and Label Studio has only {', '.join(CODECS)}. "
                "Give the class one of these shapes."
            )


def shapes_of_kind(kind: str) -> tuple[str, ...]:
    """Return the shapes whose regions have a type; empty for an unused type."""
    return tuple(codec.shape for codec in CODECS.values() if codec.kind == kind)


def _read_box(name: str, value: dict[str, Any], image: RegionCanvas) -> tuple[Label, list[str]]:
    left, top, width, height, degrees = _read_rectangle(value, image)
    corners = (left, top, left + width, top + height)
    tolerance, notes = image.outside_percent, []
    if not math.isclose(degrees % 360, 0, abs_tol=1e-6):
        turned = _turned(left, top, width, height, degrees)
        corners = _extent(rotated_corners(*turned).tolist())
        # A rotated box at an edge that fits the visible object can reach far outside.
        tolerance, notes = math.inf, [f"turned by {degrees:g} degrees; the box around it is taken"]
    check_outside(corners, image.width, image.height, tolerance)
    x1, y1, x2, y2 = clipped = clip(corners, image.width, image.height)
    if x1 >= x2 or y1 >= y2:
        raise RegionError("too small to have an area")
    if differ(clipped, corners):
        notes.append("partly outside the image; clipped at its edge")
    return Label.box(name, *clipped), notes


def _read_rotated_box(
    name: str, value: dict[str, Any], image: RegionCanvas
) -> tuple[Label, list[str]]:
    x, y, width, height, degrees = _turned(*_read_rectangle(value, image))
    label = Label.rotated_box(name, x, y, width, height, degrees)
    corners = rotated_corners(x, y, width, height, degrees).tolist()
    inside = share_inside(corners, image.width, image.height)
    if inside == 0:
        raise RegionError("entirely outside the image")
    if inside < LEAST_SHARE_INSIDE:
        raise RegionError(f"{100 - inside * 100:.1f} percent of it lie outside the image")
    reach = _extent(corners)
    x1, y1, x2, y2 = clipped = clip(reach, image.width, image.height)
    notes = ["partly outside the image; kept whole"] if differ(clipped, reach) else []
    return replace(label, x1=x1, y1=y1, x2=x2, y2=y2), notes


def _read_polygon(name: str, value: dict[str, Any], image: RegionCanvas) -> tuple[Label, list[str]]:
    points = value.get("points")
    if not isinstance(points, list):
        raise RegionError(f"expected a list of points, not {points!r:.80}")
    # Exports of old versions lack the key, and hold closed polygons only.
    if value.get("closed", True) is not True:
        raise RegionError("its outline is not closed")
    corners = without_repetition([_point(point, image) for point in points])
    reach = _extent(corners)
    check_outside(reach, image.width, image.height, image.outside_percent)
    notes = []
    if crosses_itself(corners):
        notes.append("crosses or touches itself; what its outline encloses is taken")
    if reach != clip(reach, image.width, image.height):
        notes.append("partly outside the image; clipped at its edge")
    if notes:
        return Label.polygon(name, enclosed(corners, image.width, image.height)), notes
    return Label.polygon(name, [[side for corner in corners for side in corner]]), []


def _read_mask(name: str, value: dict[str, Any], image: RegionCanvas) -> tuple[Label, list[str]]:
    if value.get("format", "rle") != "rle":
        raise RegionError(f"a mask in the format {value['format']!r:.40} is not used here")
    try:
        pixels = decode_mask(value.get("rle"), image.width, image.height)
    except ValueError as error:
        raise RegionError(str(error)) from error
    if not pixels.any():
        raise RegionError("it covers no pixel, or none by half")
    return Label.mask(name, pixels), []


def _read_keypoint(
    name: str, value: dict[str, Any], image: RegionCanvas
) -> tuple[Label, list[str]]:
    x, y = _point([value.get("x"), value.get("y")], image)
    if not (0 <= x <= image.width and 0 <= y <= image.height):
        raise RegionError("outside the image")
    return Label.keypoint(name, x, y), []


def _read_rectangle(
    value: dict[str, Any], image: RegionCanvas
) -> tuple[float, float, float, float, float]:
    """Return left, top, width and height in pixels, and the rotation in degrees."""
    x, y, width, height = (_number(value.get(key), key) for key in ("x", "y", "width", "height"))
    degrees = _number(value.get("rotation", 0), "rotation")
    if width <= 0 or height <= 0:
        raise RegionError(f"{width:g} × {height:g} percent is no area")
    across, down = image.width / 100, image.height / 100
    return x * across, y * down, width * across, height * down, degrees


def _point(point: Any, image: RegionCanvas) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        raise RegionError(f"a point is {point!r:.80}, not x and y")
    x, y = _number(point[0], "x"), _number(point[1], "y")
    return _snap(x / 100, image.width), _snap(y / 100, image.height)


def _snap(share: float, side: int) -> float:
    """Return the pixel at a share of a side, moved exactly to the edge if it is just outside."""
    pixel = share * side
    inside = min(max(pixel, 0.0), float(side))
    return inside if abs(inside - pixel) <= ROUNDING_PIXELS else pixel


def _number(value: Any, name: str) -> float:
    # A bool is an int in Python, but not a coordinate.
    # The bound keeps later arithmetic finite for any integer.
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not -_LARGEST_PERCENT <= value <= _LARGEST_PERCENT
    ):
        raise RegionError(f"{name} is {value!r:.40}, not a usable number")
    return float(value)


def _turned(
    left: float, top: float, width: float, height: float, degrees: float
) -> tuple[float, float, float, float, float]:
    """Return centre, sides and degrees of a rectangle rotated clockwise about its top left."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x = left + (width * cos - height * sin) / 2
    y = top + (width * sin + height * cos) / 2
    return x, y, width, height, degrees % 360


def _extent(corners: Iterable[Sequence[float]]) -> Extent:
    xs, ys = zip(*corners, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _write_rectangle(
    edges: tuple[float, float, float, float, float], width: int, height: int
) -> list[Value]:
    """Return the value for left, top, width, height and rotation in degrees about the top left."""
    left, top, box_width, box_height, degrees = edges
    across, down = 100 / width, 100 / height
    return [
        {
            "x": left * across,
            "y": top * down,
            "width": box_width * across,
            "height": box_height * down,
            "rotation": degrees,
        }
    ]


def _write_box(label: Label, width: int, height: int) -> list[Value]:
    x1, y1, x2, y2 = edges_of(label)
    return _write_rectangle((x1, y1, x2 - x1, y2 - y1, 0), width, height)


def _write_rotated_box(label: Label, width: int, height: int) -> list[Value]:
    x, y, box_width, box_height, degrees = label.values
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    left = x - (box_width * cos - box_height * sin) / 2
    top = y - (box_width * sin + box_height * cos) / 2
    return _write_rectangle((left, top, box_width, box_height, degrees), width, height)


def _write_polygon(label: Label, width: int, height: int) -> list[Value]:
    across, down = 100 / width, 100 / height
    return [
        {
            "points": [
                [x * across, y * down] for x, y in zip(outline[::2], outline[1::2], strict=True)
            ],
            "closed": True,
        }
        for outline in label.values
    ]


def _write_mask(label: Label, width: int, height: int) -> list[Value]:
    pixels = label.pixels
    if pixels.shape != (height, width):
        raise ValueError(f"a mask of {pixels.shape} pixels on an image of {width} × {height}")
    return [{"format": "rle", "rle": encode_mask(pixels)}]


def _write_keypoint(label: Label, width: int, height: int) -> list[Value]:
    x, y = label.values
    return [{"x": x * (100 / width), "y": y * (100 / height), "width": _POINT_PERCENT}]


def _is_turned(value: Value) -> bool:
    return value.get("rotation") not in {None, 0}


_LINES = {"strokeWidth": "2", "opacity": "0.15"}

CODECS: dict[str, RegionCodec] = {
    codec.shape: codec
    for codec in (
        RegionCodec(
            "box",
            control="label",
            phrase="a box",
            tag="RectangleLabels",
            heading="Box",
            attributes={**_LINES, "canRotate": "false"},
            returned="a box: type rectanglelabels; value x, y, width, height, rotation 0",
            read=_read_box,
            write=_write_box,
            fits=lambda value: not _is_turned(value),
        ),
        RegionCodec(
            "rotated_box",
            control="rotated",
            phrase="a rotated box",
            tag="RectangleLabels",
            heading="Rotated box",
            attributes={**_LINES, "canRotate": "true"},
            returned=(
                "a box that may be turned: type rectanglelabels; value x, y, width, height, and "
                "rotation\n    in degrees clockwise about its top left corner"
            ),
            read=_read_rotated_box,
            write=_write_rotated_box,
            fits=_is_turned,
        ),
        RegionCodec(
            "polygon",
            control="polygon",
            phrase="a polygon",
            tag="PolygonLabels",
            heading="Polygon",
            attributes={**_LINES, "pointSize": "small"},
            returned="an outline: type polygonlabels; value points, a list of [x, y]",
            read=_read_polygon,
            write=_write_polygon,
            joins=True,
        ),
        RegionCodec(
            "mask",
            control="mask",
            phrase="a mask",
            tag="BrushLabels",
            heading="Brush",
            returned="a mask: type brushlabels; value format and rle, as Label Studio exports it",
            read=_read_mask,
            write=_write_mask,
        ),
        RegionCodec(
            "keypoint",
            control="point",
            phrase="a point",
            tag="KeyPointLabels",
            heading="Point",
            attributes={"strokeWidth": "4", "opacity": "0.9"},
            returned="a point: type keypointlabels; value x, y, width",
            read=_read_keypoint,
            write=_write_keypoint,
        ),
        RegionCodec(
            "choice",
            control="choice",
            phrase="chosen of the image",
            tag="Choices",
            returned="the class of the whole image: type choices; value choices",
            read=lambda name, *_: (Label.choice(name), []),
            write=lambda *_: [{}],
        ),
    )
}
"""The codec of each shape that Label Studio has, in the order of the tools."""
