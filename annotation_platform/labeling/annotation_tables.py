"""The tables from the count of a round: labels, annotations and task progress."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict

import pandas as pd

from annotation_platform.labeling.backends.registry import decode, is_changed
from annotation_platform.labeling.counting import Count
from annotation_platform.labeling.ledger import Revision
from annotation_platform.schema.annotations import Canvas
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables import (
    Annotations,
    CleanedImages,
    HumanLabels,
    LabelTasks,
    RoundTasks,
)


def annotations_table(
    round_id: str, count: Count, tasks: pd.DataFrame, pseudonyms: Mapping[str, str]
) -> pd.DataFrame:
    """Return the ``annotations`` table: the outcome of every annotation of a round."""
    purpose = dict(zip(tasks[LabelTasks.task_id], tasks[LabelTasks.purpose], strict=True))
    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "annotation_id": annotation.revision.annotation_id,
            "task_id": annotation.revision.submission.task_id,
            "image_id": annotation.revision.submission.image_id,
            "assignment": annotation.revision.submission.assignment,
            "purpose": purpose.get(annotation.revision.submission.task_id, ""),
            "annotator": pseudonyms[annotation.revision.submission.author],
            "state": annotation.state,
            "detail": annotation.detail,
            "revisions": annotation.revisions,
            "lead_time_seconds": annotation.revision.submission.lead_time_seconds,
            "created_at": annotation.revision.submission.created_at,
            "submitted_at": annotation.revision.submission.updated_at,
        }
        for annotation in sorted(count.annotations, key=lambda item: item.revision.annotation_id)
    ]
    return Annotations.from_rows(rows)


def round_tasks(
    round_id: str, count: Count, tasks: pd.DataFrame, *, state: str, left: Collection[str] = ()
) -> pd.DataFrame:
    """Return the ``round_tasks`` table: the progress of each task of a round.

    Args:
        round_id: the round.
        count: the count of its annotations.
        tasks: its ``label_tasks``.
        state: the round's state: open, closed or cancelled.
        left: annotated tasks without an annotation that counts towards a consensus.
    """
    assignments = Counter(task_id for task_id, _ in count.assignments)
    counted = Counter(task_id for task_id, _ in count.counted)
    unfilled = {"open": "waiting", "closed": "abandoned", "cancelled": "cancelled"}[state]

    def state_of(task_id: str) -> str:
        if task_id not in count.annotated or state == "cancelled":
            return unfilled
        return "abandoned" if task_id in left else "annotated"

    rows: list[dict[str, object]] = [
        {
            "round_id": round_id,
            "task_id": task_id,
            "step": step,
            "image_id": image_id,
            "purpose": purpose,
            "assignments": assignments[task_id],
            "counted": counted[task_id],
            "state": state_of(task_id),
        }
        for task_id, step, image_id, purpose in tasks.drop_duplicates(LabelTasks.task_id)[
            [LabelTasks.task_id, LabelTasks.step, LabelTasks.image_id, LabelTasks.purpose]
        ].itertuples(index=False)
    ]
    return RoundTasks.from_rows(rows)


def human_labels(
    round_id: str,
    count: Count,
    tasks: pd.DataFrame,
    images: pd.DataFrame,
    ontology: Ontology,
    pseudonyms: Mapping[str, str],
) -> pd.DataFrame:
    """Return the ``human_labels`` table: the labels of all annotated tasks.

    A region without a usable label (no area, unknown class, far outside, drawn on an image of
    another size) is left out, and counted and named in each row of its annotation; it stays in the
    ledger. An annotation without labels has one row with ``shape`` = ``none``, one whose author was
    unsure a single row with ``shape`` = ``unsure``.

    Args:
        round_id: the round.
        count: from ``count_annotations``.
        tasks: the round's ``label_tasks``.
        images: accepted ``cleaned_images`` rows of every annotated image.
        ontology: the classes of the round.
        pseudonyms: the pseudonym of each author.
    """
    sides = zip(
        images[CleanedImages.width].tolist(), images[CleanedImages.height].tolist(), strict=True
    )
    sizes = dict(zip(images[CleanedImages.image_id], sides, strict=True))
    facts = {
        (task_id, assignment): about
        for task_id, assignment, *about in tasks[
            [
                LabelTasks.task_id,
                LabelTasks.assignment,
                LabelTasks.purpose,
                LabelTasks.without_predictions,
                LabelTasks.guideline,
            ]
        ].itertuples(index=False)
    }
    rows: list[dict[str, object]] = []
    for (task_id, _), revision in sorted(count.counted.items()):
        if task_id not in count.annotated:
            continue
        width, height = sizes[revision.submission.image_id]
        canvas = Canvas(width, height, ontology)
        purpose, without_predictions, guideline = facts[task_id, revision.submission.assignment]
        about = {
            "round_id": round_id,
            "annotator": pseudonyms[revision.submission.author],
            "purpose": purpose,
            "without_predictions": without_predictions,
            "guideline": guideline,
        }
        rows += [{**about, **row} for row in _label_rows(revision, canvas)]
    return HumanLabels.from_rows(rows)


def _label_rows(revision: Revision, canvas: Canvas) -> Iterator[dict[str, object]]:
    """Yield a row for each label of an annotation, or one row if it has none."""
    submission = revision.submission
    parsed = decode(submission.payload, canvas)
    same = {
        "task_id": submission.task_id,
        "image_id": submission.image_id,
        "assignment": submission.assignment,
        "annotation_id": revision.annotation_id,
        "revision": revision.digest,
        "lead_time_seconds": submission.lead_time_seconds,
        "submitted_at": submission.updated_at,
        "weights_sha256": submission.weights_sha256,
        "changed": is_changed(submission.payload, submission.pre_annotations, canvas),
        "refused_regions": parsed.refused,
        "problems": json.dumps(parsed.problems, ensure_ascii=False) if parsed.problems else "",
    }
    for number, label in enumerate(parsed.labels or [NOTHING]):
        name = f"{number:04d}" if parsed.labels else "none"
        yield {**same, "label_id": f"{revision.annotation_id}:{name}", **asdict(label)}
