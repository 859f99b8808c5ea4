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
"""The states of a run that may still do something."""

_DATABASES = ["history", "schedules"]


def upgrade_storage(instance: dg.DagsterInstance, *, now: datetime) -> Path | None:
    """Bring Dagster's tables to the form this Dagster knows, having copied older ones.

    Returns:
        The copy, in ``backups`` of the instance's folder; None where nothing had to be changed, or
        the tables are in a server's database, of which copies are its owner's to make.

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
            f"{instance.root_directory}: its tables were written by another Dagster than "
            f"{dg.__version__} ({error}). Nothing was changed: install the version that wrote "
            "them, or set ANNOTATION_HOME to another folder."
        ) from error
    return copy


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
            kept = upgrade_storage(own, now=datetime.now(UTC))
        except AnnotationPlatformError as error:
            sys.exit(str(error))
        if kept:
            print(f"Dagster's tables were brought up to date; as they were, they are in {kept}.")
        end_dead_runs(own)
