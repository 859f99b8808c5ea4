"""Labels of the regions of one Label Studio annotation."""

import json
from collections.abc import Callable, Collection, Iterator
from typing import Any

from annotation_platform.formats.label_studio.region_codecs import CODECS, shapes_of_kind
from annotation_platform.formats.label_studio.results import read_result
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import AREAS, POINTS, UNSURE, UPRIGHT_BOXES, Label

_LONGEST_SIDE = 10**6
MOST_SHOWN = 3
"""At most this many problems of one task are reported."""


RegionReader = Callable[..., tuple[list[tuple[Label, str]], list[str]]]


class TaskError(ValueError):
    """A task cannot be used; the message is the reason."""


def ontologies_of(classes: list[str]) -> dict[str, Ontology]:
    """Return an ontology by shape, in which all classes have that shape."""
    return {
        shape: Ontology(
            classes=tuple(
                LabelClass(id=number, name=name, shape=shape) for number, name in enumerate(classes)
            ),
            choose="many",
        )
        for shape in CODECS
    }


def read_boxes(
    regions: list[Any], *, width: int, height: int, ontology: Ontology
) -> tuple[list[tuple[Label, str]], list[str]]:
    """Return the boxes of regions, each with an empty instance, and notes on changed regions.

    Raises:
        TaskError: a region cannot be read, or the annotator was unsure.
    """
    labels, notes = _parsed(regions, width, height, ontology)
    return [(label, "") for label in labels], notes


def _parsed(
    regions: list[Any], width: int, height: int, ontology: Ontology
) -> tuple[list[Label], list[str]]:
    # A pixel of the longer side; on the shorter one it is a little less.
    outside = 100 / max(width, height, 1)
    parsed = read_result(
        regions, width=width, height=height, ontology=ontology, outside_percent=outside
    )
    if parsed.refused:
        raise TaskError("; ".join(parsed.problems[:MOST_SHOWN]))
    if UNSURE in parsed.labels:
        raise TaskError("its annotator was unsure")
    return parsed.labels, list(parsed.problems)


def read_all_shapes(
    regions: list[Any], *, width: int, height: int, ontologies: dict[str, Ontology]
) -> tuple[list[tuple[Label, str]], list[str]]:
    """Return the labels of regions, each with its instance, and notes on changed regions.

    Raises:
        TaskError: a region cannot be read, or the annotator was unsure.
    """
    named = [
        region if isinstance(region.get("id"), str) else {**region, "id": f"number {number}"}
        for number, region in enumerate(map(dict_or_empty, regions), start=1)
    ]
    points = [each for each in named if each.get("type") in _kinds(POINTS)]
    outlines = {each["id"] for each in named if each.get("type") in _kinds(AREAS)}
    parents = {each.get("parentID") for each in points} & outlines
    found: list[tuple[Label, str]] = []
    notes: list[str] = []
    for shape, group in _groups(named):
        labels, more = _parsed(group, width, height, ontologies[shape])
        notes += more
        key = str(group[0].get("parentID" if shape in POINTS else "id"))
        found += [(label, key if key in parents else "") for label in labels]
    return found, notes


def _groups(regions: list[dict[str, Any]]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each region with its shape; a polygon comes together with its child polygons."""
    polygons = {each["id"]: each for each in regions if _joins(each)}
    under: dict[str, list[dict[str, Any]]] = {}
    for key, each in polygons.items():
        root, met = key, {key}
        while (above := polygons[root].get("parentID")) in polygons and above not in met:
            met.add(above)
            root = above
        under.setdefault(root, []).append(each)
    for each in regions:
        if not _joins(each):
            yield _shape(each), [each]
        elif each["id"] in under:
            # The parent comes first.
            yield _shape(each), sorted(under.pop(each["id"]), key=lambda one: one is not each)


def _kinds(shapes: Collection[str]) -> set[str]:
    return {codec.kind for codec in CODECS.values() if codec.shape in shapes}


def _shape(region: dict[str, Any]) -> str:
    """Return the shape of a region; an unknown type is read, and refused, as a box."""
    kind, value = region.get("type"), dict_or_empty(region.get("value"))
    shapes = shapes_of_kind(kind) if isinstance(kind, str) else ()
    return next((shape for shape in shapes if CODECS[shape].fits(value)), UPRIGHT_BOXES[0])


def _joins(region: dict[str, Any]) -> bool:
    return region.get("type") in {codec.kind for codec in CODECS.values() if codec.joins}


def without_twins(regions: list[Any]) -> list[Any]:
    """Return the regions without duplicates; every region without an id is kept."""
    unique: dict[object, Any] = {}
    for position, region in enumerate(regions):
        has_id = isinstance(dict_or_empty(region).get("id"), str)
        try:
            twin = json.dumps(region, sort_keys=True) if has_id else position
        except RecursionError as error:
            raise TaskError("a region is nested too deep") from error
        unique.setdefault(twin, region)
    return list(unique.values())


def image_size_of(regions: list[Any], data: dict[str, Any]) -> tuple[int, int]:
    """Return width and height, in pixels, of the image that the regions were drawn on.

    Choices may lack a size. Where no region has one, it is that of the task's data; 0 × 0 means
    unknown.

    Raises:
        TaskError: regions differ in the size of their image, or it is not a number of pixels.
    """
    drawn = [
        region
        for region in map(dict_or_empty, regions)
        if region.get("type") != "choices" or region.get("original_width") is not None
    ]
    if not drawn:
        sides = [data.get("width"), data.get("height")]
        known = [side for side in sides if isinstance(side, int) and 1 <= side <= _LONGEST_SIDE]
        return (known[0], known[1]) if len(known) == 2 else (0, 0)
    sizes = [(region.get("original_width"), region.get("original_height")) for region in drawn]
    first = sizes[0]
    if any(size != first for size in sizes):
        raise TaskError("its regions were drawn on images of different sizes")
    whole = [side for side in first if isinstance(side, int) and 1 <= side <= _LONGEST_SIDE]
    if len(whole) != 2:
        raise TaskError(f"its image has the size {first[0]!r:.20} × {first[1]!r:.20} pixels")
    return whole[0], whole[1]


def dicts_in(value: Any) -> Iterator[dict[str, Any]]:
    """Return the objects in a list; none if ``value`` is not a list."""
    return (each for each in list_or_empty(value) if isinstance(each, dict))


def list_or_empty(value: Any) -> list[Any]:
    """Return ``value`` if it is a list, else an empty list."""
    return value if isinstance(value, list) else []


def dict_or_empty(value: Any) -> dict[str, Any]:
    """Return ``value`` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}
