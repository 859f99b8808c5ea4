"""Annotations, counted or not."""

from annotation_platform.schema.tables.shared import (
    ANNOTATION_ID,
    ANNOTATOR,
    IMAGE_ID,
    ROUND_ID,
    TASK_ID,
    AnnotationState,
    Purpose,
)
from annotation_platform.schema.tables.table import Table, count, number, states, text, time


class Annotations(Table, name="annotations", version=2, renamed_from=("answers",)):
    """Every annotation of a round, counted or not; payment depends on this table."""

    round_id = ROUND_ID
    annotation_id = ANNOTATION_ID.as_key().formerly("answer_id")
    task_id = TASK_ID
    image_id = IMAGE_ID
    assignment = count("number of the assignment", low=None).formerly("place")
    purpose = states("label or gold; empty if the round has no such task", Purpose, or_empty=True)
    annotator = ANNOTATOR
    state = states("counted, or why not", AnnotationState).formerly(foreign="unassigned")
    detail = text("why it is not counted, as a sentence; empty if it is")
    revisions = count("revisions that were collected")
    lead_time_seconds = number("seconds spent on it", 0, unit="seconds")
    created_at = time("when it was first submitted")
    submitted_at = time("when it was last changed")
