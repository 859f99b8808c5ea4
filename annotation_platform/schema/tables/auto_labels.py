"""Predictions that became labels without annotators."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, flag, number, text


class AutoLabels(Table, name="auto_labels", version=2):
    """Predictions that became labels without annotators, under the certificate of their round."""

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
    score = number("probability that it is correct", 0, 1)
    confidence = number("confidence of its image, which decided the acceptance")
    recheck_sample = flag(
        "whether its image is in the sample that is annotated without predictions nevertheless"
    ).formerly("seen_again")
    weights_sha256 = text("digest of the weights that predicted it", pattern=shared.SHA256)
