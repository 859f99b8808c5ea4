"""Erasure of images from Dagster's stored events, which hold thumbnails of asset pages.

``python -m resources.event_images`` reads image ids from standard input, one per line, removes
their thumbnails from every event, and prints the number of changed events.
"""

import os
import sqlite3
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa

from annotation_platform.errors import NotReadyError
from annotation_platform.reporting.previews import without_images
from annotation_platform.settings import read_settings
from resources.instance import UNDER_WAY

_TEXTS = (
    ("event_logs", "event"),
    ("asset_keys", "last_materialization"),
    ("asset_check_executions", "evaluation_event"),
)
"""Tables and columns of Dagster's database that hold events as JSON."""
_IMAGE = "%data:image/jpeg;base64,%"


def clear_events(instance: dg.DagsterInstance, images: frozenset[str]) -> int:
    """Remove the thumbnails of these images from all events; return the number of changed events.

    With no images it only checks that no run is under way.

    Raises:
        NotReadyError: a run is under way, and could write such thumbnails again.
    """
    running = instance.get_run_ids(filters=dg.RunsFilter(statuses=UNDER_WAY), limit=1)
    if running:
        raise NotReadyError(
            f"Run {running[0]} is under way. Wait for it or end it, then run `annotation-platform "
            "image erase --finish`."
        )
    storage: Any = instance.event_log_storage
    if not images or not hasattr(storage, "index_connection"):
        # A storage without a database has no events on disk.
        return 0
    changed = 0
    shards: list[Callable[[], AbstractContextManager[sa.Connection]]] = [storage.index_connection]
    in_files = hasattr(storage, "path_for_shard")
    if in_files:
        # SQLite storage has a file for each run, in addition to the shared index.
        shards += [partial(storage.run_connection, run_id) for run_id in instance.get_run_ids()]
    for connect in shards:
        with connect() as connection:
            cleared = _clear_shard(connection, images)
            url = connection.engine.url
        if cleared and in_files and url.database:
            _compact(url.database)
        changed += cleared
    return changed


def _clear_shard(connection: sa.Connection, images: frozenset[str]) -> int:
    existing = set(sa.inspect(connection).get_table_names())
    changed = 0
    for table_name, name in _TEXTS:
        if table_name not in existing:
            continue
        table = sa.Table(table_name, sa.MetaData(), autoload_with=connection)
        column = table.c[name]
        for row_id, text in connection.execute(
            sa.select(table.c.id, column).where(column.like(_IMAGE))
        ).fetchall():
            cleared = without_images(text, images)
            if cleared != text:
                update = table.update().where(table.c.id == row_id).values({name: cleared})
                connection.execute(update)
                changed += 1
    return changed


def _compact(database: str) -> None:
    """Rewrite an SQLite file: until then, deleted contents remain in its free pages."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def main() -> int:
    """Clear the events of this home's Dagster instance, if there is one."""
    images = frozenset(sys.stdin.read().split())
    home = Path(os.environ.get("DAGSTER_HOME") or read_settings().home_path / "dagster")
    if not home.is_dir():
        print(0)
        return 0
    with dg.DagsterInstance.from_config(str(home)) as instance:
        try:
            print(clear_events(instance, images))
        except NotReadyError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
