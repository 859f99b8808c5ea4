"""The report of a round: its figures in one row."""

from dataclasses import dataclass

from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import OwnPage, Result, TableRows
from annotation_platform.reporting.round_report import report_round
from annotation_platform.schema.tables import Frame, RoundReports


@dataclass(frozen=True, kw_only=True)
class Reported(Result):
    """The figures of a round, from arrivals to model."""

    round_report: Frame[RoundReports]


def report(context: RoundContext) -> Reported:
    """Return the figures of the round, from arrivals to model, in one row."""
    table = report_round(context.lake, context.round_id)
    row = table.iloc[0]
    return Reported(
        round_report=table,
        figures={
            "report": OwnPage(f"rounds/{context.round_id}"),
            **{str(name): float(row[name]) for name in table.columns[1:-1]},
            "version": str(row["version"]),
            "preview": TableRows(table, ["accepted", "tasks", "annotations", "version"]),
        },
    )
