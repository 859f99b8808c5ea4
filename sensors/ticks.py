"""What a tick returns."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import dagster as dg

from annotation_platform.labeling.change_signals import PollSchedule
from assets.partitions import rounds
from sensors.attempts import Attempt


def not_due(looks: PollSchedule, looked_at: str | None, now: datetime) -> dg.SkipReason | None:
    """Return why people's answers are not looked at now, from the cursor's time of the last look.

    None if a look is due.
    """
    if looks.due(now, datetime.fromisoformat(looked_at) if looked_at else None):
        return None
    return dg.SkipReason(f"Looked at {looked_at}; nobody has hinted at anything new since.")


def tick_result(
    attempts: Sequence[Attempt],
    *,
    idle: str,
    cursor: Mapping[str, object],
    new_partitions: Sequence[str] = (),
) -> dg.SensorResult | dg.SkipReason:
    """Return the runs that are due, with the partitions they need; else why there are none.

    The cursor says what the tick saw: people can read it, and a lost one does no harm.
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
