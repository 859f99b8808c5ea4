"""Predictions that became labels without annotators."""

from annotation_platform.schema.tables.shared import (
    ATTRIBUTES,
    CLASS_NAME,
    GEOMETRY,
    IGNORE,
    IMAGE_ID,
    LABEL_ID,
    OBJECT_GROUP_ID,
    ROUND_ID,
    SHA256,
    SHAPE,
    TRACK_ID,
    X1,
    X2,
    Y1,
    Y2,
)
from annotation_platform.schema.tables.table import Table, flag, number, text


class AutoLabels(Table, name="auto_labels", version=2):
    """Proposals that became labels without a person, under the certificate of their round."""

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
    score = number("probability that it is right", 0, 1)
    confidence = number("of its image, by which it was accepted")
    seen_again = flag("whether its image was drawn to be asked about all the same, blind")
    weights_sha256 = text("digest of the weights that proposed it", pattern=SHA256)
