"""Dagster's storage on one machine, before its servers start: ``python -m resources.instance``."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from alembic.util import CommandError

from annotation_platform.errors import AnnotationPlatformError, SettingsError

_IN_A_PROCESS = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
UNDER_WAY = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED, *_IN_A_PROCESS]
"""The states of a run that is not finished."""

_DATABASES = ["history", "schedules"]


def upgrade_storage(instance: dg.DagsterInstance, *, now: datetime) -> Path | None:
    """Migrate Dagster's tables to the schema of this Dagster version, after a backup.

    Returns:
        The backup, in ``backups`` of the instance's folder; None if no change was needed, or if
        the tables are in a database server, whose owner makes the backups.

    Raises:
        SettingsError: a newer Dagster wrote the tables; nothing was changed.
    """
    storages = [instance.run_storage, instance.event_log_storage, instance.schedule_storage]
    revisions = [each.alembic_version() for each in storages if each is not None]
    outdated = any(found and found[0] and found[0] != found[1] for found in revisions)
    copy = _copy(Path(instance.root_directory), now) if outdated else None
    try:
        instance.upgrade()
    except CommandError as error:
        shutil.rmtree(copy or "", ignore_errors=True)
        raise SettingsError(
            f"{instance.root_directory}: its tables were written by another Dagster version than "
            f"{dg.__version__} ({error}). Nothing was changed: install the version that wrote "
            "them, or set ANNOTATION_HOME to another folder."
        ) from error
    return copy


def end_dead_runs(instance: dg.DagsterInstance) -> int:
    """Report runs whose process has ended as failed, and return their number.

    It may be called only while no server is up. Runs are child processes of the servers, so a run
    that is recorded as under way was killed with them. Dagster's default launcher cannot detect
    that: the run would hold its pool forever, and block every run that waits for it.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=_IN_A_PROCESS))
    for record in records:
        run = record.dagster_run
        instance.report_run_failed(run, "Its process was killed together with the servers.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(records)


def _copy(folder: Path, now: datetime) -> Path | None:
    present = [folder / name for name in _DATABASES if (folder / name).is_dir()]
    if not present:
        return None
    copy = folder / "backups" / now.astimezone(UTC).strftime("%Y-%m-%dT%H%M%SZ")
    for each in present:
        shutil.copytree(each, copy / each.name)
    return copy


if __name__ == "__main__":
    with dg.DagsterInstance.get() as own:
        try:
            backup = upgrade_storage(own, now=datetime.now(UTC))
        except AnnotationPlatformError as error:
            sys.exit(str(error))
        if backup:
            print(f"Dagster's tables were migrated; the backup of the old tables is in {backup}.")
        end_dead_runs(own)
