"""Decisions about a round: closed early, cancelled or re-opened, with actor and reason."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Literal

from annotation_platform.audit_log.events import Event
from annotation_platform.audit_log.recording import record_once
from annotation_platform.errors import LabelingError
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.objects import ObjectStore

Action = Literal["closed", "cancelled", "reopened"]
State = Literal["open", "closed", "cancelled"]

_STATE: dict[Action, State] = {"closed": "closed", "cancelled": "cancelled", "reopened": "open"}


@dataclass(frozen=True)
class Decision:
    """One decision about a round.

    ``entries`` is the number of ledger entries of the round at that time: annotations in later
    entries are late if the round was closed.
    """

    action: Action
    reason: str
    by: str
    at: datetime
    entries: int


class RoundRecord:
    """The decisions about one round, first to last; none is ever changed."""

    def __init__(self, store: ObjectStore, round_id: str) -> None:
        self._round_id = round_id
        self._journal = Journal(store, f"rounds/{round_id}/decisions")

    def read(self) -> list[Decision]:
        """Return every decision, in order."""
        found = []
        for entry in self._journal.read():
            content = json.loads(entry)
            found.append(Decision(**{**content, "at": datetime.fromisoformat(content["at"])}))
        return found

    @property
    def last(self) -> Decision | None:
        """The last decision; None if there is none."""
        return next(reversed(self.read()), None)

    @property
    def state(self) -> State:
        """Whether the round is open, closed or cancelled."""
        last = self.last
        return "open" if last is None else _STATE[last.action]

    def write(self, action: Action, *, reason: str, by: str, now: datetime, entries: int) -> None:
        """Add a decision.

        Raises:
            LabelingError: no reason is given, or the round is in that state already.
        """
        known = self.read()
        state = _STATE[known[-1].action] if known else "open"
        if not reason.strip():
            raise LabelingError(
                f"{self._round_id}: a reason is missing. Give one with --reason TEXT."
            )
        if _STATE[action] == state:
            raise LabelingError(f"{self._round_id} is {state} already; nothing was changed.")
        content = {**asdict(Decision(action, reason.strip(), by, now, entries))}
        content["at"] = now.isoformat()
        line = json.dumps(content, ensure_ascii=False) + "\n"
        if not self._journal.create(len(known) + 1, line.encode()):
            raise LabelingError(
                f"{self._round_id}: another decision was recorded at the same time. Run"
                " `annotation-platform status` and try again."
            )


def record_decisions(round_id: str, lake: Lake, *, now: datetime) -> None:
    """Record new decisions about a round: closed, cancelled, re-opened."""
    decisions = RoundRecord(lake.store, round_id).read()
    events = {
        f"decision {number}": Event(
            "round",
            round_id,
            each.reason,
            each.by,
            {"decision": each.action, "decided_at": each.at.isoformat()},
        )
        for number, each in enumerate(decisions, start=1)
    }
    record_once(f"rounds/{round_id}/noted", events, lake, now=now)


def cancelled_rounds(store: ObjectStore, rounds: Iterable[str]) -> dict[str, str]:
    """Return the cancelled rounds among ``rounds``, each with actor and reason."""
    found = {}
    for round_id in rounds:
        last = RoundRecord(store, round_id).last
        if last is not None and last.action == "cancelled":
            found[round_id] = f"cancelled by {last.by}: {last.reason}"
    return found
