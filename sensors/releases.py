"""From merged rounds to versions, and from versions to models."""

import dagster as dg

from annotation_platform.curation.training_set import round_problem
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from sensors.attempts import Attempt, next_attempt
from sensors.ticks import tick_result


@dg.sensor(
    job_name="release_round",
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def review_complete_sensor(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Params],
) -> dg.SensorResult | dg.SkipReason:
    """Release a round once its labels are resolved and pass the gates."""
    attempts = []
    images = lake.accepted_images()
    for key in lake.tables.rounds("consensus_labels"):
        problem = round_problem(lake.tables, key, images, policy.ontology)
        if problem:
            attempts.append(Attempt(None, f"{key} is held back: {problem}."))
        else:
            cause = lake.tables.digest("consensus_labels", key)
            attempts.append(next_attempt(context.instance, "release_round", key, cause))
    cursor = {"resolved": len(attempts)}
    return tick_result(attempts, idle=f"{len(attempts)} rounds resolved.", cursor=cursor)


@dg.sensor(
    job_name="train_model",
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_version_sensor(
    context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]
) -> dg.SensorResult | dg.SkipReason:
    """Train on the newest version; one that was overtaken meanwhile trains nothing."""
    releases = []
    for key in lake.tables.rounds("dataset_version"):
        row = lake.tables.read("dataset_version", key).iloc[0]
        releases.append((_version_key(str(row["version"])), key, str(row["commit"])))
    if not releases:
        return dg.SkipReason("No version was published yet.")
    _, round_id, commit = max(releases)
    attempt = next_attempt(context.instance, "train_model", round_id, commit)
    return tick_result([attempt], idle=f"{len(releases)} releases.", cursor={"newest": round_id})


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
