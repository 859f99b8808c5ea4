"""The rounds that are held back from annotators because of drift."""

from typing import Literal

from annotation_platform.schema.tables import BatchDrift, LabelTasks
from annotation_platform.storage.round_tables import RoundTables


def held_rounds(tables: RoundTables, gate: Literal["warn", "hold"]) -> list[str]:
    """Return the rounds that are not annotated because they drifted, in order.

    ``gate`` is ``drift.gate`` of the policy: with ``warn`` the list is empty. A round whose
    ``label_tasks`` were materialised by hand is not in it.
    """
    if gate == "warn":
        return []
    started = set(tables.rounds(LabelTasks))
    waiting = [key for key in tables.rounds(BatchDrift) if key not in started]
    return [key for key in waiting if tables.read(BatchDrift, key)[BatchDrift.drifted].any()]
