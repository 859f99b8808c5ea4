"""The declaration of an asset: the tables that it writes and reads, its group and its pool."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import dagster as dg
import pandas as pd

from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import TABLES
from assets.partitions import rounds

Made = Iterator[dg.MaterializeResult[pd.DataFrame]]
"""The return type of an asset's body: its tables."""


def tables_made(
    *names: str,
    group: str,
    kinds: set[str],
    code_version: str,
    reads: Sequence[str] = (),
    optional: Sequence[str] = (),
    pool: str | None = None,
) -> Callable[[Callable[..., Made]], dg.AssetsDefinition]:
    """Return a decorator for a function that makes these tables of a round.

    Each parameter of the function that is annotated as a frame is loaded from the table of the
    round with that name. The first table has the function's docstring as its description, and the
    step has its name.

    Args:
        names: the tables, the most important one first.
        group: stage of the pipeline.
        kinds: tools that the step uses, for Dagster's graph.
        code_version: changes with the code that makes the tables.
        reads: tables that are read for other rounds too, or that the step waits for.
        optional: tables of ``names`` that a run may leave unchanged.
        pool: limits how many steps run at once.
    """

    def decorate(body: Callable[..., Made]) -> dg.AssetsDefinition:
        parameters = inspect.signature(body).parameters.values()
        loaded = [each.name for each in parameters if each.annotation is pd.DataFrame]
        outs = {
            name: dg.AssetOut(
                dagster_type=dg.Any,
                description=inspect.getdoc(body) if name == names[0] else TABLES[name].about,
                group_name=group,
                kinds=kinds,
                code_version=code_version,
                is_required=name not in optional,
            )
            for name in names
        }
        further = [name for name in reads if name not in loaded]
        # With several outputs Dagster accepts only tuples as return annotation.
        body.__annotations__.pop("return", None)
        return dg.multi_asset(
            name=names[0], outs=outs, deps=further, partitions_def=rounds, pool=pool
        )(body)

    return decorate


def round_context(
    context: dg.AssetExecutionContext, lake: LandingLake, policy: Policy
) -> RoundContext:
    """Return the context of a use case, from the context of an asset."""
    now = datetime.now(UTC)
    return RoundContext(context.partition_key, lake, policy, now, report=context.log.info)
