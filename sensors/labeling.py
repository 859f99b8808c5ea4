"""Annotations: a round is merged once every assignment has one, and again after an edit.

If annotators do not agree, further annotations are requested before the merge. A round in which
all images have imported labels has no tasks and is merged at once.
"""

import json
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from annotation_platform.curation.training_set import usable_imports
from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.protocol import LabelingBackend
from annotation_platform.labeling.change_signals import PollSchedule
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.labeling.rounds import deadline_passed, round_progress
from annotation_platform.policy import Policy
from annotation_platform.schema.tables import ConsensusLabels, ImportedLabels, LabelTasks
from annotation_platform.storage.lake import Lake
from assets import jobs
from sensors.attempts import Attempt, next_attempt
from sensors.ticks import not_due, tick_result


@dg.sensor(
    jobs=[jobs.merge_round, jobs.ask_again],
    minimum_interval_seconds=3,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Merges a round once its annotations are complete, and again after an edit.",
)
def labeling_complete_sensor(
    context: dg.SensorEvaluationContext,
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Policy],
    poll_schedule: dg.ResourceParam[PollSchedule],
) -> dg.SensorResult | dg.SkipReason:
    """Merge a round once its annotations are complete, and again when one of them is edited.

    Each poll checks all open rounds, and one of the merged rounds in turn. The cursor stores, for
    each round that needs no further check, its change token and the reason.
    """
    seen: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    now = datetime.now(UTC)
    if too_soon := not_due(poll_schedule, seen.get("polled_at"), now):
        return too_soon
    started = lake.tables.rounds(LabelTasks)
    merged = [key for key in started if lake.tables.exists(ConsensusLabels, key)]
    turn, tokens = int(seen.get("turn", 0)) + 1, dict(seen.get("change_tokens", {}))
    polled = [key for key in started if key not in merged and _NO_TASKS not in tokens.get(key, ())]
    if merged:
        polled.append(merged[turn % len(merged)])
    attempts = []
    for key in polled:
        try:
            attempts.append(_poll(context.instance, key, labeling, lake, policy, tokens))
        except LabelingError as error:
            attempts.append(Attempt(None, f"{key}: {error}"))
    cursor = {"turn": turn, "change_tokens": tokens, "polled_at": now.isoformat()}
    return tick_result(attempts, idle=f"{len(merged)} rounds are merged.", cursor=cursor)


_NO_TASKS = "no tasks"
_DONE = ": done."


def _poll(
    instance: dg.DagsterInstance,
    round_id: str,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    tokens: dict[str, list[str]],
) -> Attempt:
    """Return the run that is due for a round; record its token if it needs no further check."""
    tasks = lake.tables.read(LabelTasks, round_id)
    if tasks.empty:
        return _poll_without_tasks(instance, round_id, lake, tokens)
    now = datetime.now(UTC)
    state = RoundRecord(lake.store, round_id).state
    late = state == "open" and deadline_passed(round_id, lake, policy.labeling, now=now)
    situation = f"{len(tasks)} assignments {state}{' late' * late} {policy.digest[:8]}"
    token = f"{labeling.change_token(round_id)} {situation}"
    known, sentence = tokens.get(round_id, ["", ""])
    if known == token:
        return Attempt(None, sentence, done=sentence.endswith(_DONE))
    submitted = labeling.progress(round_id)
    needed = tasks.groupby([LabelTasks.task_id, LabelTasks.fills_assignment]).ngroups
    # The full progress reads every annotation, so it is computed only if it can decide.
    is_whole = submitted.tasks is None or submitted.tasks >= len(tasks)
    if submitted.annotations < needed and is_whole and state == "open" and not late:
        return Attempt(None, f"{round_id}: {submitted.annotations} of {needed} annotations.")
    progress = round_progress(round_id, tasks, labeling, lake, policy, now=now)
    if progress.mergeable:
        attempt = next_attempt(instance, "merge_round", round_id, progress.digest)
        if attempt.done:
            tokens[round_id] = [token, f"{round_id}{_DONE}"]
        return attempt
    if progress.asks_again:
        # Each request changes the table, and with it the cause.
        cause = f"{progress.count.digest} {lake.tables.digest(LabelTasks, round_id)}"
        return next_attempt(instance, "ask_again", round_id, cause)
    sentence = f"{round_id}: {progress.sentence}"
    tokens[round_id] = [token, sentence]
    return Attempt(None, sentence)


def _poll_without_tasks(
    instance: dg.DagsterInstance, round_id: str, lake: Lake, tokens: dict[str, list[str]]
) -> Attempt:
    """Return the run that is due for a round without tasks: a merge if it has imported labels."""
    if usable_imports(lake.tables, [round_id]).empty:
        tokens[round_id] = [_NO_TASKS, ""]
        return Attempt(None, f"{round_id}: no new image to annotate.", done=True)
    if lake.tables.exists(ConsensusLabels, round_id):
        return Attempt(None, f"{round_id}: done.", done=True)
    cause = lake.tables.digest(ImportedLabels, round_id)
    return next_attempt(instance, "merge_round", round_id, cause)
