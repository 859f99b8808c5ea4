"""What is wrong with rounds: they have drifted, somebody's pace has, or nobody goes on."""

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

_LOOKED_AT = 3
"""So many of the newest rounds are looked at: others were when they were new."""

_REVIEWERS = "reviewers"
_WAITS: list[tuple[type[Table], type[Table], str]] = [
    (LabelTasks, ConsensusLabels, "people"),
    (ReviewTasks, ReviewedLabels, _REVIEWERS),
]


def find_drift(lake: Lake) -> Iterator[Alert]:
    """Yield the newest rounds whose images, or whose people's pace, are not as before."""
    for round_id in lake.tables.rounds(BatchDrift)[-_LOOKED_AT:]:
        found = lake.tables.read(BatchDrift, round_id)
        found = found[found["drifted"]]
        if len(found):
            told = "; ".join(f"{row.feature}: {row.detail}" for row in found.itertuples())
            yield Alert(
                "drift",
                round_id,
                ",".join(sorted(found["feature"])),
                f"Its images are unlike those before: {told}.",
                "Look at batch_drift in the Dagster UI; `drift.gate: hold` keeps such rounds "
                "from people until somebody has.",
            )
    for round_id in lake.tables.rounds(AnnotatorPace)[-_LOOKED_AT:]:
        found = lake.tables.read(AnnotatorPace, round_id)
        for person, rows in found[found["drifted"]].groupby("annotator"):
            told = "; ".join(rows["detail"])
            yield Alert(
                "pace",
                round_id,
                str(person),
                f"{person} took another time than in the rounds before: {told}.",
                f"Look at their answers: `annotation-platform round annotations {round_id}`.",
            )


def find_stalled(
    lake: Lake,
    labeling: LabelingBackend,
    seen: Mapping[str, Any],
    *,
    after: timedelta,
    now: datetime,
) -> tuple[list[Alert], dict[str, Any]]:
    """Return the rounds in which nobody has said anything for so long, and what was seen.

    Args:
        lake: where the rounds are.
        labeling: where people answer.
        seen: what the look before saw; without it every round has just begun to wait.
        after: how long nobody may say anything.
        now: the moment of this look.

    Raises:
        LabelingError: the back end cannot be asked.
    """
    alerts: list[Alert] = []
    waiting: dict[str, Any] = {}
    for round_id, name, who, places in _waiting(lake):
        if who == _REVIEWERS and labeling.progress(name).annotations >= places:
            # Everything is reviewed: it waits for something else.
            continue
        stamp = labeling.change_token(name)
        known, since = seen.get(name, (stamp, now.isoformat()))
        if known != stamp:
            since = now.isoformat()
        waiting[name] = [stamp, since]
        if now - datetime.fromisoformat(since) >= after:
            hours = after.total_seconds() / 3600
            alerts.append(
                Alert(
                    "stalled",
                    round_id,
                    f"{who} {stamp}",
                    f"It waits for {who}, and nobody has said anything for {hours:g} hours.",
                    f"`annotation-platform round show {round_id}` says how far it is; `round "
                    f"close {round_id}` stops waiting.",
                )
            )
    return alerts, waiting


def _waiting(lake: Lake) -> Iterator[tuple[str, str, str, int]]:
    """Yield the open rounds that wait, as the back end calls them, for whom, and the places."""
    tables = lake.tables
    for asked, annotated, who in _WAITS:
        for round_id in tables.rounds(asked):
            if tables.exists(annotated, round_id):
                continue
            if RoundRecord(lake.store, round_id).state != "open":
                continue
            tasks = tables.read(asked, round_id)
            if who == _REVIEWERS:
                tasks = tasks[tasks["backend"] != ""]
            if len(tasks):
                name = review_round(round_id) if who == _REVIEWERS else round_id
                yield round_id, name, who, len(tasks)
