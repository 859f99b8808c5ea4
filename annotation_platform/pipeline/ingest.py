"""Ingestion: the arrivals of a round become images named by their content."""

from dataclasses import dataclass

from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Result, TableRows
from annotation_platform.schema.tables import Frame, RawImages

_SHOWN = ["source_key", "image_id", "byte_size", "source", "licence", "problem"]


@dataclass(frozen=True, kw_only=True)
class Ingested(Result):
    """The arrivals of a round, in the lake."""

    raw_images: Frame[RawImages]


def ingest(context: RoundContext) -> Ingested:
    """Take the arrivals of the round into the lake."""
    limit = context.policy.cleaning.maximum_bytes
    raw = context.lake.ingest(context.round_id, maximum_bytes=limit)
    return Ingested(
        raw_images=raw,
        figures={
            "objects": len(raw),
            "bytes": int(raw[RawImages.byte_size].sum()),
            "unreadable": int(raw[RawImages.image_id].isna().sum()),
            "preview": TableRows(raw, _SHOWN),
        },
    )
