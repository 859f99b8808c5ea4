"""Labels that arrived with their images."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, text


class ImportedLabels(Table, name="imported_labels", version=2):
    """The labels that accepted images landed with: usable, or not and why."""

    round_id = shared.ROUND_ID
    image_id = shared.IMAGE_ID
    label_id = shared.LABEL_ID.as_key()
    shape = shared.SHAPE
    class_name = shared.CLASS_NAME
    x1 = shared.X1
    y1 = shared.Y1
    x2 = shared.X2
    y2 = shared.Y2
    geometry = shared.GEOMETRY
    attributes = shared.ATTRIBUTES
    ignore = shared.IGNORE
    track_id = shared.TRACK_ID
    object_group_id = shared.OBJECT_GROUP_ID
    origin = text("where the labels are from, as the sidecar says")
    problem = text("why the image's labels cannot be used; empty if they can")
