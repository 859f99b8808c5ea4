"""Rewriting a lake of an older release in place.

A migration is a list of steps. Each step lists the objects that it has to rewrite and rewrites
them one by one, each in one atomic write. What is done is no longer listed, so a migration that
was stopped is finished by running it again, and a second run changes nothing.
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
    """One object to be rewritten: its key, and what changes, as a phrase."""

    key: str
    about: str
    apply: Callable[[], None]


def pending_changes(store: ObjectStore) -> list[Change]:
    """Return what a migration of the lake would rewrite, in order; nothing if it is of today.

    Raises:
        TableError: a newer release wrote into the lake.
    """
    return [change for step in STEPS for change in step(store)]


def migrate(store: ObjectStore, *, progress: Progress = lambda _done, _total: None) -> list[Change]:
    """Rewrite what an older release wrote, and return what was rewritten.

    Everything is listed first, so a lake that a newer release wrote is refused unchanged. Nothing
    else may write to the lake meanwhile.

    Args:
        store: the lake's objects.
        progress: takes the number of objects that are done, and of all.
    """
    changes = pending_changes(store)
    for done, change in enumerate(changes):
        progress(done, len(changes))
        change.apply()
    progress(len(changes), len(changes))
    return changes


def _tables(store: ObjectStore) -> Iterator[Change]:
    """Yield the tables with an older schema version, or in the folder of an old name.

    The bytes that lineage knows a table by are kept under their digest before it is rewritten.
    """
    place, root = store.arrow_place()
    for table in TABLES.values():
        for name in (table.table_name, *table.old_names):
            for key in store.list(f"tables/{name}"):
                if not key.endswith(".parquet"):
                    continue
                metadata = pq.read_schema(f"{root}/{key}", filesystem=place).metadata
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
