"""Whether a run is due for a cause: not while one is under way, and not after a success."""

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from resources.causes import CAUSE, GOES_ON_FOR, GOES_ON_TO, PARTITION, cause_tag
from resources.instance import UNDER_WAY

_RUN_KEY = "dagster/run_key"
_FIRST_PAUSE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 900.0


@dataclass(frozen=True)
class Attempt:
    """A run to request, or a sentence with the reason why there is none."""

    request: dg.RunRequest | None
    waits_for: str
    done: bool = False


def next_attempt(instance: dg.DagsterInstance, job_name: str, round_id: str, cause: str) -> Attempt:
    """Return the run of ``job_name`` that the cause makes due for a round, if any.

    The cause is a text that changes with the state that makes the run due. It is done when the
    round's newest run of the job had this cause and succeeded: a state that returns after another
    one is a new change. A failed run is repeated after a pause of 15 s that doubles up to 15
    minutes; a cancelled run is not repeated. Dagster never runs a key twice, not even after a
    failure, so the key ends in the number of the attempt.
    """
    tag = cause_tag(round_id, cause)
    newest = _newest(instance, job_name, round_id)
    attempts = _attempts(instance, job_name, tag)
    due = Attempt(_request(job_name, round_id, tag, attempts + 1), "")
    if newest is None:
        return due
    run = newest.dagster_run
    if run.status in UNDER_WAY:
        return Attempt(None, f"{round_id}: {job_name} is under way.")
    own = run.job_name == job_name
    if run.tags.get(CAUSE if own else GOES_ON_FOR) != tag:
        return due
    # A run that continued with another job's work has finished its own, whatever its end.
    if run.is_success or (own and GOES_ON_TO in run.tags):
        return Attempt(None, f"{round_id}: done.", done=True)
    if run.status == dg.DagsterRunStatus.CANCELED:
        return Attempt(None, f"{round_id}: {job_name} was cancelled; launch it manually.")
    tried = max(attempts, 1)  # a run that continued with this job is an attempt too
    left = _pause_left(newest, tried)
    if left > 0:
        failed = f"attempt {tried} of {job_name} failed, next attempt in {left:.0f} s"
        return Attempt(None, f"{round_id}: {failed}.")
    return due


def unless_by_hand(instance: dg.DagsterInstance, attempt: Attempt, gate: str, name: str) -> Attempt:
    """Return an attempt, or the reason why there is none if the gate of the policy is manual.

    ``name`` is that of the gate in params.yaml. After a successful manual run the work is done,
    until it is launched manually again.
    """
    request = attempt.request
    if gate == "auto" or request is None:
        return attempt
    round_id, job_name = str(request.partition_key), str(request.job_name)
    newest = _newest(instance, job_name, round_id)
    run = newest.dagster_run if newest is not None else None
    if run is not None and run.status in UNDER_WAY:
        return Attempt(None, f"{round_id}: {job_name} is under way.")
    # A run with a cause was requested by the sensor, for another state.
    if run is not None and run.is_success and CAUSE not in run.tags:
        return Attempt(None, f"{round_id}: done manually.", done=True)
    return Attempt(None, f"{round_id}: {job_name} must be launched manually ({name} is manual).")


def rounds_under_way(instance: dg.DagsterInstance, job_name: str) -> set[str]:
    """Return the rounds for which a run of the job is queued or under way."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=UNDER_WAY))
    return {run.tags[PARTITION] for run in runs if PARTITION in run.tags}


def _newest(instance: dg.DagsterInstance, job_name: str, round_id: str) -> dg.RunRecord | None:
    """Return the newest run for a round that was of the job, or continued with its work."""
    round_tag = {PARTITION: round_id}
    own = dg.RunsFilter(job_name=job_name, tags=round_tag)
    continued = dg.RunsFilter(tags={**round_tag, GOES_ON_TO: job_name})
    found = [
        record
        for filters in (own, continued)
        for record in instance.get_run_records(filters, limit=1)
    ]
    return max(found, key=lambda record: record.storage_id, default=None)


def _attempts(instance: dg.DagsterInstance, job_name: str, tag: str) -> int:
    """Return how often a job was requested for a cause, without runs that continued with it."""
    filters = dg.RunsFilter(job_name=job_name, tags={CAUSE: tag})
    for record in instance.get_run_records(filters, limit=1):
        return int(record.dagster_run.tags.get(_RUN_KEY, ":1").rsplit(":", 1)[1])
    return 0


def _pause_left(failed: dg.RunRecord, attempts: int) -> float:
    pause = min(_FIRST_PAUSE_SECONDS * 2.0 ** min(attempts - 1, 10), _LONGEST_PAUSE_SECONDS)
    return (failed.end_time or 0.0) + pause - datetime.now(UTC).timestamp()


def _request(job_name: str, round_id: str, tag: str, attempt: int) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=f"{job_name}:{tag}:{attempt}",
        job_name=job_name,
        partition_key=round_id,
        tags={CAUSE: tag},
    )
