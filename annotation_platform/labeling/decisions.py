"""Decisions about a round that need no back end: cancel it, re-open it."""

from datetime import datetime

from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.round_decisions import Action, RoundRecord, record_decisions
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.storage.lake import Lake


def decide_round(
    round_id: str, action: Action, reason: str, by: str, lake: Lake, *, now: datetime
) -> None:
    """Record a decision about a round, in its own record and in the audit log.

    Raises:
        NotReadyError: the round has no tasks yet.
        LabelingError: there is no reason, or the round is in that state already.
    """
    lake.tables.read(LabelTasks, round_id)
    RoundRecord(lake.store, round_id).write(
        action,
        reason=reason,
        by=by,
        now=now,
        entries=AnnotationsLedger(lake.store).entries(round_id),
    )
    record_decisions(round_id, lake, now=now)
