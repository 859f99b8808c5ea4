"""Tables of earlier rounds that a round waits for."""

from collections.abc import Collection
from typing import TypeVar

from annotation_platform.errors import NotReadyError
from annotation_platform.ingestion.rounds import RoundManifests
from annotation_platform.schema.tables import Frame, Table
from annotation_platform.storage.lake import Lake

T = TypeVar("T", bound=Table)


def earlier_rounds(
    table: type[T], round_id: str, lake: Lake, *, without: Collection[str] = ()
) -> Frame[T]:
    """Return a table of all rounds before this one; NotReadyError if one lacks it.

    The contents of a round depend on those of earlier rounds, so rounds are processed in order.
    Rounds in ``without`` may lack the table.
    """
    before = [key for key in RoundManifests(lake.store).rounds() if key < round_id]
    for key in before:
        if not lake.tables.exists(table, key) and key not in without:
            raise NotReadyError(
                f"{round_id} waits for {table.table_name} of {key}: "
                f"run start_round for {key} first."
            )
    return lake.tables.read_rounds(table, before)
