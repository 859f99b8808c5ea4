"""From merged rounds to versions, and from versions to models."""

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from annotation_platform.errors import LabelingError
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.change_signals import PollSchedule
from annotation_platform.labeling.reviews import review_round
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.release_due import held_back, merged_digest, release_due
from annotation_platform.policy import Policy
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import (
    DatasetVersions,
    ReviewTasks,
    RoundReports,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import Split
from assets import jobs
from sensors.attempts import Attempt, next_attempt, rounds_under_way, unless_by_hand
from sensors.ticks import not_due, tick_result


@dg.sensor(
    job_name="release_round",
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Releases a round once its labels are resolved, reviewed and pass the gates.",
)
def review_complete_sensor(
    context: dg.SensorEvaluationContext,
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
    poll_schedule: dg.ResourceParam[PollSchedule],
) -> dg.SensorResult | dg.SkipReason:
    """Release a round once its labels are resolved, reviewed and pass the gates.

    If that holds when the round is merged, the run of the merge continues with the release.
    The cursor stores the change token of each round whose current state is released.
    """
    seen: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    now = datetime.now(UTC)
    if too_soon := not_due(poll_schedule, seen.get("polled_at"), now):
        return too_soon
    tokens = dict(seen.get("change_tokens", {}))
    resolved = lake.tables.rounds(ReviewTasks)
    # Their tables are changing, and the run of the merge continues with the release if possible.
    merging = rounds_under_way(context.instance, jobs.merge_round.name)
    attempts = []
    for key in resolved:
        if key in merging:
            attempts.append(Attempt(None, f"{key}: its merge is under way."))
            continue
        try:
            round_ = RoundContext(key, lake, policy, now)
            attempts.append(_release(context.instance, round_, labeling, tokens))
        except LabelingError as error:
            attempts.append(Attempt(None, f"{key}: {error}"))
    cursor = {"resolved": len(attempts), "change_tokens": tokens, "polled_at": now.isoformat()}
    return tick_result(attempts, idle=f"{len(attempts)} rounds are resolved.", cursor=cursor)


def _release(
    instance: dg.DagsterInstance,
    round_: RoundContext,
    labeling: LabelingBackend,
    tokens: dict[str, str],
) -> Attempt:
    """Return the run that is due for a merged round; record its token if it is released."""
    round_id, lake, policy = round_.round_id, round_.lake, round_.policy
    tasks = lake.tables.read(ReviewTasks, round_id)
    asked = (tasks[ReviewTasks.backend] != "").any()
    reviews = labeling.change_token(review_round(round_id)) if asked else ""
    token = f"{merged_digest(round_id, lake)[:16]} {policy.review.undecided} {reviews}"
    if tokens.get(round_id) == token:
        return Attempt(None, f"{round_id}: done.", done=True)
    submitted = labeling.collect(review_round(round_id)) if asked else []
    due = release_due(round_, tasks, submitted)
    if due.waits_for:
        return Attempt(None, f"{round_id}: {due.waits_for}.")
    attempt = next_attempt(instance, jobs.release_round.name, round_id, due.cause)
    # The gates read tables, so they are evaluated only if a release is due.
    if attempt.request is not None:
        problem = held_back(round_)
        if problem:
            attempt = Attempt(None, f"{round_id} is held back: {problem}.")
    attempt = unless_by_hand(instance, attempt, policy.release.gate, "release.gate")
    if attempt.done:
        tokens[round_id] = token
    return attempt


@dg.sensor(
    jobs=[jobs.train_model, jobs.report_round],
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Trains on the newest version, and reports the rounds of replaced versions.",
)
def new_version_sensor(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> dg.SensorResult | dg.SkipReason:
    """Train on the newest version; a round whose version was replaced is only reported."""
    tables = lake.tables
    releases = []
    for key in tables.rounds(DatasetVersions):
        row = tables.read(DatasetVersions, key).iloc[0]
        releases.append((_version_key(str(row["version"])), key, str(row["commit"])))
    if not releases:
        return dg.SkipReason("No version is published yet.")
    _, newest, commit = max(releases)
    if _has_training_boxes(lake, newest):
        due = next_attempt(context.instance, "train_model", newest, commit)
        attempts = [unless_by_hand(context.instance, due, policy.training.gate, "training.gate")]
        unreported = [item for item in releases if item[1] != newest]
    else:
        attempts = [Attempt(None, f"{newest}: its train split has no boxes.")]
        unreported = releases
    attempts += [
        next_attempt(context.instance, "report_round", key, replaced)
        for _, key, replaced in unreported
        if not tables.exists(RoundReports, key)
    ]
    return tick_result(
        attempts, idle=f"{len(releases)} versions are published.", cursor={"newest": newest}
    )


def _has_training_boxes(lake: LandingLake, round_id: str) -> bool:
    columns = [TrainingSet.split, TrainingSet.shape]
    labels = lake.tables.read_columns(TrainingSet, round_id, columns)
    is_train = labels[TrainingSet.split] == Split.TRAIN
    return bool((is_train & labels[TrainingSet.shape].isin(AREAS)).any())


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
