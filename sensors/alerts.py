"""Alerts: failed runs and checks, drift, and stalled rounds."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.monitoring.alert import Alert, raise_alerts
from annotation_platform.monitoring.channels import LogChannel
from annotation_platform.monitoring.rounds import find_drift, find_stalled
from annotation_platform.storage.lake import Lake
from assets import checks
from resources.alerting import Alerting
from resources.causes import PARTITION, last_work

_NEWEST = 50
_RECENT = timedelta(days=1)
_NEWEST_OF_A_CHECK = 50
_FAILED = "FAILED"
_CHECKS = [key for each in dg.load_asset_checks_from_modules([checks]) for key in each.check_keys]


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends one alert for each failed run or check, drift and stalled round.",
)
def failure_sensor(
    context: dg.SensorEvaluationContext,
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[Lake],
    alerting: dg.ResourceParam[Alerting],
) -> dg.SensorResult:
    """Send one alert for each problem; repeated attempts of a run are one problem.

    Problems older than a day cause no alert, so a new channel does not receive the history.
    The cursor stores since when each round waits.
    """
    now = datetime.now(UTC)
    seen = json.loads(context.cursor) if context.cursor else {}
    since, instance = now - _RECENT, context.instance
    found = [*_failed_runs(instance, since), *_failed_checks(instance, since), *find_drift(lake)]
    try:
        stalled, seen = find_stalled(
            lake, labeling, seen, after=timedelta(hours=alerting.stalled_hours), now=now
        )
        found += stalled
    except LabelingError as error:
        context.log.info(f"Stalled rounds cannot be detected now: {error}")
    channels = [LogChannel(context.log.warning), *alerting.channels]
    sent, problems = raise_alerts(found, channels, lake.store, now=now)
    for problem in problems:
        context.log.error(f"An alert was not sent, and will be sent again: {problem}")
    sentences = [f"{each.subject}: {each.sentence}" for each in sent]
    summary = " ".join(sentences) or "Nothing new."
    return dg.SensorResult(skip_reason=dg.SkipReason(summary), cursor=json.dumps(seen))


def _failed_runs(instance: dg.DagsterInstance, since: datetime) -> Iterator[Alert]:
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], created_after=since)
    for run in instance.get_runs(filters, limit=_NEWEST):
        round_id = run.tags.get(PARTITION, "")
        job_name, cause = last_work(run)
        yield Alert(
            "run",
            round_id or job_name,
            f"{job_name} {cause or run.run_id}",
            f"{job_name} failed (run {run.run_id[:8]}).",
            "Its page in the Dagster UI has the error."
            + (" A sensor repeats the run." if cause else ""),
        )


def _failed_checks(instance: dg.DagsterInstance, since: datetime) -> Iterator[Alert]:
    for key in _CHECKS:
        for record in instance.event_log_storage.get_asset_check_execution_history(
            key, limit=_NEWEST_OF_A_CHECK
        ):
            check = record.evaluation
            if record.status.value != _FAILED or record.create_timestamp < since.timestamp():
                continue
            if check is None or check.severity is not dg.AssetCheckSeverity.ERROR:
                continue
            run = instance.get_run_by_id(record.run_id)
            round_id = run.tags.get(PARTITION, "") if run else ""
            cause = last_work(run)[1] if run else ""
            yield Alert(
                "check",
                round_id or record.partition or key.asset_key.to_user_string(),
                f"{key.to_user_string()} {cause or record.run_id}",
                f"{key.name} of {key.asset_key.to_user_string()} does not hold: "
                f"{check.description or 'see the numbers in its metadata.'}",
                "Its page in the Dagster UI has the numbers and the remedy.",
            )
