"""Dagster's storage on one machine, before its servers start: ``python -m resources.instance``."""

import dagster as dg

_IN_A_PROCESS = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def end_dead_runs(instance: dg.DagsterInstance) -> int:
    """Report as failed the runs that nobody runs any more, and return how many there were.

    To be called while no server is up. A run lives in a child of the servers, so one that is
    still under way by the books was killed with them. Dagster's default launcher cannot notice
    that: such a run would hold its pool, and whatever waits for it, for ever.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=_IN_A_PROCESS))
    for record in records:
        run = record.dagster_run
        instance.report_run_failed(run, "Its process was killed together with the servers.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(records)


if __name__ == "__main__":
    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
        end_dead_runs(instance)
