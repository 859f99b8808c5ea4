"""Arrivals, cleaned images and imported labels."""

import dagster as dg

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.pipeline.clean import clean
from annotation_platform.pipeline.import_labels import import_labels
from annotation_platform.pipeline.ingest import ingest
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import CleanedImages, Frame, RawImages
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized


@tables_made("raw_images", group="ingestion", kinds={"file"}, code_version="2")
def raw_images(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """Every arrival of the round, named by the SHA-256 of its bytes."""
    return materialized(ingest(round_context(context, lake, policy)), lake)


@tables_made("cleaned_images", group="ingestion", kinds={"pillow"}, code_version="2")
def cleaned_images(
    context: dg.AssetExecutionContext,
    raw_images: Frame[RawImages],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """Accepted images, stripped of metadata; quarantined ones with the reason; duplicates."""
    return materialized(clean(round_context(context, lake, policy), raw_images), lake)


@tables_made("imported_labels", group="ingestion", kinds={"pandas"}, code_version="1")
def imported_labels(
    context: dg.AssetExecutionContext,
    raw_images: Frame[RawImages],
    cleaned_images: Frame[CleanedImages],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> Made:
    """The labels that images landed with, their origin, and the reason if they are refused."""
    round_ = round_context(context, lake, policy)
    return materialized(import_labels(round_, raw_images, cleaned_images), lake)
