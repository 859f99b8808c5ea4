"""Labels that several annotations resolve to."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, flag, number


class ConsensusLabels(Table, name="consensus_labels", version=2):
    """One resolved set of labels per image."""

    round_id = shared.ROUND_ID
    task_id = shared.TASK_ID
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
    support = shared.SUPPORT
    annotations = shared.ANNOTATIONS_ON_IMAGE.formerly("answers")
    class_agreement = number("share of supporters who chose the class", 0, 1)
    mean_iou = number("mean IoU of the supporters' boxes with the fused one", 0, 1)
    disputed = flag("whether a rule settled it against at least one vote")
