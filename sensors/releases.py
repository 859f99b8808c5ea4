"""From merged rounds to versions, and from versions to models."""

import dagster as dg

from annotation_platform.curation.training_set import round_digest, round_problem
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from assets import jobs
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
    for key in lake.tables.rounds("consensus_labels"):
        cause = round_digest(lake.tables, key)
        attempt = next_attempt(context.instance, "release_round", key, cause)
        # The gates read tables, so they are asked only of what would be released.
        if attempt.request is not None:
            problem = round_problem(lake.tables, key, lake.accepted_images(), policy.ontology)
            if problem:
                attempt = Attempt(None, f"{key} is held back: {problem}.")
        attempts.append(attempt)
    cursor = {"resolved": len(attempts)}
    return tick_result(attempts, idle=f"{len(attempts)} rounds resolved.", cursor=cursor)


@dg.sensor(
    jobs=[jobs.train_model, jobs.report_round],
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_version_sensor(
    context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]
) -> dg.SensorResult | dg.SkipReason:
    """Train on the newest version; a round whose version was overtaken is only reported."""
    tables = lake.tables
    releases = []
    for key in tables.rounds("dataset_version"):
        row = tables.read("dataset_version", key).iloc[0]
        releases.append((_version_key(str(row["version"])), key, str(row["commit"])))
    if not releases:
        return dg.SkipReason("No version was published yet.")
    _, newest, commit = max(releases)
    if _has_boxes_to_learn_from(lake, newest):
        attempts = [next_attempt(context.instance, "train_model", newest, commit)]
        unreported = [item for item in releases if item[1] != newest]
    else:
        attempts = [Attempt(None, f"{newest}: its train split has no box to learn from.")]
        unreported = releases
    attempts += [
        next_attempt(context.instance, "report_round", key, overtaken)
        for _, key, overtaken in unreported
        if not tables.exists("round_report", key)
    ]
    return tick_result(attempts, idle=f"{len(releases)} releases.", cursor={"newest": newest})


def _has_boxes_to_learn_from(lake: Lake, round_id: str) -> bool:
    labels = lake.tables.read("training_set", round_id)
    return bool(((labels["split"] == "train") & (labels["shape"] == "box")).any())


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
