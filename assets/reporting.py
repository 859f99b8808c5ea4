"""The round in one row."""

import dagster as dg
import pandas as pd

from annotation_platform.reporting.round_report import report_round
from annotation_platform.storage.lake import Lake
from assets.metadata import number, table
from assets.partitions import rounds
from resources.pages import PagesResource


# Model and evaluation are edges, not inputs: an overtaken version has neither, and a report.
@dg.asset(
    partitions_def=rounds,
    group_name="reporting",
    kinds={"pandas"},
    code_version="1",
    deps=["model_evaluation", "dataset_version"],
)
def round_report(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    pages: PagesResource,
) -> dg.MaterializeResult[pd.DataFrame]:
    """The round from landing to model, in one row of figures."""
    report = report_round(lake, context.partition_key)
    row = report.iloc[0]
    figures = {name: number(float(row[name])) for name in report.columns[1:-1]}
    return dg.MaterializeResult(
        value=report,
        metadata={
            **pages.links(report=f"rounds/{context.partition_key}"),
            **figures,
            "version": str(row["version"]),
            "preview": table(report, ["accepted", "tasks", "answers", "version"]),
        },
    )
