"""Labels of counted annotations."""

from annotation_platform.schema.tables.shared import (
    ANNOTATION_ID,
    ANNOTATOR,
    ATTRIBUTES,
    CLASS_NAME,
    GEOMETRY,
    IGNORE,
    IMAGE_ID,
    OBJECT_GROUP_ID,
    PURPOSE,
    ROUND_ID,
    SHA256,
    SHAPE,
    TASK_ID,
    TRACK_ID,
    X1,
    X2,
    Y1,
    Y2,
)
from annotation_platform.schema.tables.table import Table, count, flag, number, text, time


class HumanLabels(Table, name="human_labels", version=2):
    """One row per label of each counted annotation, from the ledger."""

    round_id = ROUND_ID
    task_id = TASK_ID
    image_id = IMAGE_ID
    place = count("the copy that was answered", low=1)
    annotation_id = ANNOTATION_ID.formerly("answer_id")
    revision = text("digest of this state of the answer", pattern=SHA256)
    annotator = ANNOTATOR
    label_id = text("answer and running number", key=True)
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
    lead_time_seconds = number("seconds spent on the answer", 0, unit="seconds")
    submitted_at = time("when the answer took this form")
    weights_sha256 = text("model behind the pre-annotation it began from; empty: none")
    changed = flag("whether it differs from that pre-annotation, by value")
    purpose = PURPOSE
    blind = flag("whether the annotator saw no proposals")
    guideline = text("digest of classes and guidelines it was made under", pattern=SHA256)
    refused_regions = count("regions of the answer that are no usable label")
    problems = text("what is wrong with regions of the answer, a JSON list; or empty")
