"""The context of the use cases of a round."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import Table
from annotation_platform.storage.round_tables import RoundTables


def _silent(sentence: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class RoundContext:
    """The round of a use case, the stores, the policy, the time and the actor.

    Attributes:
        round_id: the round.
        lake: tables, images, journals, and the landing zone.
        policy: the current policy.
        now: the time, UTC; use cases read no clock.
        report: receives progress messages of long steps.
        actor: who runs the use case, for the events that it records in the audit log; empty: the
            actor of the lake's access log.
    """

    round_id: str
    lake: LandingLake
    policy: Policy
    now: datetime
    report: Callable[[str], None] = _silent
    actor: str = ""

    @property
    def tables(self) -> RoundTables:
        """The tables of the lake."""
        return self.lake.tables

    def before(self, table: type[Table]) -> list[str]:
        """Return the rounds before this one that have a table, in order."""
        return [key for key in self.tables.rounds(table) if key < self.round_id]
