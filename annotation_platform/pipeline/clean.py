"""Cleaning: accepts, quarantines and deduplicates the arrivals of a round."""

from dataclasses import dataclass

from annotation_platform.images.cleaning import clean_round
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.earlier import earlier_rounds
from annotation_platform.pipeline.result import BarChart, Quarantined, Result, TableRows, Thumbnails
from annotation_platform.schema.tables import CleanedImages, Frame, RawImages
from annotation_platform.schema.tables.shared import Outcome


@dataclass(frozen=True, kw_only=True)
class Cleaned(Result):
    """The outcome of each arrival of a round."""

    cleaned_images: Frame[CleanedImages]


def clean(context: RoundContext, raw_images: Frame[RawImages]) -> Cleaned:
    """Return the outcome of each arrival of the round.

    Raises:
        NotReadyError: an earlier round is not cleaned yet.
    """
    lake = context.lake
    earlier = earlier_rounds(CleanedImages, context.round_id, lake)
    policy = context.policy.cleaning
    cleaned = clean_round(raw_images, earlier, lake.store, policy, runner=lake.runner)
    outcome = cleaned[CleanedImages.outcome]
    accepted = cleaned[outcome == Outcome.ACCEPTED]
    rejected = cleaned[outcome != Outcome.ACCEPTED]
    quarantined = cleaned[outcome == Outcome.QUARANTINED]
    return Cleaned(
        cleaned_images=cleaned,
        figures={
            "accepted": len(accepted),
            "duplicates": int((outcome == Outcome.DUPLICATE).sum()),
            "quarantined": len(quarantined),
            "reasons": BarChart(rejected[CleanedImages.reason].str.split(":").str[0]),
            "not_accepted": TableRows(
                rejected, ["source_key", "outcome", "reason", "duplicate_of"]
            ),
            "quarantine": Quarantined(quarantined),
            "preview": Thumbnails(accepted),
        },
    )
