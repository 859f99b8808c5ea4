"""The rounds that drift keeps from annotators."""

from typing import Literal

from annotation_platform.schema.tables import BatchDrift, LabelTasks
from annotation_platform.storage.round_tables import RoundTables


def held_rounds(tables: RoundTables, gate: Literal["warn", "hold"]) -> list[str]:
    """Return the rounds that drifted and are not annotated because of it, in order.

    ``gate`` is ``drift.gate`` of the policy: with ``warn`` there are none. A round whose
    ``label_tasks`` were materialised by hand all the same is not among them.
    """
    if gate == "warn":
        return []
    asked = set(tables.rounds(LabelTasks))
    seen = [key for key in tables.rounds(BatchDrift) if key not in asked]
    return [key for key in seen if tables.read(BatchDrift, key)["drifted"].any()]
