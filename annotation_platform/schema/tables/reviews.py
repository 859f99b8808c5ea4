"""What reviewers are asked, and the labels after their decisions."""

from annotation_platform.schema.tables.shared import (
    ANNOTATIONS_ON_IMAGE,
    ATTRIBUTES,
    BACKEND_TASK,
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
    ReviewDecision,
)
from annotation_platform.schema.tables.table import Table, states, text, time


class ReviewTasks(Table, name="review_tasks"):
    """The images of a round that a reviewer decides about, and why."""

    round_id = ROUND_ID
    review_id = text("the task of the reviewer", key=True)
    task_id = text("the task whose answers are in dispute")
    image_id = IMAGE_ID
    kinds = text("kinds of unsettled conflicts, comma separated; or sample")
    reasons = text("the message to the reviewer")
    reviewer = text("whom it is meant for; empty: anybody who did not answer it")
    backend = text("labelling back end of the review; empty: no review")
    backend_task = BACKEND_TASK


class ReviewedLabels(Table, name="reviewed_labels", version=2):
    """The labels of a round as they may be published: undisputed, or decided by a reviewer."""

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
    decision = states("undisputed, or what became of the dispute", ReviewDecision)
    decided_by = text("pseudonym of the reviewer; empty: a rule, or not decided yet")
    comment = text("what the reviewer wrote; or what keeps the image out")
    decided_at = time("when")
