"""Reads one Label Studio region, in percent of an image, as labels in pixels."""

import unicodedata
from typing import Any

from annotation_platform.formats.label_studio.control_names import UNSURE_NAME
from annotation_platform.formats.label_studio.region_codecs import (
    CODECS,
    RegionCanvas,
    RegionError,
    shapes_of_kind,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, UNSURE, Label
from annotation_platform.schema.shapes.outline_repair import OutlineError

_REGION_KEYS = frozenset({"x", "y", "points", "rle"})


def read_region(
    region: Any, image: RegionCanvas, ontology: Ontology
) -> tuple[list[Label], list[str]]:
    """Return the labels of one region and notes about it; several labels only for choices.

    Raises:
        RegionError: the region has no usable label.
    """
    if not isinstance(region, dict):
        raise RegionError(f"expected an object, not {type(region).__name__}")
    kind = region.get("type")
    # Choices are always read: every configuration has the control ``unsure``.
    used = {*CLASSIFICATIONS, *ontology.shape_of.values()}
    if not isinstance(kind, str) or used.isdisjoint(shapes_of_kind(kind)):
        raise RegionError(f"type {kind!r:.40} is not used here")
    value = region.get("value")
    if not isinstance(value, dict):
        raise RegionError("it has no value")
    # A choice belongs to the whole image, and often has no image size.
    if kind != "choices" or region.get("original_width") is not None:
        _check_image(region, image)
    if kind == "choices":
        return _choices(region, value, ontology)
    name, notes = _only_class(value.get(kind), ontology, shapes_of_kind(kind))
    try:
        label, more = CODECS[ontology.shape_of[name]].read(name, value, image)
    except OutlineError as error:
        raise RegionError(str(error)) from error
    return [label], notes + more


def _check_image(region: dict[str, Any], image: RegionCanvas) -> None:
    drawn_on = (region.get("original_width"), region.get("original_height"))
    if drawn_on != (image.width, image.height):
        raise RegionError(
            f"drawn on an image of {drawn_on[0]!r:.20} × {drawn_on[1]!r:.20} pixels, "
            f"the stored one has {image.width} × {image.height}"
        )
    if region.get("image_rotation", 0) not in (0, None):
        raise RegionError(f"drawn on an image turned by {region['image_rotation']!r:.20} degrees")


def _choices(
    region: dict[str, Any], value: dict[str, Any], ontology: Ontology
) -> tuple[list[Label], list[str]]:
    if not _REGION_KEYS.isdisjoint(value):
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
            name, more = _only_class([each], ontology, shapes_of_kind("choices"))
        except RegionError as error:
            notes.append(str(error))
            continue
        notes += more
        if Label.choice(name) not in labels:
            labels.append(Label.choice(name))
    if not labels:
        raise RegionError("; ".join(notes))
    return labels, notes


def _only_class(chosen: Any, ontology: Ontology, shapes: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the named class, and a note if the region has an earlier name of it."""
    if not isinstance(chosen, list) or len(chosen) != 1 or not isinstance(chosen[0], str):
        raise RegionError(f"expected exactly one class, not {chosen!r:.80}")
    today = ontology.successors.get(chosen[0])
    if today is None:
        similar = [name for name in ontology.names if _plain(name) == _plain(chosen[0])]
        question = f"; is {similar[0]!r} meant?" if similar else ""
        raise RegionError(f"class {chosen[0]!r:.100} is not in the ontology{question}")
    if len(today) != 1:
        became = " or ".join(map(repr, today)) or "nothing"
        raise RegionError(f"class {chosen[0]!r} is retired and has become {became}")
    shape = ontology.shape_of[today[0]]
    if shape not in shapes:
        raise RegionError(
            f"{CODECS[shapes[0]].phrase}, but class {today[0]!r} is {CODECS[shape].phrase}"
        )
    renamed = [] if today[0] == chosen[0] else [f"class {chosen[0]!r} is called {today[0]!r} now"]
    return today[0], renamed


def _plain(name: str) -> str:
    """Return a name without case, spaces and variants of the same letter."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
