"""What a tick returns."""

import json
from collections.abc import Mapping, Sequence

import dagster as dg

from assets.partitions import rounds
from sensors.attempts import Attempt


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
