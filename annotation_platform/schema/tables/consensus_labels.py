"""Labels that several annotations resolve to."""

from annotation_platform.schema.tables.shared import (
    ANNOTATIONS_ON_IMAGE,
    ATTRIBUTES,
    CLASS_NAME,
    GEOMETRY,
    IGNORE,
    IMAGE_ID,
    LABEL_ID,
    OBJECT_GROUP_ID,
    ROUND_ID,
    SHAPE,
    SUPPORT,
    TASK_ID,
    TRACK_ID,
    X1,
    X2,
    Y1,
    Y2,
)
from annotation_platform.schema.tables.table import Table, flag, number


class ConsensusLabels(Table, name="consensus_labels", version=2):
    """One resolved set of labels per image."""

    round_id = ROUND_ID
    task_id = TASK_ID
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
    support = SUPPORT
    annotations = ANNOTATIONS_ON_IMAGE.formerly("answers")
    class_agreement = number("share of supporters who chose the class", 0, 1)
    mean_iou = number("mean IoU of the supporters' boxes with the fused one", 0, 1)
    disputed = flag("whether a rule settled it against at least one vote")
