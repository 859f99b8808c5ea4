"""Alerts about rounds: images or an annotator's pace have drifted, or a round is stalled."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.monitoring.alert import Alert
from annotation_platform.schema.tables import (
    AnnotatorPace,
    BatchDrift,
    ConsensusLabels,
    LabelTasks,
    ReviewedLabels,
    ReviewTasks,
    Table,
)
from annotation_platform.storage.lake import Lake

_NEWEST = 3
"""Number of rounds that are checked, the newest ones; older ones were checked before."""

_REVIEWERS = "reviewers"
_WAITS: list[tuple[type[Table], type[Table], str]] = [
    (LabelTasks, ConsensusLabels, "people"),
    (ReviewTasks, ReviewedLabels, _REVIEWERS),
]


def find_drift(lake: Lake) -> Iterator[Alert]:
    """Yield an alert per recent round with drifted images and per annotator with drifted pace."""
    for round_id in lake.tables.rounds(BatchDrift)[-_NEWEST:]:
        drift = lake.tables.read(BatchDrift, round_id)
        drift = drift[drift[BatchDrift.drifted]]
        if len(drift):
            features = "; ".join(f"{row.feature}: {row.detail}" for row in drift.itertuples())
            yield Alert(
                "drift",
                round_id,
                ",".join(sorted(drift[BatchDrift.feature])),
                f"Its images differ from those of earlier rounds: {features}.",
                "See batch_drift in the Dagster UI; `drift.gate: hold` holds such rounds back "
                "until they are released by hand.",
            )
    for round_id in lake.tables.rounds(AnnotatorPace)[-_NEWEST:]:
        pace = lake.tables.read(AnnotatorPace, round_id)
        drifted = pace[pace[AnnotatorPace.drifted]]
        for person, rows in drifted.groupby(AnnotatorPace.annotator):
            details = "; ".join(rows[AnnotatorPace.detail])
            yield Alert(
                "pace",
                round_id,
                str(person),
                f"The pace of {person} differs from the rounds before: {details}.",
                f"Check the annotations: `annotation-platform round annotations {round_id}`.",
            )


def find_stalled(
    lake: Lake,
    labeling: LabelingBackend,
    seen: Mapping[str, Any],
    *,
    after: timedelta,
    now: datetime,
) -> tuple[list[Alert], dict[str, Any]]:
    """Return an alert per round without progress for ``after``, and the state for the next call.

    Args:
        lake: the lake of the rounds.
        labeling: the back end in which annotators work.
        seen: state that the previous call returned; if it is empty, every round starts to wait now.
        after: the longest time without a new annotation.
        now: time of this call.

    Raises:
        LabelingError: the back end cannot be reached.
    """
    alerts: list[Alert] = []
    waiting: dict[str, Any] = {}
    for round_id, project, role, assignments in _waiting(lake):
        if role == _REVIEWERS and labeling.progress(project).annotations >= assignments:
            # Every review is done: the round waits for its merge.
            continue
        token = labeling.change_token(project)
        known, since = seen.get(project, (token, now.isoformat()))
        if known != token:
            since = now.isoformat()
        waiting[project] = [token, since]
        if now - datetime.fromisoformat(since) >= after:
            hours = after.total_seconds() / 3600
            alerts.append(
                Alert(
                    "stalled",
                    round_id,
                    f"{role} {token}",
                    f"It waits for {role}, without a new annotation for {hours:g} hours.",
                    f"`annotation-platform round show {round_id}` shows its progress; `round "
                    f"close {round_id}` stops waiting.",
                )
            )
    return alerts, waiting


def _waiting(lake: Lake) -> Iterator[tuple[str, str, str, int]]:
    """Yield round, project, role and number of assignments of every open round that waits."""
    tables = lake.tables
    for requested, finished, role in _WAITS:
        for round_id in tables.rounds(requested):
            if tables.exists(finished, round_id):
                continue
            if RoundRecord(lake.store, round_id).state != "open":
                continue
            tasks = tables.read(requested, round_id)
            if role == _REVIEWERS:
                tasks = tasks[tasks[ReviewTasks.backend] != ""]
            if len(tasks):
                project = review_round(round_id) if role == _REVIEWERS else round_id
                yield round_id, project, role, len(tasks)
