"""Annotations, counted or not."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, count, number, states, text, time


class Annotations(Table, name="annotations", version=2, renamed_from=("answers",)):
    """Every annotation of a round, counted or not; payment depends on this table."""

    round_id = shared.ROUND_ID
    annotation_id = shared.ANNOTATION_ID.as_key().formerly("answer_id")
    task_id = shared.TASK_ID
    image_id = shared.IMAGE_ID
    assignment = count("number of the assignment", low=None).formerly("place")
    purpose = states(
        "label or gold; empty if the round has no such task", shared.Purpose, or_empty=True
    )
    annotator = shared.ANNOTATOR
    state = states("counted, or why not", shared.AnnotationState).formerly(foreign="unassigned")
    detail = text("why it is not counted, as a sentence; empty if it is")
    revisions = count("revisions that were collected")
    lead_time_seconds = number("seconds spent on it", 0, unit="seconds")
    created_at = time("when it was first submitted")
    submitted_at = time("when it was last changed")
