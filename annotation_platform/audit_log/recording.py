"""Record the events of a lake, each once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from annotation_platform.audit_log.events import Event, EventLog
from annotation_platform.policy import Policy
from annotation_platform.schema.setting_changes import changed_settings
from annotation_platform.storage.journal import Journal
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.pseudonyms import pseudonym_of


def record_policy(
    policy: Policy, lake: Lake, *, used_for: str, now: datetime, actor: str = ""
) -> None:
    """Record the changed settings if a policy differs from the one recorded last.

    The policy is stored in the lake under its digest, so that the next one can be compared with it.

    Args:
        policy: the policy in use.
        lake: the lake.
        used_for: its use, such as ``label_tasks of round-0001``.
        now: the time.
        actor: who uses it; empty: the actor of the lake's access log.
    """
    text = json.dumps(policy.model_dump(mode="json"), sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()

    def due(recorded: str) -> tuple[Sequence[Event], str | None]:
        if recorded == digest:
            return (), None
        lake.tables.lineage.keep(text, kind="json")
        changed = _changed(recorded, text, lake)
        facts = {"before": recorded, "settings": changed}
        return [Event("policy", digest, f"used for {used_for}", actor, facts)], digest

    EventLog(lake.store).append_if(due, now=now)


def record_release(
    round_id: str, version: Mapping[str, Any], lake: Lake, *, now: datetime, actor: str = ""
) -> None:
    """Record a version that was published from a round.

    An existing version is recorded, too, if it is not yet: its publisher may have been interrupted.

    Args:
        round_id: the round.
        version: its row of ``dataset_version``.
        lake: the lake.
        now: the time.
        actor: who publishes it; empty: the actor of the lake's access log.
    """
    facts = {name: version[name] for name in ("commit", "folder_md5", "images", "new_version")}
    tag = str(version["tag"])
    event = Event("release", tag, author=actor, facts={"round": round_id, **facts})
    record_once(f"releases/{tag}", {"release": event}, lake, now=now)


def record_stage(tag: str, stage: str, lake: Lake, *, reason: str, now: datetime) -> None:
    """Record the new stage of a version, such as ``production`` or ``deprecated``."""
    event = Event("stage", tag, " ".join(reason.split()), facts={"stage": stage})
    EventLog(lake.store).append([event], now=now)


def record_skill(person: str, skill: str, lake: Lake, *, granted: bool, now: datetime) -> None:
    """Record that a person, given by address, was granted a skill or lost it."""
    facts = {"skill": skill, "granted": granted}
    event = Event("skill", pseudonym_of(lake.store, person), facts=facts)
    EventLog(lake.store).append([event], now=now)


def record_person(person: str, change: str, lake: Lake, *, now: datetime) -> None:
    """Record that a person, given by address, was ``added`` to the annotators or ``removed``."""
    event = Event("people", pseudonym_of(lake.store, person), facts={"change": change})
    EventLog(lake.store).append([event], now=now)


def record_erasure(
    subject: str, lake: Lake, *, reason: str, facts: Mapping[str, Any], now: datetime
) -> None:
    """Record an erasure with its reason; ``subject`` must not reveal the erased content."""
    EventLog(lake.store).append([Event("erasure", subject, reason, facts=dict(facts))], now=now)


def record_once(folder: str, events: Mapping[str, Event], lake: Lake, *, now: datetime) -> None:
    """Append the events that are not recorded yet, identified by their names in the folder.

    The folder of the lake holds the names of the recorded ones. After an interruption between the
    event and its marker the event is appended twice, which is better than its loss.
    """
    if not events:
        return
    markers = Journal(lake.store, folder)
    recorded = {name for entry in markers.read() for name in json.loads(entry)}
    new = {name: event for name, event in events.items() if name not in recorded}
    if new:
        EventLog(lake.store).append(list(new.values()), now=now)
        markers.append(json.dumps(list(new)).encode() + b"\n")


def _changed(recorded: str, text: bytes, lake: Lake) -> dict[str, Any] | None:
    """Return the settings that changed since a policy; None without an earlier policy."""
    lineage = lake.tables.lineage
    if not recorded or not lineage.holds(recorded, kind="json"):
        return None
    before = json.loads(lineage.load(recorded, kind="json"))
    # An earlier release may use other keys, which are no changes.
    with suppress(ValidationError):
        before = Policy.model_validate(before).model_dump(mode="json")
    return {key: list(pair) for key, pair in changed_settings(before, json.loads(text)).items()}
