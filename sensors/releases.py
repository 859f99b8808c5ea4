"""From merged rounds to versions, and from versions to models."""

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from annotation_platform.errors import LabelingError
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.change_signals import PollSchedule
from annotation_platform.labeling.reviews import review_round, submitted_reviews
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
    looks: dg.ResourceParam[PollSchedule],
) -> dg.SensorResult | dg.SkipReason:
    """Release a round once its labels are resolved, reviewed and pass the gates.

    Where that is so as soon as it is merged, the merge's own run goes on to the release.
    The cursor keeps the stamp of each round under review that was released as it stands.
    """
    seen: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    now = datetime.now(UTC)
    if too_soon := not_due(looks, seen.get("looked_at"), now):
        return too_soon
    stamps = dict(seen.get("stamps", {}))
    resolved = lake.tables.rounds(ReviewTasks)
    # Their tables change, and the merge goes on to the release by itself if it may.
    merging = rounds_under_way(context.instance, jobs.merge_round.name)
    attempts = []
    for key in resolved:
        if key in merging:
            attempts.append(Attempt(None, f"{key}: it is merged just now."))
            continue
        try:
            round_ = RoundContext(key, lake, policy, now)
            attempts.append(_release(context.instance, round_, labeling, stamps))
        except LabelingError as error:
            attempts.append(Attempt(None, f"{key}: {error}"))
    cursor = {"resolved": len(attempts), "stamps": stamps, "looked_at": now.isoformat()}
    return tick_result(attempts, idle=f"{len(attempts)} rounds resolved.", cursor=cursor)


def _release(
    instance: dg.DagsterInstance,
    round_: RoundContext,
    labeling: LabelingBackend,
    stamps: dict[str, str],
) -> Attempt:
    """Return what is due for a merged round; ``stamps`` learns what needs no further look."""
    round_id, lake, policy = round_.round_id, round_.lake, round_.policy
    tasks = lake.tables.read(ReviewTasks, round_id)
    asked = (tasks["backend"] != "").any()
    said = labeling.change_token(review_round(round_id)) if asked else ""
    stamp = f"{merged_digest(round_id, lake)[:16]} {policy.review.undecided} {said}"
    if stamps.get(round_id) == stamp:
        return Attempt(None, f"{round_id}: done.", done=True)
    submitted = submitted_reviews(round_id, labeling) if asked else []
    due = release_due(round_, tasks, submitted)
    if due.waits_for:
        return Attempt(None, f"{round_id}: {due.waits_for}.")
    attempt = next_attempt(instance, jobs.release_round.name, round_id, due.cause)
    # The gates read tables, so they are asked only of what would be released.
    if attempt.request is not None:
        problem = held_back(round_)
        if problem:
            attempt = Attempt(None, f"{round_id} is held back: {problem}.")
    attempt = unless_by_hand(instance, attempt, policy.release.gate, "release.gate")
    if attempt.done:
        stamps[round_id] = stamp
    return attempt


@dg.sensor(
    jobs=[jobs.train_model, jobs.report_round],
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Trains on the newest version, and reports the rounds that it overtook.",
)
def new_version_sensor(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[LandingLake],
    policy: dg.ResourceParam[Policy],
) -> dg.SensorResult | dg.SkipReason:
    """Train on the newest version; a round whose version was overtaken is only reported."""
    tables = lake.tables
    releases = []
    for key in tables.rounds(DatasetVersions):
        row = tables.read(DatasetVersions, key).iloc[0]
        releases.append((_version_key(str(row["version"])), key, str(row["commit"])))
    if not releases:
        return dg.SkipReason("No version was published yet.")
    _, newest, commit = max(releases)
    if _has_boxes_to_learn_from(lake, newest):
        due = next_attempt(context.instance, "train_model", newest, commit)
        attempts = [unless_by_hand(context.instance, due, policy.training.gate, "training.gate")]
        unreported = [item for item in releases if item[1] != newest]
    else:
        attempts = [Attempt(None, f"{newest}: its train split has no box to learn from.")]
        unreported = releases
    attempts += [
        next_attempt(context.instance, "report_round", key, overtaken)
        for _, key, overtaken in unreported
        if not tables.exists(RoundReports, key)
    ]
    return tick_result(attempts, idle=f"{len(releases)} releases.", cursor={"newest": newest})


def _has_boxes_to_learn_from(lake: LandingLake, round_id: str) -> bool:
    labels = lake.tables.read_columns(TrainingSet, round_id, ["split", "shape"])
    return bool(((labels["split"] == "train") & labels["shape"].isin(AREAS)).any())


def _version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
