"""What was done by hand in a round, and how long that took."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from annotation_platform.ingestion.quarantine import releases
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.schema.tables import HumanLabels
from annotation_platform.storage.lake import Lake

_NO_LABELS = ("none", "unsure")


@dataclass(frozen=True)
class ManualEffort:
    """What was done by hand in one stage: how often, and for how long where that is known."""

    stage: str
    touches: int
    minutes: float  # not a number: nobody measured it


def manual_effort_of(lake: Lake, round_id: str) -> list[ManualEffort]:
    """Return what people did in each stage. Landing, cleaning, release and training ask nobody."""
    said = lake.tables.read_rounds(HumanLabels, [round_id]).drop_duplicates("annotation_id")
    decided = AnnotationsLedger(lake.store).read(review_round(round_id))
    put_back = sum(one.round_id == round_id for one in releases(lake.store))
    decisions = RoundRecord(lake.store, round_id).read()
    reviewing = [one.submission.lead_time_seconds for one in decided]
    return [
        ManualEffort("put back from quarantine", put_back, math.nan),
        ManualEffort("annotations", len(said), _minutes(said["lead_time_seconds"].tolist())),
        ManualEffort("reviews", len(decided), _minutes(reviewing)),
        ManualEffort("closed, cancelled or reopened", len(decisions), math.nan),
    ]


def minutes_of(manual_effort: Sequence[ManualEffort]) -> float:
    """Return the minutes of all stages together; not a number where nobody measured any."""
    known = [each.minutes for each in manual_effort if not math.isnan(each.minutes)]
    return sum(known) if known else math.nan


def published_labels(reviewed: pd.DataFrame) -> int:
    """Return how many of ``reviewed_labels`` may be published: they stand, and name a class."""
    stands = ~reviewed["decision"].isin(["rejected", "undecided"])
    return int((stands & ~reviewed["shape"].isin(_NO_LABELS)).sum())


def _minutes(seconds: Sequence[float | None]) -> float:
    known = [each for each in seconds if each is not None and not math.isnan(each)]
    return sum(known) / 60 if known else math.nan
