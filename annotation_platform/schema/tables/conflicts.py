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
    """Contradictions between the annotations of a round, or with the policy, by kind."""

    round_id = ROUND_ID
    task_id = TASK_ID
    image_id = IMAGE_ID
    conflict_id = text("image, kind and running number", key=True)
    kind = text("class, overlap, missing, duplicate, outside_ontology, unsure, tied, …")
    label_id = optional_text("the resolved label concerned")
    shape = optional_text("shape of the region concerned")
    class_name = CLASS_NAME
    x1 = X1
    y1 = Y1
    x2 = X2
    y2 = Y2
    geometry = GEOMETRY
    annotators = text("pseudonyms of those involved, comma separated")
    detail = text("a sentence with the numbers")
    settled = flag("whether a rule settled it; otherwise a reviewer has to")
