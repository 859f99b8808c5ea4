"""What a place of a task and an annotation are in Label Studio."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from annotation_platform.labeling.annotations import Payload
from annotation_platform.labeling.backends.label_studio.codec import NAME as CODEC
from annotation_platform.labeling.backends.label_studio.interface import (
    CONFLICTS_NAME,
    NOTE_NAME,
)
from annotation_platform.labeling.backends.label_studio.people import (
    email_in,
)
from annotation_platform.labeling.backends.label_studio.results import write_proposals
from annotation_platform.labeling.backends.label_studio.tasks import (
    Annotation,
    Prediction,
    Task,
)
from annotation_platform.labeling.backends.protocol import (
    Submission,
    TaskCopy,
)

if TYPE_CHECKING:
    pass


def task_of(copy: TaskCopy, round_id: str, image: str) -> dict[str, Any]:
    """Return a copy as Label Studio imports it: what identifies it, its image, its proposals."""
    task: dict[str, Any] = {
        "data": {
            "image": image,
            "image_id": copy.image_id,
            "task_id": copy.task_id,
            "round": round_id,
            "place": copy.place,
            "assignee": copy.assignee,
        }
    }
    task["data"][CONFLICTS_NAME if copy.purpose == "review" else NOTE_NAME] = copy.note
    if copy.proposals:
        scores = [each.score for each in copy.proposals if each.score is not None]
        task["predictions"] = [
            {
                "model_version": copy.weights_sha256,
                "result": write_proposals(copy.proposals, copy.width, copy.height),
                **({"score": min(scores)} if scores else {}),
            }
        ]
    return task


def submission_of(
    task: Task,
    said: Annotation,
    shown: Sequence[Prediction],
    emails: Mapping[int, str],
) -> Submission:
    """Return one annotation of a task as the platform sees it.

    Args:
        task: it, made by ``publish``.
        said: the annotation.
        shown: the predictions of the task.
        emails: of all accounts, by their number.
    """
    predictions = {prediction.id: prediction for prediction in shown}
    # An answer sent over the API does not name the prediction; then it is the task's only one.
    only = shown[0] if shown else None
    began_from = predictions.get(said.parent_prediction or 0, only)
    return Submission(
        backend="label-studio",
        backend_task=str(task.id),
        annotation=str(said.id),
        task_id=task.data["task_id"],
        image_id=task.data["image_id"],
        place=task.data["place"],
        author=_author(said, emails),
        created_at=said.created_at.astimezone(UTC),
        updated_at=said.updated_at.astimezone(UTC),
        lead_time_seconds=_seconds(said.lead_time),
        skipped=said.was_cancelled,
        payload=Payload(CODEC, said.result or []),
        weights_sha256=(began_from.model_version or "") if began_from else "",
        proposed=Payload(CODEC, began_from.result or []) if began_from else None,
    )


def _seconds(lead_time: float | None) -> float:
    """Return a lead time in seconds; 0 where Label Studio knows none."""
    return lead_time if lead_time is not None and math.isfinite(lead_time) else 0.0


def _author(said: Annotation, emails: Mapping[int, str]) -> str:
    user = said.completed_by
    if user is None:
        return "unknown"
    # A removed member's address reads "Deleted", but the annotation still names it.
    return email_in(emails.get(user, "")) or email_in(said.created_username) or f"user-{user}"
