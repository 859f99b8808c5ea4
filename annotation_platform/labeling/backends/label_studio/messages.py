"""Replicas as Label Studio tasks, and its annotations as submissions."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from annotation_platform.formats.label_studio.control_names import CONFLICTS_NAME, NOTE_NAME
from annotation_platform.formats.label_studio.results import write_pre_annotations
from annotation_platform.labeling.backends.label_studio.codec import NAME as CODEC
from annotation_platform.labeling.backends.label_studio.people import (
    email_in,
)
from annotation_platform.labeling.backends.label_studio.tasks import (
    Prediction,
    StoredAnnotation,
    Task,
)
from annotation_platform.labeling.backends.protocol import (
    Replica,
    Submission,
)
from annotation_platform.schema.annotations import Payload


def task_of(replica: Replica, round_id: str, image: str) -> dict[str, Any]:
    """Return a replica as Label Studio imports it: identity, image and pre-annotations."""
    task: dict[str, Any] = {
        "data": {
            "image": image,
            "image_id": replica.image_id,
            "task_id": replica.task_id,
            "round": round_id,
            "place": replica.assignment,
            "assignee": replica.assignee,
        }
    }
    task["data"][CONFLICTS_NAME if replica.purpose == "review" else NOTE_NAME] = replica.note
    if replica.pre_annotations:
        scores = [each.score for each in replica.pre_annotations if each.score is not None]
        task["predictions"] = [
            {
                "model_version": replica.weights_sha256,
                "result": write_pre_annotations(
                    replica.pre_annotations, replica.width, replica.height
                ),
                **({"score": min(scores)} if scores else {}),
            }
        ]
    return task


def submission_of(
    task: Task,
    annotation: StoredAnnotation,
    shown: Sequence[Prediction],
    emails: Mapping[int, str],
) -> Submission:
    """Return one annotation of a task as a submission.

    Args:
        task: the task, created by ``publish``.
        annotation: the annotation.
        shown: the predictions of the task.
        emails: the addresses of all accounts, by account number.
    """
    predictions = {prediction.id: prediction for prediction in shown}
    # An annotation sent over the API names no prediction; the task's only one is taken.
    only = shown[0] if shown else None
    began_from = predictions.get(annotation.parent_prediction or 0, only)
    return Submission(
        backend="label-studio",
        backend_task=str(task.id),
        annotation=str(annotation.id),
        task_id=task.data["task_id"],
        image_id=task.data["image_id"],
        assignment=task.data["place"],
        author=_author(annotation, emails),
        created_at=annotation.created_at.astimezone(UTC),
        updated_at=annotation.updated_at.astimezone(UTC),
        lead_time_seconds=_seconds(annotation.lead_time),
        skipped=annotation.was_cancelled,
        payload=Payload(CODEC, annotation.result or []),
        weights_sha256=(began_from.model_version or "") if began_from else "",
        pre_annotations=Payload(CODEC, began_from.result or []) if began_from else None,
    )


def _seconds(lead_time: float | None) -> float:
    """Return a lead time in seconds; 0 if Label Studio has none."""
    return lead_time if lead_time is not None and math.isfinite(lead_time) else 0.0


def _author(annotation: StoredAnnotation, emails: Mapping[int, str]) -> str:
    user = annotation.completed_by
    if user is None:
        return "unknown"
    # A removed member's address reads "Deleted", but the annotation still names it.
    return email_in(emails.get(user, "")) or email_in(annotation.created_username) or f"user-{user}"
