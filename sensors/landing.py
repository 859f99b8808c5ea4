"""New images: each round has one fixed manifest and one run."""

import json
from datetime import UTC, datetime

import dagster as dg

from annotation_platform.curation.held import held_rounds
from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.ingestion.events import LandingEvents
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.ingestion.watch import watch_landing_zone
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import LabelTasks
from assets.partitions import rounds
from sensors.attempts import Attempt, next_attempt, unless_by_hand
from sensors.ticks import tick_result

_HELD = (
    "{} is held: its images differ from the known ones. Check batch_drift; to annotate the round, "
    "materialise selected_images and label_tasks."
)


@dg.sensor(
    job_name="start_round",
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Forms a round from the arrivals and starts it.",
)
def new_images_sensor(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[LandingLake],
    landing_events: dg.ResourceParam[LandingEvents],
    policy: dg.ResourceParam[Policy],
) -> dg.SensorResult | dg.SkipReason:
    """Form a round from the arrivals and start it; start interrupted rounds again."""
    list_at = json.loads(context.cursor).get("list_at") if context.cursor else None
    try:
        watched = watch_landing_zone(
            lake,
            landing_events,
            policy.rounds,
            list_at=datetime.fromisoformat(list_at) if list_at else None,
            now=datetime.now(UTC),
            policy_digest=policy.digest,
        )
    except AnnotationPlatformError as error:
        return dg.SkipReason(str(error))
    manifests = lake.manifests.rounds()
    waiting = [key for key in manifests if not lake.tables.exists(LabelTasks, key)]
    known = set(rounds.get_partition_keys(dynamic_partitions_store=context.instance))
    additions = [key for key in manifests if key not in known]
    held = [key for key in held_rounds(lake.tables, policy.drift.gate) if key in waiting]
    # Rounds start in order: the contents of a round depend on those of earlier rounds.
    due = [key for key in waiting if key not in held][:1]
    attempts = [Attempt(None, _HELD.format(key)) for key in held]
    attempts += [
        unless_by_hand(
            context.instance,
            next_attempt(context.instance, "start_round", key, lake.manifests.digest(key)),
            policy.rounds.gate,
            "rounds.gate",
        )
        for key in due
    ]
    return tick_result(
        attempts,
        idle=watched.waits_for or "A round was just formed.",
        cursor={
            "rounds": manifests,
            "waiting": waiting,
            "held": held,
            "list_at": watched.list_at.isoformat(timespec="seconds"),
        },
        new_partitions=additions,
    )
