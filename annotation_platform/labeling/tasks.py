"""The tasks of a round: one replica for each assignment, and the ``label_tasks`` table."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from annotation_platform.labeling.assignment_plan import Assignment
from annotation_platform.labeling.backends.protocol import AssignmentKey, Replica
from annotation_platform.models.shown_predictions import shown_predictions
from annotation_platform.schema.annotations import PreAnnotation
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, Label
from annotation_platform.schema.tables import CleanedImages, LabelTasks, ModelPredictions
from annotation_platform.schema.tables.shared import Outcome

STEP = "labels"


@dataclass(frozen=True)
class TaskContent:
    """What the replicas of a round show.

    Attributes:
        images: ``cleaned_images`` rows; they must hold every image as accepted.
        predictions: ``model_predictions``, filtered by ``shown_predictions``. Where two models
            predicted on an image, the detector is named.
        ontology: decides whether one choice is shown or several.
        minimum_score: lowest score of a shown prediction, in ``[0, 1]``.
        notes: by image id, the note for annotators.
        keys: by image id, the lake's key of the shown image; by default that of the cleaned image.
    """

    images: pd.DataFrame
    predictions: pd.DataFrame
    ontology: Ontology
    minimum_score: float
    notes: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] | None = None


def task_name(round_id: str, image_id: str) -> str:
    """Return the id of the task that labels an image in a round."""
    return f"{round_id}/{STEP}/{image_id}"


def task_replicas(
    round_id: str, assignments: Sequence[Assignment], content: TaskContent
) -> list[Replica]:
    """Return one replica for each assignment of a round's plan, in their order.

    Replicas ``without_predictions`` have no pre-annotations.
    """
    images, predictions = content.images, content.predictions
    accepted = images[images[CleanedImages.outcome] == Outcome.ACCEPTED]
    columns = [CleanedImages.extension, CleanedImages.width, CleanedImages.height]
    by_id = accepted.drop_duplicates(CleanedImages.image_id).set_index(CleanedImages.image_id)
    known = by_id[columns].to_dict("index")
    shown = shown_predictions(predictions, content.ontology, minimum_score=content.minimum_score)
    by_image = shown.groupby(ModelPredictions.image_id)
    pre_annotations = {str(image): _pre_annotations(rows) for image, rows in by_image}
    # The last row of an image counts: boxes come after choices.
    named = predictions.sort_values(ModelPredictions.shape, ascending=False, kind="stable")
    of_image = named[ModelPredictions.image_id]
    weights = dict(zip(of_image, named[ModelPredictions.weights_sha256], strict=True))
    keys = content.keys
    if keys is None:
        keys = {
            str(image): image_key(str(image), str(facts["extension"]))
            for image, facts in known.items()
        }
    return [
        Replica(
            task_id=task_name(round_id, each.image_id),
            image_id=each.image_id,
            assignment=each.assignment,
            assignee=each.assignee,
            image_key=keys[each.image_id],
            width=int(known[each.image_id]["width"]),
            height=int(known[each.image_id]["height"]),
            weights_sha256="" if each.without_predictions else str(weights.get(each.image_id, "")),
            pre_annotations=()
            if each.without_predictions
            else pre_annotations.get(each.image_id, ()),
            purpose=each.purpose,
            without_predictions=each.without_predictions,
            expertise=each.expertise,
            note=content.notes.get(each.image_id, ""),
            fills_assignment=each.fills_assignment,
        )
        for each in assignments
    ]


def tasks_table(
    round_id: str,
    replicas: Iterable[Replica],
    backend_tasks: Mapping[AssignmentKey, str],
    *,
    backend_of: Callable[[str], str],
    guideline: str,
    pseudonym: Callable[[str], str],
) -> pd.DataFrame:
    """Return the ``label_tasks`` table: every replica and its id in the back end.

    Args:
        round_id: the round.
        replicas: the published replicas.
        backend_tasks: the back end's ids, by assignment.
        backend_of: returns the name of the back end of a task.
        guideline: digest of the classes and guidelines shown to annotators.
        pseudonym: returns a person's name in tables.
    """
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "task_id": replica.task_id,
            "step": STEP,
            "image_id": replica.image_id,
            "assignment": replica.assignment,
            "fills_assignment": replica.fills_assignment or replica.assignment,
            "assignee": pseudonym(replica.assignee) if replica.assignee else "",
            "purpose": replica.purpose,
            "without_predictions": replica.without_predictions,
            "expertise": replica.expertise,
            "guideline": guideline,
            "backend": backend_of(replica.task_id),
            "backend_task": backend_tasks[replica.key],
        }
        for replica in replicas
    ]
    return LabelTasks.from_rows(rows)


def _pre_annotations(rows: pd.DataFrame) -> tuple[PreAnnotation, ...]:
    by_score = [ModelPredictions.score, ModelPredictions.prediction_id]
    ordered = rows.sort_values(by_score, ascending=[False, True])
    columns = ordered[["shape", "class_name", *BOX_COLUMNS, "score"]].itertuples(index=False)
    return tuple(
        PreAnnotation(
            Label.choice(row[1]) if row[0] in CLASSIFICATIONS else Label.box(*row[1:6]), row[6]
        )
        for row in columns
    )
