"""One Dagster job, run to its end: ``python -m resources.run_job JOB [ROUND]``.

``annotation_platform.servers.jobs.run_job`` starts it. The run is recorded in the Dagster instance
of this home, so sensors and the UI treat it like a run launched in the UI.
"""

import os
import sys
from pathlib import Path

import dagster as dg

from annotation_platform.definitions import defs
from annotation_platform.errors import AnnotationPlatformError, NotReadyError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.settings import Settings, read_settings
from resources.causes import PARTITION
from resources.instance import UNDER_WAY

_ROUNDS = "rounds"
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run_job(name: str, round_id: str, instance: dg.DagsterInstance, settings: Settings) -> None:
    """Run a job in this process.

    Args:
        name: the job, such as ``merge_round``.
        round_id: the round; empty for a job without partitions.
        instance: records the run.
        settings: of the deployment.

    Raises:
        NotReadyError: the round does not exist, another run of it is under way, or a check failed.
        AnnotationPlatformError: a step failed with it.
    """
    if round_id:
        _prepare_round(round_id, instance, settings)
    try:
        defs.resolve_job_def(name).execute_in_process(
            instance=instance, partition_key=round_id or None, run_config=_QUIET
        )
    except dg.DagsterError as error:
        raise NotReadyError(" ".join(str(error).split())) from error
    except dg.Failure as error:
        raise NotReadyError(str(error.description)) from error


def _prepare_round(round_id: str, instance: dg.DagsterInstance, settings: Settings) -> None:
    if round_id not in lake_of(settings).manifests.rounds():
        raise NotReadyError(
            f"{round_id} does not exist. `annotation-platform status` lists the rounds."
        )
    filters = dg.RunsFilter(tags={PARTITION: round_id}, statuses=UNDER_WAY)
    for record in instance.get_run_records(filters, limit=1):
        run = record.dagster_run
        raise NotReadyError(
            f"{round_id}: run {run.run_id[:8]} of {run.job_name} is under way. Wait for it, or "
            "terminate it in the Dagster UI; `annotation-platform up` ends runs whose process died."
        )
    instance.add_dynamic_partitions(_ROUNDS, [round_id])


def main() -> int:
    """Run the job that the command line names; return 2 after an error, printed as one line."""
    name, round_id, *_ = [*sys.argv[1:], ""]
    settings = read_settings()
    folder = Path(os.environ.get("DAGSTER_HOME") or settings.home_path / "dagster")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        try:
            run_job(name, round_id, instance, settings)
        except AnnotationPlatformError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
