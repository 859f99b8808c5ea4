"""The manual effort of a round: actions and minutes per stage."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from annotation_platform.ingestion.quarantine import releases
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.schema.tables import Frame, HumanLabels, ReviewedLabels
from annotation_platform.schema.tables.shared import ReviewDecision
from annotation_platform.storage.lake import Lake

_NO_LABELS = ("none", "unsure")


@dataclass(frozen=True)
class ManualEffort:
    """The manual actions in one stage, and the minutes where they were measured."""

    stage: str
    actions: int
    minutes: float  # NaN if not measured


def manual_effort_of(lake: Lake, round_id: str) -> list[ManualEffort]:
    """Return the effort per stage; landing, cleaning, release and training need none."""
    labels = lake.tables.read_rounds(HumanLabels, [round_id])
    annotations = labels.drop_duplicates(HumanLabels.annotation_id)
    annotating = annotations[HumanLabels.lead_time_seconds].tolist()
    reviews = AnnotationsLedger(lake.store).read(review_round(round_id))
    reviewing = [one.submission.lead_time_seconds for one in reviews]
    restored = sum(one.round_id == round_id for one in releases(lake.store))
    decisions = RoundRecord(lake.store, round_id).read()
    return [
        ManualEffort("restored from quarantine", restored, math.nan),
        ManualEffort("annotations", len(annotations), _minutes(annotating)),
        ManualEffort("reviews", len(reviews), _minutes(reviewing)),
        ManualEffort("closed, cancelled or reopened", len(decisions), math.nan),
    ]


def minutes_of(manual_effort: Sequence[ManualEffort]) -> float:
    """Return the minutes of all stages together; NaN if none were measured."""
    known = [each.minutes for each in manual_effort if not math.isnan(each.minutes)]
    return sum(known) if known else math.nan


def publishable(reviewed: Frame[ReviewedLabels]) -> Frame[ReviewedLabels]:
    """Return the ``reviewed_labels`` that were neither rejected nor left undecided."""
    return reviewed[
        ~reviewed[ReviewedLabels.decision].isin([ReviewDecision.REJECTED, ReviewDecision.UNDECIDED])
    ]


def published_labels(reviewed: Frame[ReviewedLabels]) -> int:
    """Return the number of ``reviewed_labels`` that may be published and name a class."""
    return int((~publishable(reviewed)[ReviewedLabels.shape].isin(_NO_LABELS)).sum())


def _minutes(seconds: Sequence[float | None]) -> float:
    known = [each for each in seconds if each is not None and not math.isnan(each)]
    return sum(known) / 60 if known else math.nan
