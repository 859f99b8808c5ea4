"""Converts labels in pixels to Label Studio regions in percent, and back, without silent loss."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from annotation_platform.formats.label_studio.control_names import (
    ACCEPT,
    COMMENT_NAME,
    DECISION_NAME,
    REASON_NAME,
    REJECT,
)
from annotation_platform.formats.label_studio.read_regions import read_region
from annotation_platform.formats.label_studio.region_codecs import (
    CODECS,
    RegionCanvas,
    RegionError,
)
from annotation_platform.formats.label_studio.write_regions import write_region
from annotation_platform.schema.annotations import (
    DecodedAnnotation,
    NamedLabel,
    PreAnnotation,
    Region,
    only_choice,
)
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, SHAPES, UNSURE, Label

_DECISIONS: dict[str, Literal["accept", "reject"]] = {ACCEPT: "accept", REJECT: "reject"}


@dataclass(frozen=True)
class _Read(NamedLabel):
    """A label, and the id of its region's parent region."""

    parent: str = ""


def read_result(
    result: Any, *, width: int, height: int, ontology: Ontology, outside_percent: float = 5.0
) -> DecodedAnnotation:
    """Return the labels of a Label Studio result in pixels, and its problems.

    Label Studio stores any content, so everything is checked. A region gives a problem *instead
    of* a label if its type is not used here, if it has not exactly one class of the ontology or one
    with another shape, if a coordinate is not a finite number, if it has no area, if it was drawn
    on an image of another size or a rotated image, or if it is outside the image. A class under an
    earlier name gets its current name, with a problem; one that differs in case or spaces is
    refused, with a hint. Where an image has exactly one class, several choices are all refused.

    A box or polygon that reaches outside by up to ``outside_percent`` is clipped; a rotated box is
    kept whole if at least half of it is inside; a point must be inside. A rotated region of a class
    with upright boxes gives the box around it. A polygon that crosses itself gives the area that
    its outline encloses. Each of these comes with a problem, and so does a repeated region.

    A polygon whose parent region is a polygon of the same class is part of it. ``unsure`` excludes
    all other labels: the other regions stay in the result only.

    Args:
        result: the ``result`` of an annotation or a prediction, as Label Studio returns it.
        width: width of the stored image in pixels.
        height: height of the stored image in pixels.
        ontology: the classes, their shapes, and whether an image has one class or many.
        outside_percent: how far outside the image, in percent of its side, a box or a polygon may
            reach and still be clipped.

    Returns:
        Labels inside the image; an empty result gives none and no problem: a valid annotation of an
        image with nothing in it.
    """
    if not isinstance(result, list):
        problem = f"result: expected a list of regions, not {type(result).__name__}"
        return DecodedAnnotation([], [problem], 1)
    image = RegionCanvas(width, height, outside_percent)
    found: list[_Read] = []
    problems: list[str] = []
    refused = 0
    seen: dict[str, list[Label]] = {}
    for position, region in enumerate(result):
        name = _region_name(region, position)
        try:
            labels, notes = read_region(region, image, ontology)
        except RegionError as error:
            problems.append(f"{name}: {error}")
            refused += 1
            continue
        problems += [f"{name}: {note}" for note in notes]
        if seen.get(name) == labels:
            problems.append(f"{name}: given twice, counted once")
            continue
        seen[name] = labels
        key, parent = _text(region.get("id")), _text(region.get("parentID"))
        found += [_Read(name, label, key, parent) for label in labels]
    return _assembled(found, problems, refused, ontology)


def write_result(
    labels: Iterable[Label], width: int, height: int, *, scores: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """Return the labels as Label Studio regions in percent, which ``read_result`` reads.

    Each label is one region, in order, named by shape and position, so the same labels give the
    same regions. There are two exceptions: further outlines of a polygon are child regions of the
    first, and all choices are one region, as Label Studio has one value per control. ``unsure`` is
    the value of its own control; "nothing here" has no region.

    Args:
        labels: labels in pixels of the stored image.
        width: width of the stored image in pixels, at least 1.
        height: height of the stored image in pixels, at least 1.
        scores: the model's score of each label; several choices get the lowest.
    """
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} × {height} pixels has no percent")
    labels = list(labels)
    if scores is not None and len(scores) != len(labels):
        raise ValueError(f"{len(scores)} scores for {len(labels)} labels")
    regions: list[dict[str, Any]] = []
    chosen: dict[str, Any] = {}
    for position, label in enumerate(labels):
        key = f"{label.shape.replace('_', '-')}-{position}"
        made = write_region(label, key, width, height)
        if scores is not None:
            made = [{**region, "score": scores[position]} for region in made]
        if label.shape in CLASSIFICATIONS and chosen:
            _add_choice(chosen, made[0])
            continue
        if label.shape in CLASSIFICATIONS:
            chosen = made[0]
        regions += made
    return regions


