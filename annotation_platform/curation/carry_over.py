"""Labels of earlier ontologies under the current classes."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables.shared import NO_EXTRAS


@dataclass(frozen=True)
class CarriedOver:
    """Labels under the current classes, and the images that have to be annotated again."""

    labels: pd.DataFrame
    ask_again: dict[str, str]  # image -> reason


def carry_over(labels: pd.DataFrame, ontology: Ontology) -> CarriedOver:
    """Return labels under the current classes: renamed and merged classes get their new names.

    Labels of a class that was retired without a successor are left out; an image without other
    labels keeps one row with ``shape`` = ``none``. If a class was split, all labels of the images
    with a label of that class are left out, since its new class is not known. Classes that are not
    in the ontology do not change: a gate reports them.

    Args:
        labels: label columns, ``image_id`` and ``label_id``; other columns are kept.
        ontology: the current one.
    """
    successors = ontology.successors
    names = labels["class_name"].dropna().unique()
    if all(successors.get(name, (name,)) == (name,) for name in names):
        return CarriedOver(labels.reset_index(drop=True), {})
    current = labels["class_name"].map(successors, na_action="ignore")
    choices = current.map(len, na_action="ignore")
    split = labels[choices > 1]
    ask_again = {
        str(image): f"class {old} was split into {' and '.join(successors[old])}"
        for image, old in zip(split["image_id"], split["class_name"], strict=True)
    }
    remaining = labels[~labels["image_id"].isin(ask_again)].copy()
    renamed = current[remaining.index].map(
        lambda names: names[0] if names else None, na_action="ignore"
    )
    gone = choices[remaining.index] == 0
    remaining["class_name"] = renamed.where(
        current[remaining.index].notna(), remaining["class_name"]
    )
    emptied = remaining[gone & ~remaining["image_id"].isin(remaining.loc[~gone, "image_id"])]
    extras = {name: value for name, value in NO_EXTRAS.items() if name in labels}
    nothing = emptied.drop_duplicates("image_id").assign(**vars(NOTHING), **extras)
    nothing["label_id"] = nothing["image_id"] + ":none"
    parts = [part for part in (remaining[~gone], nothing) if not part.empty]
    carried = pd.concat(parts).sort_index() if parts else remaining[~gone]
    return CarriedOver(carried.astype(labels.dtypes.to_dict()).reset_index(drop=True), ask_again)
