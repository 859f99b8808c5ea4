"""Contradictions between annotations."""

from annotation_platform.schema.tables.shared import (
    CLASS_NAME,
    GEOMETRY,
    IMAGE_ID,
    ROUND_ID,
    TASK_ID,
    X1,
    X2,
    Y1,
    Y2,
)
from annotation_platform.schema.tables.table import Table, flag, optional_text, text


class Conflicts(Table, name="conflicts"):
    """Where the answers of a round contradict each other or the policy, and what kind it is."""

    round_id = ROUND_ID
    task_id = TASK_ID
    image_id = IMAGE_ID
    conflict_id = text("image, kind and running number", key=True)
    kind = text("class, overlap, missing, duplicate, outside_ontology, unsure, tied, …")
    label_id = optional_text("resolved label that it is about")
    shape = optional_text("of the place it is about")
    class_name = CLASS_NAME
    x1 = X1
    y1 = Y1
    x2 = X2
    y2 = Y2
    geometry = GEOMETRY
    annotators = text("pseudonyms of those involved, comma separated")
    detail = text("a sentence with the numbers")
    settled = flag("whether a rule settled it; if not, a person has to")