def write_pre_annotations(
    pre_annotations: Iterable[PreAnnotation], width: int, height: int
) -> list[dict[str, Any]]:
    """Return pre-annotations as regions, with their scores if every one has a score."""
    shown = list(pre_annotations)
    scores = [each.score for each in shown if each.score is not None]
    labels = [each.label for each in shown]
    scored = scores if len(scores) == len(shown) else None
    return write_result(labels, width, height, scores=scored)


def _add_choice(region: dict[str, Any], other: dict[str, Any]) -> None:
    region["value"]["choices"] += other["value"]["choices"]
    if "score" in other:
        region["score"] = min(region["score"], other["score"])


def _region_name(region: Any, position: int) -> str:
    given = region.get("id") if isinstance(region, dict) else None
    return f"region {given}" if given else f"region number {position + 1}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _assembled(
    found: list[_Read], problems: list[str], refused: int, ontology: Ontology
) -> DecodedAnnotation:
    if ontology.choose == "one":
        found, ambiguous = only_choice(found)
        problems = problems + ambiguous
        refused += len(ambiguous)
    joined = _joined(found)
    unsure = [each for each in joined if each.label == UNSURE][:1]
    regions = [Region(each.label, each.region_id) for each in unsure or joined]
    return DecodedAnnotation(regions, problems, refused)


def _joined(found: list[_Read]) -> list[_Read]:
    """Return the labels with child polygons merged into their parents of the same class."""
    polygons = {each.region_id: each for each in found if _joins(each.label) and each.region_id}
    outlines: dict[str, list[list[float]]] = {}
    whole = []
    for each in found:
        root = _root(each, polygons)
        if root is each:
            whole.append(each)
        else:
            outlines.setdefault(root.region_id, []).extend(each.label.values)
    return [
        replace(each, label=_with_outlines(each.label, outlines[each.region_id]))
        if each.region_id in outlines and polygons[each.region_id] is each
        else each
        for each in whole
    ]


def _root(each: _Read, polygons: dict[str, _Read]) -> _Read:
    """Return the topmost parent polygon of the same class; the region itself if it has none."""
    path = [each]
    while True:
        above = polygons.get(path[-1].parent)
        if (
            not _joins(each.label)
            or above is None
            or above.label.class_name != each.label.class_name
        ):
            return path[-1]
        if above in path:
            # The parents form a cycle: each region is separate.
            return each
        path.append(above)


def _with_outlines(label: Label, more: list[list[float]]) -> Label:
    return SHAPES[label.shape].label(label.class_name or "", [*label.values, *more])


def _joins(label: Label) -> bool:
    return label.shape in CODECS and CODECS[label.shape].joins


def read_review(result: Any, *, width: int, height: int, ontology: Ontology) -> DecodedAnnotation:
    """Return an annotation under a configuration of ``review_config``, with its decision.

    ``annotations.review_of`` judges the decision. Arguments as ``read_result``.
    """
    about: dict[str, list[Any]] = {DECISION_NAME: [], REASON_NAME: [], COMMENT_NAME: []}
    drawn: list[Any] = []
    for region in result if isinstance(result, list) else []:
        control = region.get("from_name") if isinstance(region, dict) else None
        about.get(control if isinstance(control, str) else "", drawn).append(region)
    decisions = {value for region in about[DECISION_NAME] for value in _values(region, "choices")}
    texts = [
        text.strip()
        for name in (REASON_NAME, COMMENT_NAME)
        for region in about[name]
        for text in _values(region, "text")
    ]
    return replace(
        read_result(drawn, width=width, height=height, ontology=ontology),
        decision=_DECISIONS.get(decisions.pop(), "") if len(decisions) == 1 else "",
        comment="\n".join(text for text in texts if text),
    )


def _values(region: dict[str, Any], kind: str) -> list[str]:
    value = region.get("value")
    given = value.get(kind) if isinstance(value, dict) else None
    return [each for each in given if isinstance(each, str)] if isinstance(given, list) else []
