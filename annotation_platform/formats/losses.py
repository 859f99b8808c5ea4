"""What a format cannot hold of a dataset, in sentences with counts."""

import json
from collections import Counter
from collections.abc import Collection

from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS, SHAPES, WITH_CLASS

Verb = tuple[str, str]
"""What becomes of one, and what of several."""

LEFT_OUT: Verb = ("is left out", "are left out")
ENCLOSED: Verb = ("becomes its enclosing box", "become their enclosing boxes")

BOXES_ONLY = frozenset({"box"})
"""The shapes that a format holds where there is room for upright boxes only."""


def sentence(count: int, noun: Verb, verb: Verb) -> list[str]:
    """Return ``["2 polygons are left out"]``, or nothing where there is none."""
    if count < 1:
        return []
    one = count == 1
    return [f"{count} {noun[0] if one else noun[1]} {verb[0] if one else verb[1]}"]


def shape_losses(
    dataset: Dataset,
    holds: Collection[str],
    *,
    areas: Verb = ENCLOSED,
    upright: Verb | None = None,
) -> list[str]:
    """Return a sentence for each shape of the labels that a format does not hold.

    Args:
        dataset: what is written.
        holds: the names of the shapes that the format holds.
        areas: what becomes of other areas. Points and classes of images are left out.
        upright: what becomes of upright boxes, if that differs.
    """
    counts = dataset.labels["shape"].value_counts()
    lines: list[str] = []
    for name, shape in SHAPES.items():
        if name in WITH_CLASS and name not in holds:
            verb = areas if name in AREAS else LEFT_OUT
            verb = upright if upright and shape.is_upright_box else verb
            lines += sentence(int(counts.get(name, 0)), shape.noun, verb)
    return lines


def attribute_losses(dataset: Dataset, *, kept: Collection[str] = ()) -> list[str]:
    """Return a sentence for each attribute of areas that is not among those ``kept``."""
    labels = dataset.labels[dataset.labels["shape"].isin(AREAS)]
    texts = Counter(text for text in labels["attributes"].tolist() if text)
    counts: Counter[str] = Counter()
    for text, number in texts.items():
        counts.update(dict.fromkeys(json.loads(text).keys() - set(kept), number))
    return [
        line
        for name in sorted(counts)
        for line in sentence(
            counts[name], ("label", "labels"), (f"loses its {name}", f"lose their {name}")
        )
    ]


def object_losses(dataset: Dataset) -> list[str]:
    """Return a sentence on areas that are one object together, where a format cannot say so."""
    areas = dataset.labels[dataset.labels["shape"].isin(AREAS) & (dataset.labels["instance"] != "")]
    parts = int(areas.duplicated(["image_id", "instance"], keep=False).sum())
    return sentence(
        parts, ("label", "labels"), ("is an object of its own", "become objects of their own")
    )


def class_losses(dataset: Dataset) -> list[str]:
    """Return a sentence on each thing that a list of class names does not say."""
    ontology = dataset.ontology
    said = {
        "colours": any(one.color for one in ontology.classes),
        "earlier names": any(one.was for one in ontology.classes),
        "retired classes": bool(ontology.retired),
        "guidelines": ontology.guidelines != Ontology.model_fields["guidelines"].default,
    }
    return [f"the class list loses its {what}" for what, there in said.items() if there]


def number_losses(dataset: Dataset) -> list[str]:
    """Return sentences on classes without a label, and on ids, where a format lists no classes.

    Reading such a format numbers the classes that it finds from zero, by name.
    """
    there = dataset.labels.loc[dataset.labels["shape"].isin(AREAS), "class_name"].unique()
    names = sorted(str(name) for name in there)
    ids = dataset.ontology.id_of
    moved = sum(ids.get(name) != number for number, name in enumerate(names))
    noun = ("class", "classes")
    return [
        *sentence(len(ids) - len(names), (f"{noun[0]} without a box", f"{noun[1]} without a box"),
                  LEFT_OUT),
        *sentence(moved, noun, ("gets another id", "get other ids")),
    ]  # fmt: skip
