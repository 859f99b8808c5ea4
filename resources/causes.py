"""The cause of a run, in its tags: the round, and a digest of the state that made it due."""

import hashlib

import dagster as dg

PARTITION = "dagster/partition"
CAUSE = "annotation/cause"
GOES_ON_TO = "annotation/goes_on_to"
"""The job whose work a run of another job does too."""
GOES_ON_FOR = "annotation/goes_on_for"
"""The cause of that further work."""


def cause_tag(round_id: str, cause: str) -> str:
    """Return the tag of the cause of a round's run; ``cause`` is a text of any length."""
    return f"{round_id}:{hashlib.sha256(cause.encode()).hexdigest()[:16]}"


def record_further_work(
    instance: dg.DagsterInstance, run_id: str, job_name: str, round_id: str, cause: str
) -> None:
    """Record in a run's tags that it does the work of another job too: no sensor requests it."""
    tags = {GOES_ON_TO: job_name, GOES_ON_FOR: cause_tag(round_id, cause)}
    instance.add_run_tags(run_id, tags)


def last_work(run: dg.DagsterRun) -> tuple[str, str]:
    """Return the job whose work a run did last, and the tag of its cause, empty if none."""
    if GOES_ON_TO in run.tags:
        return run.tags[GOES_ON_TO], run.tags.get(GOES_ON_FOR, "")
    return run.job_name, run.tags.get(CAUSE, "")
