"""Contradictions between annotations."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, flag, optional_text, text


class Conflicts(Table, name="conflicts"):
    """Contradictions between the annotations of a round, or with the policy, by kind."""

    round_id = shared.ROUND_ID
    task_id = shared.TASK_ID
    image_id = shared.IMAGE_ID
    conflict_id = text("image, kind and running number", key=True)
    kind = text("class, overlap, missing, duplicate, outside_ontology, unsure, tied, …")
    label_id = optional_text("the resolved label concerned")
    shape = optional_text("shape of the region concerned")
    class_name = shared.CLASS_NAME
    x1 = shared.X1
    y1 = shared.Y1
    x2 = shared.X2
    y2 = shared.Y2
    geometry = shared.GEOMETRY
    annotators = text("pseudonyms of those involved, comma separated")
    detail = text("a sentence with the numbers")
    settled = flag("whether a rule settled it; otherwise a reviewer has to")
