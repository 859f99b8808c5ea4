"""Tasks and their places: which copies of which image are asked of whom."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from annotation_platform.labeling.client import Proposal, TaskCopy
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.tables import make_table
from annotation_platform.storage.keys import image_key

STEP = "boxes"


def task_name(round_id: str, image_id: str) -> str:
    """Return the id of the task that asks for the boxes of an image in a round."""
    return f"{round_id}/{STEP}/{image_id}"


def assign_places(
    images: Sequence[str], annotators: Iterable[str], *, answers_per_task: int
) -> dict[tuple[str, int], str]:
    """Return who is meant to answer each place, by (image_id, place); places count from 1.

    The load of any two people differs by at most one, and nobody gets an image twice. Where there
    are fewer people than answers wanted, every place is open to anybody (empty string).
    """
    people = sorted(annotators)
    places = range(1, answers_per_task + 1)
    if len(people) < answers_per_task:
        return {(image, place): "" for image in images for place in places}
    assigned = {}
    for number, image in enumerate(images):
        for place in places:
            turn = number * answers_per_task + place - 1
            assigned[image, place] = people[turn % len(people)]
    return assigned


def task_copies(
    round_id: str,
    selected: pd.DataFrame,
    images: pd.DataFrame,
    predictions: pd.DataFrame,
    assignees: Mapping[tuple[str, int], str],
    *,
    minimum_score: float,
) -> list[TaskCopy]:
    """Return one copy for every place of every selected image, in the order of selection.

    Args:
        round_id: the round that asks.
        selected: a ``selected_images`` table.
        images: ``cleaned_images`` rows that hold every selected image as accepted.
        predictions: ``model_predictions``; what scores below ``minimum_score`` is not shown.
        assignees: from ``assign_places``.
        minimum_score: in ``[0, 1]``.
    """
    accepted = images[images["outcome"] == "accepted"].set_index("image_id")
    shown = predictions[predictions["score"] >= minimum_score]
    proposals = {str(key): _proposals(rows) for key, rows in shown.groupby("image_id")}
    weights = {
        str(key): str(value)
        for key, value in zip(predictions["image_id"], predictions["weights_sha256"], strict=True)
    }
    places: dict[str, list[int]] = {}
    for image_id, place in sorted(assignees):
        places.setdefault(image_id, []).append(place)
    copies = []
    for image_id in selected.sort_values("rank")["image_id"]:
        row = accepted.loc[image_id]
        copies += [
            TaskCopy(
                task_id=task_name(round_id, image_id),
                image_id=image_id,
                place=place,
                assignee=assignees[image_id, place],
                image_key=image_key(image_id, str(row["extension"])),
                width=int(row["width"]),
                height=int(row["height"]),
                weights_sha256=weights.get(image_id, ""),
                proposals=proposals.get(image_id, ()),
            )
            for place in places[image_id]
        ]
    return copies


def tasks_table(
    round_id: str,
    backend: str,
    copies: Iterable[TaskCopy],
    backend_tasks: Mapping[tuple[str, int], str],
) -> pd.DataFrame:
    """Return the ``label_tasks`` table: every copy and the id it has in the back end."""
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "task_id": copy.task_id,
            "step": STEP,
            "image_id": copy.image_id,
            "place": copy.place,
            "assignee": copy.assignee,
            "backend": backend,
            "backend_task": backend_tasks[copy.task_id, copy.place],
        }
        for copy in copies
    ]
    return make_table("label_tasks", rows)


def _proposals(rows: pd.DataFrame) -> tuple[Proposal, ...]:
    columns = ["class_name", *BOX_COLUMNS, "score"]
    ordered = rows.sort_values(["score", "prediction_id"], ascending=[False, True])
    return tuple(Proposal(*row) for row in ordered[columns].itertuples(index=False))
