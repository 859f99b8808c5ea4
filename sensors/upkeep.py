"""Schedules of maintenance jobs."""

import dagster as dg

from assets import jobs

verify_weekly = dg.ScheduleDefinition(
    name="verify_weekly",
    job=jobs.verify_versions,
    cron_schedule="17 3 * * 0",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Reads every version in the remote on Sundays; turn it off if egress is charged.",
)
