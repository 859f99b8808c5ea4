"""The lake, the policy, and the IO manager that stores tables in the lake."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from annotation_platform.ingestion.events import LandingEvents
from annotation_platform.ingestion.lake import LakeUsage, LandingLake, open_lake
from annotation_platform.policy import Policy, read_policy
from annotation_platform.schema.tables import table_named
from annotation_platform.storage.audited import AccessLog
from annotation_platform.storage.s3 import is_s3

_STARTERS = (
    ("user", ""),
    ("dagster/sensor_name", "sensor "),
    ("dagster/schedule_name", "schedule "),
)
"""The tags in which Dagster records who started a run, each with a prefix for its value."""

_PARTITION = "dagster/partition"
_REASON = "annotation/reason"
"""The tag in which a user can give the reason of a run."""


class LakeResource(dg.ConfigurableResource[LandingLake]):
    """The lake and its landing zone; each is a folder, or a prefix in S3.

    Endpoint, region and account come from AWS's environment variables.
    """

    lake: str
    landing: str
    cache: str
    audit: str
    receipts: str = ""
    shown: str = ""
    runner: str = ""

    def create_resource(self, context: dg.InitResourceContext) -> LandingLake:
        """Return the lake, without connecting."""
        needs_s3 = any(is_s3(url) for url in (self.lake, self.landing, self.shown))
        client = _s3_client() if needs_s3 else None
        by = _actor(context.run) if context.run else None
        return open_lake(
            self.lake,
            self.landing,
            cache=Path(self.cache),
            receipts=self.receipts,
            shown=self.shown,
            client=client,
            usage=LakeUsage(
                # Sensors poll every few seconds; their cursors record what they read.
                audit=AccessLog(Path(self.audit), by) if by else None,
                runner=self.runner,
                held=_held_of_run(context.run.run_id) if context.run else None,
            ),
        )


@lru_cache(maxsize=4)
def _held_of_run(run_id: str) -> dict[str, bytes]:  # noqa: ARG001
    """Return the objects that a run has read, shared by all lakes built for the run."""
    return {}


def _s3_client() -> Any:
    # Imported late: the import takes a second in every process that Dagster starts.
    from dagster_aws.s3 import S3Resource

    return S3Resource(max_attempts=8).get_client()


@dataclass(frozen=True)
class _Actor:
    """The actor of the audit log: who started the run, why, and the asset being materialised.

    A step that makes several tables has the name of the first of them.
    """

    author: str
    reason: str
    run_id: str

    def __call__(self) -> dict[str, str]:
        actor = {"author": self.author, "reason": self.reason, "run": self.run_id}
        try:
            step = dg.AssetExecutionContext.get().op_execution_context.op.name
        except dg.DagsterInvariantViolationError:
            return actor
        return {**actor, "asset": step}


def started_by(run: dg.DagsterRun) -> str:
    """Return who started a run: a user known to Dagster, a sensor, a schedule, or ``dagster``."""
    named = [(tag, name) for tag, name in _STARTERS if tag in run.tags]
    return "".join(f"{name}{run.tags[tag]}" for tag, name in named[:1]) or "dagster"


def _actor(run: dg.DagsterRun) -> _Actor:
    """Return the actor of a run."""
    partition = run.tags.get(_PARTITION, "")
    job = f"{run.job_name} of {partition}" if partition else run.job_name
    return _Actor(started_by(run), run.tags.get(_REASON, job), run.run_id)


class LandingEventsResource(dg.ConfigurableResource[LandingEvents]):
    """The queue of the landing bucket's events; without a URL there is none."""

    url: str
    landing: str

    def create_resource(self, context: dg.InitResourceContext) -> LandingEvents:
        """Return the queue, without connecting."""
        return LandingEvents(self.url, self.landing)


class PolicyResource(dg.ConfigurableResource[Policy]):
    """The policy, read again for each run: an edit of ``params.yaml`` needs no restart."""

    path: str

    def create_resource(self, context: dg.InitResourceContext) -> Policy:
        """Return the checked policy."""
        return read_policy(Path(self.path))


class TableIOManager(dg.ConfigurableIOManager):
    """Stores each asset's table as Parquet in the lake, one file per round, checked both ways."""

    lake: dg.ResourceDependency[LandingLake]

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Write the round's table, and record its digest."""
        digest = self.lake.tables.write(
            table_named(context.asset_key.path[-1]), context.partition_key, obj
        )
        context.add_output_metadata({"rows": len(obj), "table_digest": digest[:16]})

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Return the round's table; NotReadyError if it is not materialised yet."""
        return self.lake.tables.read(table_named(context.asset_key.path[-1]), context.partition_key)
