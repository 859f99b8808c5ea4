"""Labels in pixels to Label Studio's regions in percent, and back; nothing is dropped unsaid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from annotation_platform.labeling.annotations import (
    DecodedAnnotation,
    NamedLabel,
    Region,
    only_choice,
)
from annotation_platform.labeling.backends.label_studio.interface import (
    ACCEPT,
    COMMENT_NAME,
    DECISION_NAME,
    REASON_NAME,
    REJECT,
)
from annotation_platform.labeling.backends.label_studio.read_regions import read_region
from annotation_platform.labeling.backends.label_studio.region_codecs import (
    CODECS,
    DecodedImage,
    RegionError,
)
from annotation_platform.labeling.backends.label_studio.write_regions import write_region
from annotation_platform.labeling.backends.protocol import PreAnnotation
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, SHAPES, UNSURE, Label

_DECISIONS: dict[str, Literal["accept", "reject"]] = {ACCEPT: "accept", REJECT: "reject"}


@dataclass(frozen=True)
class _Read(NamedLabel):
    """A label, and the id of the region under which its own region was put."""

    parent: str = ""


def read_result(
    result: Any, *, width: int, height: int, ontology: Ontology, outside_percent: float = 5.0
) -> DecodedAnnotation:
    """Return the labels that a Label Studio result says, in pixels, and the problems found.

    Label Studio stores whatever it is sent, so nothing is taken for granted. A region gives a
    problem *instead of* a label if its type is not used here, if it has not exactly one class of
    the ontology or one that is drawn as something else, has a coordinate that is no finite number,
    has no area, was drawn on an image of another size or on a turned image, or lies outside. A
    class under an earlier name counts under today's, with a problem; one that differs in case or
    spaces is refused, and named. Two choices where one is asked are refused both.

    A box or a polygon that reaches outside by up to ``outside_percent`` is clipped; a rotated box
    is kept whole if at least half of it is inside; a point must be inside. A box of a class that
    is drawn upright gives the box around it if it was turned. A polygon that crosses itself gives
    what its outline encloses. All that comes with a problem too, and so does a region said twice.

    A polygon that was put under another one of its class is part of it. Somebody who says
    ``unsure`` says nothing else: what was drawn besides stays in the result.

    Args:
        result: The ``result`` of an annotation or a prediction, as Label Studio gives it.
        width: Width of the stored image in pixels.
        height: Height of the stored image in pixels.
        ontology: The classes that a label may name, what they are drawn as, and whether one or
            many are chosen of an image.
        outside_percent: How far outside the image, in percent of its side, a box or a polygon
            may reach and still be clipped rather than refused.

    Returns:
        Labels inside the image; an empty result gives none and no problem, which is a valid
        answer: there is nothing to see in the image.
    """
    if not isinstance(result, list):
        problem = f"result: expected a list of regions, not {type(result).__name__}"
        return DecodedAnnotation([], [problem], 1)
    image = DecodedImage(width, height, outside_percent)
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
            problems.append(f"{name}: said twice, counted once")
            continue
        seen[name] = labels
        key, parent = _text(region.get("id")), _text(region.get("parentID"))
        found += [_Read(name, label, key, parent) for label in labels]
    return _assembled(found, problems, refused, ontology)


def write_result(
    labels: Iterable[Label], width: int, height: int, *, scores: Sequence[float] | None = None
) -> list[dict[str, Any]]:
    """Return the labels as Label Studio regions: percent of the image, as ``read_result`` reads.

    A region each, in order, named by shape and position, so the same labels give the same
    regions. Two departures: the outlines of one polygon are regions under the first one, and all
    choices are one region, for Label Studio has one answer to one question. ``unsure`` is its
    answer; "nothing here" is no region.

    Args:
        labels: Labels in pixels of the stored image.
        width: Width of the stored image in pixels, at least 1.
        height: Height of the stored image in pixels, at least 1.
        scores: For each label how sure its model is; of several choices the lowest is said.
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
    """Return what is proposed as ``write_result`` does, with the scores if a model gave them."""
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


def _text(said: Any) -> str:
    return said if isinstance(said, str) else ""


def _assembled(
    found: list[_Read], problems: list[str], refused: int, ontology: Ontology
) -> DecodedAnnotation:
    if ontology.choose == "one":
        found, not_counted = only_choice(found)
        problems = problems + not_counted
        refused += len(not_counted)
    joined = _joined(found)
    unsure = [each for each in joined if each.label == UNSURE][:1]
    regions = [Region(each.label, each.region_id) for each in unsure or joined]
    return DecodedAnnotation(regions, problems, refused)


def _joined(found: list[_Read]) -> list[_Read]:
    """Return what was found, polygons under one of their class made part of it."""
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
    """Return the polygon of the same class that a region is under, at last; itself if none."""
    met = [each]
    while True:
        above = polygons.get(met[-1].parent)
        if (
            not _joins(each.label)
            or above is None
            or above.label.class_name != each.label.class_name
        ):
            return met[-1]
        if above in met:
            # Somebody made a ring of them: each stands for itself.
            return each
        met.append(above)


def _with_outlines(label: Label, more: list[list[float]]) -> Label:
    return SHAPES[label.shape].label(label.class_name or "", [*label.values, *more])


def _joins(label: Label) -> bool:
    return label.shape in CODECS and CODECS[label.shape].joins


def read_review(result: Any, *, width: int, height: int, ontology: Ontology) -> DecodedAnnotation:
    """Return what an annotation under ``interface.review_config`` says, its decision included.

    ``annotations.review_of`` tells what the decision is worth. Arguments as ``read_result``.
    """
    about: dict[str, list[Any]] = {DECISION_NAME: [], REASON_NAME: [], COMMENT_NAME: []}
    drawn: list[Any] = []
    for region in result if isinstance(result, list) else []:
        asked = region.get("from_name") if isinstance(region, dict) else None
        about.get(asked if isinstance(asked, str) else "", drawn).append(region)
    decisions = {said for region in about[DECISION_NAME] for said in _said(region, "choices")}
    texts = [
        text.strip()
        for name in (REASON_NAME, COMMENT_NAME)
        for region in about[name]
        for text in _said(region, "text")
    ]
    return replace(
        read_result(drawn, width=width, height=height, ontology=ontology),
        decision=_DECISIONS.get(decisions.pop(), "") if len(decisions) == 1 else "",
        comment="\n".join(text for text in texts if text),
    )


def _said(region: dict[str, Any], kind: str) -> list[str]:
    value = region.get("value")
    said = value.get(kind) if isinstance(value, dict) else None
    return [each for each in said if isinstance(each, str)] if isinstance(said, list) else []
