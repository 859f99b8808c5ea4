"""Whether a run is due for a cause: not while one is under way, not again after success."""

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
    """A run to ask for, or the sentence that says why there is none."""

    request: dg.RunRequest | None
    waits_for: str
    done: bool = False


def next_attempt(instance: dg.DagsterInstance, job_name: str, round_id: str, cause: str) -> Attempt:
    """Return the run of ``job_name`` that the cause makes due for a round, if any.

    The cause is a text that changes with what makes it due. It is done when the round's newest run
    of the job was for it and succeeded: a state that comes back after another one is a change
    too. A failed run is tried again after a pause of 15 s that doubles up to 15 minutes; a
    cancelled one is not.
    Dagster never runs a key twice, not even after a failure, so the key ends in the number of
    the attempt.
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
    # Where a run that went on to another job's work ended says nothing against its own.
    if run.is_success or (own and GOES_ON_TO in run.tags):
        return Attempt(None, f"{round_id}: done.", done=True)
    if run.status == dg.DagsterRunStatus.CANCELED:
        return Attempt(None, f"{round_id}: {job_name} was cancelled; launch it by hand.")
    tried = max(attempts, 1)  # by a run that went on to it, at least
    left = _pause_left(newest, tried)
    if left > 0:
        failed = f"attempt {tried} of {job_name} failed, again in {left:.0f} s"
        return Attempt(None, f"{round_id}: {failed}.")
    return due


def unless_by_hand(instance: dg.DagsterInstance, attempt: Attempt, gate: str, name: str) -> Attempt:
    """Return an attempt, or why there is none where policy leaves the launch to people.

    ``name`` is the gate's in params.yaml. What somebody launched and succeeded is done: whether it
    is due again is for them to say.
    """
    request = attempt.request
    if gate == "auto" or request is None:
        return attempt
    round_id, job_name = str(request.partition_key), str(request.job_name)
    newest = _newest(instance, job_name, round_id)
    run = newest.dagster_run if newest is not None else None
    if run is not None and run.status in UNDER_WAY:
        return Attempt(None, f"{round_id}: {job_name} is under way.")
    # One with a cause was the sensor's own, for something else.
    if run is not None and run.is_success and CAUSE not in run.tags:
        return Attempt(None, f"{round_id}: done by hand.", done=True)
    return Attempt(None, f"{round_id}: {job_name} is for somebody to launch ({name} is manual).")


def rounds_under_way(instance: dg.DagsterInstance, job_name: str) -> set[str]:
    """Return the rounds for which a run of the job waits or works."""
    runs = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=UNDER_WAY))
    return {run.tags[PARTITION] for run in runs if PARTITION in run.tags}


def _newest(instance: dg.DagsterInstance, job_name: str, round_id: str) -> dg.RunRecord | None:
    """Return the newest run for a round that was of the job, or went on to its work."""
    round_tag = {PARTITION: round_id}
    own = dg.RunsFilter(job_name=job_name, tags=round_tag)
    gone_on = dg.RunsFilter(tags={**round_tag, GOES_ON_TO: job_name})
    found = [
        record
        for filters in (own, gone_on)
        for record in instance.get_run_records(filters, limit=1)
    ]
    return max(found, key=lambda record: record.storage_id, default=None)


def _attempts(instance: dg.DagsterInstance, job_name: str, tag: str) -> int:
    """Return how often a job was asked for, for a cause; a run that went on to it was not."""
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
