"""Tasks of reviewers, and the labels after their decisions."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, states, text, time


class ReviewTasks(Table, name="review_tasks"):
    """The images of a round that a reviewer decides about, and the reasons."""

    round_id = shared.ROUND_ID
    review_id = text("the task of the reviewer", key=True)
    task_id = text("the task whose annotations are in conflict")
    image_id = shared.IMAGE_ID
    kinds = text("kinds of unsettled conflicts, comma separated; or sample")
    reasons = text("the message to the reviewer")
    reviewer = text("the assigned reviewer; empty: any reviewer who did not annotate the image")
    backend = text("labelling back end of the review; empty: no review")
    backend_task = shared.BACKEND_TASK


class ReviewedLabels(Table, name="reviewed_labels", version=2):
    """The labels of a round as they may be published: undisputed, or decided by a reviewer."""

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
    decision = states("undisputed, or what became of the dispute", shared.ReviewDecision)
    decided_by = text("pseudonym of the reviewer; empty: a rule, or not decided yet")
    comment = text("comment of the reviewer; or why the image is left out")
    decided_at = time("time of the decision")
