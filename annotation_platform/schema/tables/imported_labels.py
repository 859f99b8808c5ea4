"""Labels that arrived with their images."""

from annotation_platform.schema.tables.shared import (
    ATTRIBUTES,
    CLASS_NAME,
    GEOMETRY,
    IGNORE,
    IMAGE_ID,
    LABEL_ID,
    OBJECT_GROUP_ID,
    ROUND_ID,
    SHAPE,
    TRACK_ID,
    X1,
    X2,
    Y1,
    Y2,
)
from annotation_platform.schema.tables.table import Table, text


class ImportedLabels(Table, name="imported_labels", version=2):
    """The labels that accepted images landed with: usable, or not and why."""

    round_id = ROUND_ID
    image_id = IMAGE_ID
    label_id = LABEL_ID.as_key()
    shape = SHAPE
    class_name = CLASS_NAME
    x1 = X1
    y1 = Y1
    x2 = X2
    y2 = Y2
    geometry = GEOMETRY
    attributes = ATTRIBUTES
    ignore = IGNORE
    track_id = TRACK_ID
    object_group_id = OBJECT_GROUP_ID
    origin = text("where the labels are from, as the sidecar says")
    problem = text("why the image's labels cannot be used; empty if they can")
