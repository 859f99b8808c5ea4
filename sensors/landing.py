"""New images: one round, one fixed manifest, one run."""

from datetime import UTC, datetime

import dagster as dg

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.images.ingest import list_landed, plan_round
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from assets.partitions import rounds
from sensors.attempts import next_attempt
from sensors.ticks import tick_result


@dg.sensor(
    job_name="start_round",
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_images_sensor(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.SensorResult | dg.SkipReason:
    """Form a round from what has landed and start it; start again what was broken off."""
    try:
        landed = list_landed(lake.landing, now=datetime.now(UTC))
    except AnnotationPlatformError as error:
        return dg.SkipReason(str(error))
    taken = lake.manifests.taken()
    plan = plan_round(landed, taken.objects, policy.rounds)
    if plan.objects:
        lake.manifests.create(taken.next_round, plan.objects)
    manifests = lake.manifests.rounds()
    waiting = [key for key in manifests if not lake.tables.exists("label_tasks", key)]
    known = set(rounds.get_partition_keys(dynamic_partitions_store=context.instance))
    additions = [key for key in manifests if key not in known]
    # Rounds start in order: what a later one may hold depends on what the earlier ones hold.
    due = waiting[:1]
    attempts = [
        next_attempt(context.instance, "start_round", key, lake.manifests.digest(key))
        for key in due
    ]
    return tick_result(
        attempts,
        idle=plan.waits_for or "A round was just formed.",
        cursor={"rounds": manifests, "waiting": waiting},
        new_partitions=additions,
    )
