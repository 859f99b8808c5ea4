"""Whether a run is due for a cause: not while one is under way, not again after success."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from resources.instance import UNDER_WAY

CAUSE = "annotation/cause"
PARTITION = "dagster/partition"
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
    tag = f"{round_id}:{hashlib.sha256(cause.encode()).hexdigest()[:16]}"
    newest = _newest(instance, job_name, {PARTITION: round_id})
    before = _newest(instance, job_name, {CAUSE: tag})
    attempts = 0 if before is None else _attempt_number(before)
    due = Attempt(_request(job_name, round_id, tag, attempts + 1), "")
    if newest is None:
        return due
    status = newest.dagster_run.status
    if status in UNDER_WAY:
        return Attempt(None, f"{round_id}: {job_name} is under way.")
    if newest.dagster_run.tags.get(CAUSE) != tag:
        return due
    if status == dg.DagsterRunStatus.SUCCESS:
        return Attempt(None, f"{round_id}: done.", done=True)
    if status == dg.DagsterRunStatus.CANCELED:
        return Attempt(None, f"{round_id}: {job_name} was cancelled; launch it by hand.")
    left = _pause_left(newest, attempts)
    if left > 0:
        failed = f"attempt {attempts} of {job_name} failed, again in {left:.0f} s"
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
    newest = _newest(instance, job_name, {PARTITION: round_id})
    run = newest.dagster_run if newest is not None else None
    if run is not None and run.status in UNDER_WAY:
        return Attempt(None, f"{round_id}: {job_name} is under way.")
    # One with a cause was the sensor's own, for something else.
    if run is not None and run.is_success and CAUSE not in run.tags:
        return Attempt(None, f"{round_id}: done by hand.", done=True)
    return Attempt(None, f"{round_id}: {job_name} is for somebody to launch ({name} is manual).")


def _newest(
    instance: dg.DagsterInstance, job_name: str, tags: dict[str, str]
) -> dg.RunRecord | None:
    filters = dg.RunsFilter(job_name=job_name, tags=tags)
    return next(iter(instance.get_run_records(filters, limit=1)), None)


def _attempt_number(record: dg.RunRecord) -> int:
    return int(record.dagster_run.tags.get(_RUN_KEY, ":1").rsplit(":", 1)[1])


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
