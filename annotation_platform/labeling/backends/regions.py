"""The neutral codec ``regions/1``: labels as JSON, in pixels of the stored image.

Content is a list with one object for each region, and at most one more for a reviewer's decision::

    [{"id": "box-0", "label": {"shape": "box", "class_name": "boat", "x1": 4.0, …}, "score": 0.9},
     {"decision": "accept", "comment": "the hull"}]

``label`` holds the attributes of ``schema.shapes.Label`` that are set. The simulator stores its
annotations in this form, and so can any back end that has no form of its own.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Required

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from annotation_platform.labeling.backends.judging import judge
from annotation_platform.schema.annotations import (
    Canvas,
    Codec,
    DecodedAnnotation,
    NamedLabel,
    Payload,
    PreAnnotation,
    Region,
    only_choice,
)
from annotation_platform.schema.shapes import NOTHING, UNSURE, Label

NAME = "regions/1"


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
"""The name of a region in problems, its id, and a function that returns its label or raises."""


def write_regions(
    labels: Iterable[Label], *, scores: Sequence[float | None] = (), key: str = ""
) -> list[dict[str, Any]]:
    """Return labels as content of ``regions/1``: one region each, in order.

    Args:
        labels: labels in pixels of the stored image; "nothing here" has no region.
        scores: the labels' scores; None for a label without a model.
        key: prefix of each region's id.
    """
    shown = list(labels)
    return [
        {
            "id": f"{key}{label.shape.replace('_', '-')}-{position}",
            "label": {
                name: value for name, value in asdict(label).items() if value not in ("", None)
            },
            **({} if score is None else {"score": score}),
        }
        for position, (label, score) in enumerate(
            zip(shown, scores or [None] * len(shown), strict=True)
        )
        if label.shape != NOTHING.shape
    ]


def write_decision(decision: str, comment: str = "") -> list[dict[str, Any]]:
    """Return a reviewer's decision, ``accept`` or ``reject``, as content of ``regions/1``."""
    return [{"decision": decision, "comment": comment}]


def shown_regions(pre_annotations: Iterable[PreAnnotation]) -> Payload:
    """Return pre-annotations as a payload."""
    shown = list(pre_annotations)
    scores = [each.score for each in shown]
    return Payload(NAME, write_regions([each.label for each in shown], scores=scores))


def read_pre_annotations(content: Iterable[dict[str, Any]]) -> list[PreAnnotation]:
    """Return the pre-annotations in content that ``shown_regions`` wrote."""
    return [PreAnnotation(Label(**each["label"]), each.get("score")) for each in content]


def decode_labels(entries: Iterable[NamedEntry], canvas: Canvas) -> DecodedAnnotation:
    """Return the decoded labels of a codec as regions, judged by the image and the classes.

    A label is refused if its class is not in the ontology or has another shape, if a coordinate is
    not a finite number, if it has no area, or if it reaches too far outside the image. A box or
    polygon that reaches outside by up to 5 percent of a side is clipped; a rotated box is kept
    whole if at least half of it is inside; a point must be inside. Where an image has exactly one
    class, several choices are all refused. A repeated region counts once, and ``unsure`` excludes
    all others.
    """
    found: list[NamedLabel] = []
    problems: list[str] = []
    refused = 0
    seen: dict[str, Label] = {}
    for name, region_id, read in entries:
        try:
            label, notes = judge(read(), canvas)
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
        found, ambiguous = only_choice(found)
        problems += ambiguous
        refused += len(ambiguous)
    unsure = [each for each in found if each.label == UNSURE][:1]
    regions = [Region(each.label, each.region_id) for each in unsure or found]
    return DecodedAnnotation(regions, problems, refused)


class RegionsCodec(Codec):
    """Reads content of ``regions/1``; any other content is a problem of the annotation."""

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
        annotation = self.decode([each for each in entries if each not in about], canvas)
        if len(about) != 1 or about[0]["decision"] not in ("accept", "reject"):
            return annotation
        comment = str(about[0].get("comment", "")).strip()
        return replace(annotation, decision=about[0]["decision"], comment=comment)

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
