"""The declaration of an asset: a use case, the tables that it reads, its group and its pool."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints

import dagster as dg
import pandas as pd

from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Result
from annotation_platform.schema.tables import TABLES
from assets.metadata import materialized
from assets.partitions import rounds
from resources.storage import started_by

UseCase = Callable[..., Result | None]
"""A function of the round's context, its tables and resources; None leaves its tables unchanged."""

_CONTEXTS = (RoundContext, dg.AssetExecutionContext)
_NEEDED = {"lake", "policy", "pages"}
"""The resources that every step needs."""


def step(
    use_case: UseCase,
    *,
    about: str,
    group: str,
    kinds: set[str],
    code_version: str,
    reads: Sequence[str] = (),
    pool: str | None = None,
) -> dg.AssetsDefinition:
    """Return the step that makes the tables in the result of a use case, for a round.

    A parameter of the use case that is annotated as a frame is the table of the round with that
    name; a dataclass of frames likewise takes the table of each field. Contexts are recognized by
    their type; any other parameter is the resource with its name. The step has the name of the
    first table. Tables that may be None in the result, or a result that may be None, can stay
    unchanged.

    Args:
        use_case: the function, with annotated parameters and result.
        about: the contents of the first table, a sentence; the others are described by their class.
        group: stage of the pipeline.
        kinds: tools that the step uses, for Dagster's graph.
        code_version: changes with the code that makes the tables.
        reads: tables that are read for other rounds too, or that the step waits for.
        pool: limits how many steps run at once.
    """
    asked = get_type_hints(use_case)
    made, *may_be_none = get_args(asked["return"]) or (asked.pop("return"),)
    asked.pop("return", None)
    loaded = [table for name, kind in asked.items() for table in _tables_of(name, kind)]
    resources = [
        name for name, kind in asked.items() if kind not in _CONTEXTS and not _tables_of(name, kind)
    ]
    tables = {each.name: each.type for each in fields(made) if each.name in TABLES}
    lead = next(iter(tables))
    outs = {
        name: dg.AssetOut(
            dagster_type=dg.Any,
            description=about if name == lead else TABLES[name].about,
            group_name=group,
            kinds=kinds,
            code_version=code_version,
            is_required=kind is pd.DataFrame and not may_be_none,
        )
        for name, kind in tables.items()
    }
    return dg.multi_asset(
        name=lead,
        ins={name: dg.AssetIn(name) for name in loaded},
        outs=outs,
        deps=[name for name in reads if name not in loaded],
        required_resource_keys={*_NEEDED, *resources},
        partitions_def=rounds,
        pool=pool,
    )(_body(use_case, asked))


def _body(use_case: UseCase, asked: Mapping[str, Any]) -> Callable[..., Any]:
    """Return the function that runs a use case in a step; ``asked`` are its parameters' types."""

    # With several outputs Dagster accepts only tuples as a more exact return annotation.
    def body(context: dg.AssetExecutionContext, **tables: pd.DataFrame) -> Any:
        given = {name: _argument(name, kind, context, tables) for name, kind in asked.items()}
        found = use_case(**given)
        if found is not None:
            yield from materialized(found, context.resources.lake, context.resources.pages)

    return body


def _tables_of(name: str, kind: Any) -> list[str]:
    """Return the tables that a parameter of a use case takes; none for a context or a resource."""
    if kind is pd.DataFrame:
        return [name]
    if kind in _CONTEXTS or not is_dataclass(kind):
        return []
    every = fields(kind)
    return [each.name for each in every] if all(each.type is pd.DataFrame for each in every) else []


def _argument(
    name: str, kind: Any, context: dg.AssetExecutionContext, tables: Mapping[str, pd.DataFrame]
) -> Any:
    """Return the value of a parameter of a use case."""
    if kind is RoundContext:
        resources = context.resources
        return RoundContext(
            context.partition_key,
            resources.lake,
            resources.policy,
            datetime.now(UTC),
            report=context.log.info,
            actor=started_by(context.run),
        )
    if kind is dg.AssetExecutionContext:
        return context
    names = _tables_of(name, kind)
    if names == [name]:
        return tables[name]
    return kind(*(tables[each] for each in names)) if names else getattr(context.resources, name)
