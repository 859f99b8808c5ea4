"""How an asset is declared: the tables that it makes, those that it reads, and where it belongs."""

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
"""What the body of an asset returns: each of its tables."""


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

    The parameters of the function that are frames are the tables of the round that are loaded for
    it, by name. The first table bears the function's docstring and names its step.

    Args:
        names: the tables, the one that matters most first.
        group: stage of the pipeline.
        kinds: what does the work, for Dagster's graph.
        code_version: changes with the code that makes the tables.
        reads: tables that are read for other rounds too, or that the step waits for.
        optional: tables of ``names`` that a run may leave as they are.
        pool: limits how many steps run at once.
    """

    def decorate(made_by: Callable[..., Made]) -> dg.AssetsDefinition:
        parameters = inspect.signature(made_by).parameters.values()
        loaded = [each.name for each in parameters if each.annotation is pd.DataFrame]
        outs = {
            name: dg.AssetOut(
                dagster_type=dg.Any,
                description=inspect.getdoc(made_by) if name == names[0] else TABLES[name].about,
                group_name=group,
                kinds=kinds,
                code_version=code_version,
                is_required=name not in optional,
            )
            for name in names
        }
        further = [name for name in reads if name not in loaded]
        # Dagster takes no other annotation than tuples where there are several outputs.
        made_by.__annotations__.pop("return", None)
        return dg.multi_asset(
            name=names[0], outs=outs, deps=further, partitions_def=rounds, pool=pool
        )(made_by)

    return decorate


def round_context(
    context: dg.AssetExecutionContext, lake: LandingLake, policy: Policy
) -> RoundContext:
    """Return the context of a use case from that of an asset."""
    now = datetime.now(UTC)
    return RoundContext(context.partition_key, lake, policy, now, report=context.log.info)
