"""What a run is for, in its tags: the round, and a digest of what made it due."""

import hashlib

import dagster as dg

PARTITION = "dagster/partition"
CAUSE = "annotation/cause"
GOES_ON_TO = "annotation/goes_on_to"
"""The job whose work a run of another one took on as well."""
GOES_ON_FOR = "annotation/goes_on_for"
"""The cause of that further work."""


def cause_tag(round_id: str, cause: str) -> str:
    """Return what stands in a run's tags for a cause, a text of any length, of a round's run."""
    return f"{round_id}:{hashlib.sha256(cause.encode()).hexdigest()[:16]}"


def goes_on(
    instance: dg.DagsterInstance, run_id: str, job_name: str, round_id: str, cause: str
) -> None:
    """Note that a run does the work of another job too, so that no sensor asks for it."""
    tags = {GOES_ON_TO: job_name, GOES_ON_FOR: cause_tag(round_id, cause)}
    instance.add_run_tags(run_id, tags)


def last_work(run: dg.DagsterRun) -> tuple[str, str]:
    """Return the job whose work a run did last, and the tag of its cause; empty if it has none."""
    if GOES_ON_TO in run.tags:
        return run.tags[GOES_ON_TO], run.tags.get(GOES_ON_FOR, "")
    return run.job_name, run.tags.get(CAUSE, "")
