"""From the landing place to clean pictures."""

import dagster as dg
import pandas as pd

from annotation_platform.images.cleaning import clean_round
from annotation_platform.landing.lake import LandingLake
from annotation_platform.params import Params
from annotation_platform.pipeline.earlier import earlier_rounds
from assets.metadata import histogram, kept_out, pictures, table
from assets.partitions import rounds


@dg.asset(partitions_def=rounds, group_name="ingestion", kinds={"file"}, code_version="2")
def raw_images(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """Every object that landed for the round, named by the SHA-256 of its bytes."""
    raw = lake.ingest(context.partition_key, maximum_bytes=policy.cleaning.maximum_bytes)
    return dg.MaterializeResult(
        value=raw,
        metadata={
            "objects": len(raw),
            "bytes": int(raw["byte_size"].sum()),
            "unreadable": int(raw["image_id"].isna().sum()),
            "preview": table(
                raw, ["source_key", "image_id", "byte_size", "source", "licence", "problem"]
            ),
        },
    )


@dg.asset(partitions_def=rounds, group_name="ingestion", kinds={"pillow"}, code_version="2")
def cleaned_images(
    context: dg.AssetExecutionContext,
    raw_images: pd.DataFrame,
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Params],
) -> dg.MaterializeResult[pd.DataFrame]:
    """Accepted pictures, stripped of metadata; quarantined ones with the reason; duplicates."""
    earlier = earlier_rounds("cleaned_images", context.partition_key, lake)
    cleaned = clean_round(raw_images, earlier, lake.store, policy.cleaning, runner=lake.runner)
    accepted = cleaned[cleaned["outcome"] == "accepted"]
    rejected = cleaned[cleaned["outcome"] != "accepted"]
    quarantined = cleaned[cleaned["outcome"] == "quarantined"]
    return dg.MaterializeResult(
        value=cleaned,
        metadata={
            "accepted": len(accepted),
            "duplicates": int((cleaned["outcome"] == "duplicate").sum()),
            "quarantined": len(quarantined),
            "reasons": histogram(rejected["reason"].str.split(":").str[0]),
            "not_accepted": table(rejected, ["source_key", "outcome", "reason", "duplicate_of"]),
            "quarantine": kept_out(quarantined, lake),
            "preview": pictures(accepted, lake),
        },
    )
