"""The round in one row."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Result, Rows
from annotation_platform.reporting.round_report import report_round


@dataclass(frozen=True, kw_only=True)
class Reported(Result):
    """The figures of a round, from arrivals to model."""

    round_report: pd.DataFrame


def report(context: RoundContext) -> Reported:
    """Return the round from arrivals to model, in one row of figures."""
    made = report_round(context.lake, context.round_id)
    row = made.iloc[0]
    return Reported(
        round_report=made,
        figures={
            **{str(name): float(row[name]) for name in made.columns[1:-1]},
            "version": str(row["version"]),
            "preview": Rows(made, ["accepted", "tasks", "annotations", "version"]),
        },
    )
