"""Tasks of a round and their assignments."""

from annotation_platform.schema.tables import shared
from annotation_platform.schema.tables.table import Table, count, flag, states, text


class LabelTasks(Table, name="label_tasks", version=2):
    """One row per assignment: each of the k replicas of each task."""

    round_id = shared.ROUND_ID
    task_id = shared.TASK_ID.as_key()
    step = shared.STEP
    image_id = shared.IMAGE_ID
    assignment = count("number of the assignment", low=1, key=True).formerly("place")
    fills_assignment = count(
        "the assignment it fills; another one where it replaces a used-up replica", low=1
    ).formerly("stands_for")
    assignee = text("the annotator it is assigned to; empty: any annotator")
    purpose = shared.PURPOSE
    without_predictions = flag("whether it shows no pre-annotations").formerly("blind")
    expertise = text("required skill of the annotator; empty: none")
    guideline = text(
        "digest of the classes and guidelines shown to annotators", pattern=shared.SHA256
    )
    backend = text("labelling back end")
    backend_task = shared.BACKEND_TASK


class RoundTasks(Table, name="round_tasks", version=2):
    """The progress of each task of a round."""

    round_id = shared.ROUND_ID
    task_id = shared.TASK_ID.as_key()
    step = shared.STEP
    image_id = shared.IMAGE_ID
    purpose = shared.PURPOSE
    assignments = count("annotations that were requested").formerly("places")
    counted = count("annotations that are counted")
    state = states(
        "annotated, waiting, abandoned (the round was closed without it) or cancelled",
        shared.TaskState,
    ).formerly(answered="annotated", left="abandoned")
