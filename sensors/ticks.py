"""The results of sensor ticks."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from annotation_platform.labeling.change_signals import PollSchedule
from assets.partitions import rounds
from sensors.attempts import Attempt


def not_due(schedule: PollSchedule, polled_at: str | None, now: datetime) -> dg.SkipReason | None:
    """Return why the back end is not polled now, or None if a poll is due.

    ``polled_at`` is the time of the last poll in the cursor.
    """
    if schedule.due(now, datetime.fromisoformat(polled_at) if polled_at else None):
        return None
    return dg.SkipReason(f"Polled at {polled_at}; no change signal since then.")


def tick_result(
    attempts: Sequence[Attempt],
    *,
    idle: str,
    cursor: Mapping[str, object],
    new_partitions: Sequence[str] = (),
) -> dg.SensorResult | dg.SkipReason:
    """Return the runs that are due, with the partitions they need; else the reasons to skip.

    The cursor records the observed state in readable form; a lost cursor does no harm.
    """
    requests = [attempt.request for attempt in attempts if attempt.request is not None]
    partitions = [rounds.build_add_request(list(new_partitions))] if new_partitions else []
    text = json.dumps(cursor, sort_keys=True)
    if requests or partitions:
        return dg.SensorResult(
            run_requests=requests, dynamic_partitions_requests=partitions, cursor=text
        )
    sentences = [attempt.waits_for for attempt in attempts if not attempt.done]
    return dg.SensorResult(skip_reason=dg.SkipReason(" ".join([*sentences, idle])), cursor=text)
