"""The report of a round."""

import dagster as dg

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.pipeline.report import report
from annotation_platform.policy import Policy
from assets.making import Made, round_context, tables_made
from assets.metadata import materialized
from resources.pages import PagesResource


# A version that was replaced before training has a report, but no model and no evaluation.
@tables_made(
    "round_report",
    group="reporting",
    kinds={"pandas"},
    code_version="1",
    reads=[
        "cleaned_images",
        "label_tasks",
        "audit_frame",
        "human_labels",
        "consensus_labels",
        "reviewed_labels",
        "auto_labels",
        "certificates",
        "error_bars",
        "dataset_version",
        "model_evaluation",
    ],
)
def round_report(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
    pages: PagesResource,
) -> Made:
    """The figures of the round from arrivals to model, in one row."""
    found = report(round_context(context, lake, policy))
    return materialized(found, lake, pages.links(report=f"rounds/{context.partition_key}"))
