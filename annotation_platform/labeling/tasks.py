"""Tasks as people get them: one blind copy for every place."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import pandas as pd

from annotation_platform.labeling.assignment_plan import Place
from annotation_platform.labeling.backends.protocol import Proposal, TaskCopy
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import CLASSIFICATIONS, Label
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.storage.keys import image_key

STEP = "labels"


def task_name(round_id: str, image_id: str) -> str:
    """Return the id of the task that asks for the labels of an image in a round."""
    return f"{round_id}/{STEP}/{image_id}"


def shown_proposals(
    predictions: pd.DataFrame, ontology: Ontology, *, minimum_score: float
) -> pd.DataFrame:
    """Return the ``model_predictions`` that people see: those of ``minimum_score`` or more.

    Where one class is chosen, of an image's choices only the likeliest, the first of equal ones:
    two would be no answer.
    """
    shown = predictions[predictions["score"] >= minimum_score]
    if ontology.choose == "many":
        return shown
    choices = shown[shown["shape"].isin(CLASSIFICATIONS)]
    ordered = choices.sort_values(["score", "prediction_id"], ascending=[False, True])
    return shown.drop(index=ordered.index[ordered["image_id"].duplicated()])


def task_copies(
    round_id: str,
    places: Sequence[Place],
    images: pd.DataFrame,
    predictions: pd.DataFrame,
    *,
    ontology: Ontology,
    minimum_score: float,
    notes: Mapping[str, str] | None = None,
    keys: Mapping[str, str] | None = None,
) -> list[TaskCopy]:
    """Return one copy for every place, in their order; blind ones without proposals.

    Args:
        round_id: the round that asks.
        places: from the round's plan.
        images: ``cleaned_images`` rows that hold every image as accepted.
        predictions: ``model_predictions``; shown is what ``shown_proposals`` says. Of two models
            that looked at an image the detector is named.
        ontology: says whether one choice is shown or many.
        minimum_score: in ``[0, 1]``.
        notes: what people should know of an image, by its id.
        keys: the lake's key of what people see of each image, by its id; by default that of the
            cleaned image.
    """
    accepted = images[images["outcome"] == "accepted"].drop_duplicates("image_id")
    known = accepted.set_index("image_id")[["extension", "width", "height"]].to_dict("index")
    shown = shown_proposals(predictions, ontology, minimum_score=minimum_score)
    proposals = {str(key): _proposals(rows) for key, rows in shown.groupby("image_id")}
    # The last of an image counts: boxes come after choices.
    named = predictions.sort_values("shape", ascending=False, kind="stable")
    weights = dict(zip(named["image_id"], named["weights_sha256"], strict=True))
    if keys is None:
        keys = {
            str(image): image_key(str(image), str(facts["extension"]))
            for image, facts in known.items()
        }
    return [
        TaskCopy(
            task_id=task_name(round_id, place.image_id),
            image_id=place.image_id,
            place=place.place,
            assignee=place.assignee,
            image_key=keys[place.image_id],
            width=int(known[place.image_id]["width"]),
            height=int(known[place.image_id]["height"]),
            weights_sha256="" if place.blind else str(weights.get(place.image_id, "")),
            proposals=() if place.blind else proposals.get(place.image_id, ()),
            purpose=place.purpose,
            blind=place.blind,
            expertise=place.expertise,
            note=(notes or {}).get(place.image_id, ""),
            stands_for=place.stands_for,
        )
        for place in places
    ]


def tasks_table(
    round_id: str,
    copies: Iterable[TaskCopy],
    backend_tasks: Mapping[tuple[str, int], str],
    *,
    backend_of: Callable[[str], str],
    guideline: str,
    pseudonym: Callable[[str], str],
) -> pd.DataFrame:
    """Return the ``label_tasks`` table: every copy and the id it has in the back end.

    Args:
        round_id: the round.
        copies: those that people were asked.
        backend_tasks: the back end's ids, by (task_id, place).
        backend_of: the name of the back end of a task.
        guideline: digest of the classes and guidelines that people saw.
        pseudonym: the name of a person in tables.
    """
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "task_id": copy.task_id,
            "step": STEP,
            "image_id": copy.image_id,
            "place": copy.place,
            "stands_for": copy.stands_for or copy.place,
            "assignee": pseudonym(copy.assignee) if copy.assignee else "",
            "purpose": copy.purpose,
            "blind": copy.blind,
            "expertise": copy.expertise,
            "guideline": guideline,
            "backend": backend_of(copy.task_id),
            "backend_task": backend_tasks[copy.task_id, copy.place],
        }
        for copy in copies
    ]
    return LabelTasks.from_rows(rows)


def _proposals(rows: pd.DataFrame) -> tuple[Proposal, ...]:
    ordered = rows.sort_values(["score", "prediction_id"], ascending=[False, True])
    columns = ordered[["shape", "class_name", *BOX_COLUMNS, "score"]].itertuples(index=False)
    return tuple(
        Proposal(
            Label.choice(row[1]) if row[0] in CLASSIFICATIONS else Label.box(*row[1:6]), row[6]
        )
        for row in columns
    )
