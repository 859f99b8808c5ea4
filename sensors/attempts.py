"""Whether a run is due for a cause: not while one is under way, not again after success."""

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

CAUSE = "annotation/cause"
_UNDER_WAY = {
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
}
_FIRST_PAUSE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 900.0


@dataclass(frozen=True)
class Attempt:
    """A run to ask for, or the sentence that says why there is none."""

    request: dg.RunRequest | None
    waits_for: str
    done: bool = False


def next_attempt(instance: dg.DagsterInstance, job_name: str, round_id: str, cause: str) -> Attempt:
    """Return the run of ``job_name`` that the cause makes due for a round, if any.

    The cause is a digest of what changed, and the run key is made of it and the number of the
    attempt: Dagster never runs a key twice, not even after a failure. A failed run is tried again
    after a pause of 15 s that doubles up to 15 minutes; a cancelled one is not.
    """
    tag = f"{round_id}:{cause[:16]}"
    filters = dg.RunsFilter(job_name=job_name, tags={CAUSE: tag})
    records = instance.get_run_records(filters, limit=50)
    statuses = [record.dagster_run.status for record in records]
    if dg.DagsterRunStatus.SUCCESS in statuses:
        return Attempt(None, f"{round_id}: done.", done=True)
    if _UNDER_WAY & set(statuses):
        return Attempt(None, f"{round_id}: {job_name} is under way.")
    if statuses and statuses[0] == dg.DagsterRunStatus.CANCELED:
        return Attempt(None, f"{round_id}: {job_name} was cancelled; launch it by hand.")
    failures = len(statuses)
    if failures:
        ended = records[0].end_time or 0.0
        pause = min(_FIRST_PAUSE_SECONDS * 2 ** (failures - 1), _LONGEST_PAUSE_SECONDS)
        left = ended + pause - datetime.now(UTC).timestamp()
        if left > 0:
            return Attempt(
                None, f"{round_id}: {job_name} failed {failures} times, again in {left:.0f} s."
            )
    request = dg.RunRequest(
        run_key=f"{job_name}:{tag}:{failures + 1}", partition_key=round_id, tags={CAUSE: tag}
    )
    return Attempt(request, "")
