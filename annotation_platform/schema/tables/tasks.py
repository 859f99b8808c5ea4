"""Tasks of a round and their assignments."""

from annotation_platform.schema.tables.shared import (
    BACKEND_TASK,
    IMAGE_ID,
    PURPOSE,
    ROUND_ID,
    SHA256,
    STEP,
    TASK_ID,
    TaskState,
)
from annotation_platform.schema.tables.table import Table, count, flag, states, text


class LabelTasks(Table, name="label_tasks", version=2):
    """One row per place: each of the k blind copies of each task."""

    round_id = ROUND_ID
    task_id = TASK_ID.as_key()
    step = STEP
    image_id = IMAGE_ID
    place = count("number of the assignment", low=1, key=True)
    stands_for = count(
        "the assignment it fills; another one where it replaces a used-up replica", low=1
    )
    assignee = text("the annotator it is assigned to; empty: any annotator")
    purpose = PURPOSE
    blind = flag("whether it is shown without predictions")
    expertise = text("skill that the annotator must have; empty: none")
    guideline = text("digest of classes and guidelines it was asked under", pattern=SHA256)
    backend = text("where people answer it")
    backend_task = BACKEND_TASK


class RoundTasks(Table, name="round_tasks", version=2):
    """How far each task of a round is."""

    round_id = ROUND_ID
    task_id = TASK_ID.as_key()
    step = STEP
    image_id = IMAGE_ID
    purpose = PURPOSE
    places = count("answers asked for")
    counted = count("answers that hold a place")
    state = states(
        "answered, waiting, left (the round was closed without it) or cancelled", TaskState
    )
