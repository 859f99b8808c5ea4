"""Labels made under earlier classes, as labels of today's."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING


@dataclass(frozen=True)
class CarriedOver:
    """Labels under today's names, and the images that somebody has to look at again."""

    labels: pd.DataFrame
    ask_again: dict[str, str]  # image -> why


def carry_over(labels: pd.DataFrame, ontology: Ontology) -> CarriedOver:
    """Return labels as they read today: renamed and merged classes under their present names.

    Labels of a class that was retired into none are left out; an image that has no other keeps
    one row with ``shape`` = ``none``. All labels of an image with one of a class that was split
    are left out, since nobody knows which it is now. Classes of which the ontology knows nothing
    stay as they are: a gate names them.

    Args:
        labels: label columns, ``image_id`` and ``label_id``; any other column is kept.
        ontology: today's.
    """
    successors = ontology.successors
    names = labels["class_name"].dropna().unique()
    if all(successors.get(name, (name,)) == (name,) for name in names):
        return CarriedOver(labels.reset_index(drop=True), {})
    today = labels["class_name"].map(successors, na_action="ignore")
    choices = today.map(len, na_action="ignore")
    split = labels[choices > 1]
    ask_again = {
        str(image): f"class {old} was split into {' and '.join(successors[old])}"
        for image, old in zip(split["image_id"], split["class_name"], strict=True)
    }
    kept = labels[~labels["image_id"].isin(ask_again)].copy()
    renamed = today[kept.index].map(lambda names: names[0] if names else None, na_action="ignore")
    gone = choices[kept.index] == 0
    kept["class_name"] = renamed.where(today[kept.index].notna(), kept["class_name"])
    emptied = kept[gone & ~kept["image_id"].isin(kept.loc[~gone, "image_id"])]
    nothing = emptied.drop_duplicates("image_id").assign(**vars(NOTHING))
    nothing["label_id"] = nothing["image_id"] + ":none"
    parts = [part for part in (kept[~gone], nothing) if not part.empty]
    carried = pd.concat(parts).sort_index() if parts else kept[~gone]
    return CarriedOver(carried.astype(labels.dtypes.to_dict()).reset_index(drop=True), ask_again)
