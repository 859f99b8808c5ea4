"""Migration of a lake of an older release, in place.

A migration is a list of steps. Each step lists the objects that it has to rewrite and rewrites
them one by one, each in one atomic write. Rewritten objects are no longer listed, so a migration
that was stopped is completed by running it again, and a second run changes nothing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq

from annotation_platform.schema.tables import TABLES, Table
from annotation_platform.storage.lineage import Lineage
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.round_tables import table_key
from annotation_platform.storage.table_files import (
    content_digest,
    migrated_bytes,
    refuse_newer,
    schema_version,
)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Change:
    """One object to be rewritten: its key, a description of the change, and the change itself."""

    key: str
    about: str
    apply: Callable[[], None]


def pending_changes(store: ObjectStore) -> list[Change]:
    """Return what a migration of the lake would rewrite, in order; empty for a current lake.

    Raises:
        TableError: the lake has data of a newer release.
    """
    return [change for step in STEPS for change in step(store)]


def migrate(store: ObjectStore, *, progress: Progress = lambda _done, _total: None) -> list[Change]:
    """Rewrite the objects of older releases, and return the changes.

    All objects are listed first, so a lake with data of a newer release is refused unchanged. No
    other process may write to the lake during a migration.

    Args:
        store: the lake's objects.
        progress: called with the number of rewritten objects and the number of all.
    """
    changes = pending_changes(store)
    for done, change in enumerate(changes):
        progress(done, len(changes))
        change.apply()
    progress(len(changes), len(changes))
    return changes


def _tables(store: ObjectStore) -> Iterator[Change]:
    """Yield the tables with an older schema version, or in the folder of an old name.

    The bytes whose digest lineage records are stored under that digest before the rewrite.
    """
    filesystem, root = store.arrow_filesystem()
    for table in TABLES.values():
        for name in (table.table_name, *table.old_names):
            for key in store.list(f"tables/{name}"):
                if not key.endswith(".parquet"):
                    continue
                metadata = pq.read_schema(f"{root}/{key}", filesystem=filesystem).metadata
                refuse_newer(table, metadata, where=key)
                version = schema_version(metadata)
                if version < table.schema_version or name != table.table_name:
                    yield _table_change(store, table, key, version)


def _table_change(store: ObjectStore, table: type[Table], key: str, version: int) -> Change:
    round_id = key.rsplit("/", 1)[1].removesuffix(".parquet")
    target = table_key(table.table_name, round_id)

    def apply() -> None:
        data, lineage = store.get(key), Lineage(store)
        if not lineage.holds(content_digest(data)):
            lineage.keep(data)
        if target == key or not store.exists(target):
            store.put(target, migrated_bytes(table, data, where=key))
        if target != key:
            store.remove(key)

    about = f"schema version {version} to {table.schema_version}"
    return Change(key, about if target == key else f"{about}, renamed to {target}", apply)


STEPS: tuple[Callable[[ObjectStore], Iterator[Change]], ...] = (_tables,)
"""The steps of a migration, in order."""
