"""Labels of counted annotations."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, count, flag, number, text, time


class HumanLabels(Table, name="human_labels", version=2):
    """One row per label of each counted annotation, from the ledger."""

    round_id = shared.ROUND_ID
    task_id = shared.TASK_ID
    image_id = shared.IMAGE_ID
    assignment = count("number of the assignment", low=1).formerly("place")
    annotation_id = shared.ANNOTATION_ID.formerly("answer_id")
    revision = text("digest of this revision of the annotation", pattern=shared.SHA256)
    annotator = shared.ANNOTATOR
    label_id = text("annotation and running number", key=True)
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
    lead_time_seconds = number("seconds spent on the annotation", 0, unit="seconds")
    submitted_at = time("when the annotation was last changed")
    weights_sha256 = text("model behind the pre-annotation it began from; empty: none")
    changed = flag("whether it differs from that pre-annotation, by value")
    purpose = shared.PURPOSE
    without_predictions = flag("whether the annotator saw no pre-annotations").formerly("blind")
    guideline = text("digest of classes and guidelines it was made under", pattern=shared.SHA256)
    refused_regions = count("regions of the annotation that are not usable labels")
    problems = text("problems of these regions, a JSON list; or empty")
