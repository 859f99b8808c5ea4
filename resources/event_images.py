"""Images in Dagster's stored events: small copies on the pages of assets, which outlive assets.

``python -m resources.event_images`` reads ids of images from standard input, a line each, takes
the images that show one of them out of every event, and prints how many events it changed.
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
"""Tables of Dagster's database, and their columns, that hold events as JSON."""
_IMAGE = "%data:image/jpeg;base64,%"


def clear_events(instance: dg.DagsterInstance, images: frozenset[str]) -> int:
    """Take the images that show one of the images out of all events; return how many changed.

    Without images it only asks whether runs are under way.

    Raises:
        NotReadyError: runs are under way, and could write what is taken away.
    """
    running = instance.get_run_ids(filters=dg.RunsFilter(statuses=UNDER_WAY), limit=1)
    if running:
        raise NotReadyError(
            f"Run {running[0]} is under way. Wait for it or end it, then run `annotation-platform "
            "image erase --finish`."
        )
    storage: Any = instance.event_log_storage
    if not images or not hasattr(storage, "index_connection"):
        # Without a database there are no events on disk.
        return 0
    changed = 0
    shards: list[Callable[[], AbstractContextManager[sa.Connection]]] = [storage.index_connection]
    in_files = hasattr(storage, "path_for_shard")
    if in_files:
        # There each run has a file of its own, beside the one that all share.
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
    there = set(sa.inspect(connection).get_table_names())
    changed = 0
    for table_name, name in _TEXTS:
        if table_name not in there:
            continue
        table = sa.Table(table_name, sa.MetaData(), autoload_with=connection)
        column = table.c[name]
        for row_id, text in connection.execute(
            sa.select(table.c.id, column).where(column.like(_IMAGE))
        ).fetchall():
            kept = without_images(text, images)
            if kept != text:
                update = table.update().where(table.c.id == row_id).values({name: kept})
                connection.execute(update)
                changed += 1
    return changed


def _compact(database: str) -> None:
    """Write an SQLite file anew: what was taken out of it is in pages that are free, until then."""
    with closing(sqlite3.connect(database, timeout=60)) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def main() -> int:
    """Clear the instance of this home, if there is one."""
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
