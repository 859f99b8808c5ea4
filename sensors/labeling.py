"""People's answers: a round is merged once every place holds one, and again when one is edited.

Where answers are asked for until they agree, further ones are asked for in between. A round in
which all images landed with labels asks nobody: it is merged at once.
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
    description="Merges a round once its answers are complete, and again when one is edited.",
)
def labeling_complete_sensor(
    context: dg.SensorEvaluationContext,
    labeling: dg.ResourceParam[LabelingBackend],
    lake: dg.ResourceParam[Lake],
    policy: dg.ResourceParam[Policy],
    looks: dg.ResourceParam[PollSchedule],
) -> dg.SensorResult | dg.SkipReason:
    """Merge a round once its answers are complete, and again when one of them is edited.

    Rounds still open are looked at whenever a look is due, merged ones in turn, one a look. The
    cursor keeps the stamp of each round that needs no further look as it stands, and why.
    """
    seen: dict[str, Any] = json.loads(context.cursor) if context.cursor else {}
    now = datetime.now(UTC)
    if too_soon := not_due(looks, seen.get("looked_at"), now):
        return too_soon
    asked = lake.tables.rounds(LabelTasks)
    merged = [key for key in asked if lake.tables.exists(ConsensusLabels, key)]
    turn, stamps = int(seen.get("turn", 0)) + 1, dict(seen.get("stamps", {}))
    looked_at = [key for key in asked if key not in merged and _NO_TASKS not in stamps.get(key, ())]
    if merged:
        looked_at.append(merged[turn % len(merged)])
    attempts = []
    for key in looked_at:
        try:
            attempts.append(_look(context.instance, key, labeling, lake, policy, stamps))
        except LabelingError as error:
            attempts.append(Attempt(None, f"{key}: {error}"))
    cursor = {"turn": turn, "stamps": stamps, "looked_at": now.isoformat()}
    return tick_result(attempts, idle=f"{len(merged)} rounds are merged.", cursor=cursor)


_NO_TASKS = "no tasks"
_DONE = ": done."


def _look(
    instance: dg.DagsterInstance,
    round_id: str,
    labeling: LabelingBackend,
    lake: Lake,
    policy: Policy,
    stamps: dict[str, list[str]],
) -> Attempt:
    """Return what is due for a round; ``stamps`` learns of rounds that need no further look."""
    tasks = lake.tables.read(LabelTasks, round_id)
    if tasks.empty:
        return _look_unasked(instance, round_id, lake, stamps)
    now = datetime.now(UTC)
    state = RoundRecord(lake.store, round_id).state
    late = state == "open" and deadline_passed(round_id, lake, policy.labeling, now=now)
    circumstances = f"{len(tasks)} places {state}{' late' * late} {policy.digest[:8]}"
    stamp = f"{labeling.change_token(round_id)} {circumstances}"
    known, sentence = stamps.get(round_id, ["", ""])
    if known == stamp:
        return Attempt(None, sentence, done=sentence.endswith(_DONE))
    held = labeling.progress(round_id)
    places = tasks.groupby(["task_id", "stands_for"]).ngroups
    # Only a full look tells more; it reads every answer.
    is_whole = held.tasks is None or held.tasks >= len(tasks)
    if held.annotations < places and is_whole and state == "open" and not late:
        return Attempt(None, f"{round_id}: {held.annotations} of {places} answers.")
    progress = round_progress(round_id, tasks, labeling, lake, policy, now=now)
    if progress.mergeable:
        attempt = next_attempt(instance, "merge_round", round_id, progress.digest)
        if attempt.done:
            stamps[round_id] = [stamp, f"{round_id}{_DONE}"]
        return attempt
    if progress.asks_again:
        # Each asking writes the table anew.
        cause = f"{progress.count.digest} {lake.tables.digest(LabelTasks, round_id)}"
        return next_attempt(instance, "ask_again", round_id, cause)
    sentence = f"{round_id}: {progress.sentence}"
    stamps[round_id] = [stamp, sentence]
    return Attempt(None, sentence)


def _look_unasked(
    instance: dg.DagsterInstance, round_id: str, lake: Lake, stamps: dict[str, list[str]]
) -> Attempt:
    """Return what is due for a round without tasks: a merge if its images landed with labels."""
    if usable_imports(lake.tables, [round_id]).empty:
        stamps[round_id] = [_NO_TASKS, ""]
        return Attempt(None, f"{round_id}: nothing new to label.", done=True)
    if lake.tables.exists(ConsensusLabels, round_id):
        return Attempt(None, f"{round_id}: done.", done=True)
    cause = lake.tables.digest(ImportedLabels, round_id)
    return next_attempt(instance, "merge_round", round_id, cause)
