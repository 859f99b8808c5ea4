"""Sentences with counts on the content of a dataset that a format cannot hold."""

import json
from collections import Counter
from collections.abc import Collection

from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import AREAS, SHAPES, WITH_CLASS

Wording = tuple[str, str]
"""A noun or a verb phrase in singular and plural."""

LEFT_OUT: Wording = ("is left out", "are left out")
ENCLOSED: Wording = ("becomes its enclosing box", "become their enclosing boxes")

BOXES_ONLY = frozenset({"box"})
"""Shapes of a format that holds only upright boxes."""


def sentence(count: int, noun: Wording, verb: Wording) -> list[str]:
    """Return a sentence such as ``["2 polygons are left out"]``; a count of 0 gives none."""
    if count < 1:
        return []
    one = count == 1
    return [f"{count} {noun[0] if one else noun[1]} {verb[0] if one else verb[1]}"]


def shape_losses(
    dataset: Dataset,
    holds: Collection[str],
    *,
    areas: Wording = ENCLOSED,
    upright: Wording | None = None,
) -> list[str]:
    """Return a sentence for each shape of the labels that a format does not hold.

    Args:
        dataset: The dataset to write.
        holds: Names of the shapes that the format holds.
        areas: Verb phrase for other areas. Keypoints and choices are left out.
        upright: Verb phrase for upright boxes, if different.
    """
    counts = dataset.labels["shape"].value_counts()
    lines: list[str] = []
    for name, shape in SHAPES.items():
        if name in WITH_CLASS and name not in holds:
            verb = areas if name in AREAS else LEFT_OUT
            verb = upright if upright and shape.is_upright_box else verb
            lines += sentence(int(counts.get(name, 0)), shape.noun, verb)
    return lines


def attribute_losses(dataset: Dataset, *, held: Collection[str] = ()) -> list[str]:
    """Return a sentence for each attribute of areas except those that the format holds."""
    labels = dataset.labels[dataset.labels["shape"].isin(AREAS)]
    texts = Counter(text for text in labels["attributes"].tolist() if text)
    counts: Counter[str] = Counter()
    for text, number in texts.items():
        counts.update(dict.fromkeys(json.loads(text).keys() - set(held), number))
    return [
        line
        for name in sorted(counts)
        for line in sentence(
            counts[name], ("label", "labels"), (f"loses its {name}", f"lose their {name}")
        )
    ]


def box_losses(dataset: Dataset, *, held: Collection[str] = ()) -> list[str]:
    """Return the sentences for a format that holds upright boxes and the attributes ``held``."""
    return [
        *shape_losses(dataset, BOXES_ONLY),
        *attribute_losses(dataset, held=held),
        *object_losses(dataset),
    ]


def object_losses(dataset: Dataset) -> list[str]:
    """Return a sentence on areas that share an object, for a format that cannot group labels."""
    areas = dataset.labels[dataset.labels["shape"].isin(AREAS) & (dataset.labels["instance"] != "")]
    parts = int(areas.duplicated(["image_id", "instance"], keep=False).sum())
    return sentence(
        parts, ("label", "labels"), ("is an object of its own", "become objects of their own")
    )


def class_losses(dataset: Dataset) -> list[str]:
    """Return a sentence for each part of the ontology that a list of class names lacks."""
    ontology = dataset.ontology
    present = {
        "colours": any(one.color for one in ontology.classes),
        "earlier names": any(one.was for one in ontology.classes),
        "retired classes": bool(ontology.retired),
        "guidelines": ontology.guidelines != Ontology.model_fields["guidelines"].default,
    }
    return [f"the class list loses its {part}" for part, is_set in present.items() if is_set]


def number_losses(dataset: Dataset) -> list[str]:
    """Return sentences on classes without a box, and on ids, for a format without a class list.

    Reading such a format numbers the classes of its labels from zero, by name.
    """
    used = dataset.labels.loc[dataset.labels["shape"].isin(AREAS), "class_name"].unique()
    names = sorted(str(name) for name in used)
    ids = dataset.ontology.id_of
    moved = sum(ids.get(name) != number for number, name in enumerate(names))
    noun = ("class", "classes")
    return [
        *sentence(len(ids) - len(names), (f"{noun[0]} without a box", f"{noun[1]} without a box"),
                  LEFT_OUT),
        *sentence(moved, noun, ("gets another id", "get other ids")),
    ]  # fmt: skip
