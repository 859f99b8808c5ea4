"""What is written into the events of a lake, and when: each thing once."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from annotation_platform.governance.audit_log.events import Event, EventLog
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.policy import Policy
from annotation_platform.schema.setting_changes import changed_settings
from annotation_platform.storage.journal import Journal

if TYPE_CHECKING:
    from annotation_platform.labeling.reviews import Decided
    from annotation_platform.storage.lake import Lake


def record_policy(policy: Policy, lake: "Lake", *, used_for: str, now: datetime) -> None:
    """Note which settings changed if this policy is another one than was noted last.

    The policy is kept in the lake under its digest, so that the next one can be compared with it.

    Args:
        policy: the one that is used.
        lake: where.
        used_for: such as ``label_tasks of round-0001``.
        now: the time.
    """
    text = json.dumps(policy.model_dump(mode="json"), sort_keys=True).encode()
    digest = hashlib.sha256(text).hexdigest()

    def due(noted: str) -> tuple[Sequence[Event], str | None]:
        if noted == digest:
            return (), None
        lake.tables.lineage.keep(text, kind="json")
        changed = _changed(noted, text, lake)
        facts = {"before": noted, "settings": changed}
        return [Event("policy", digest, f"used for {used_for}", facts=facts)], digest

    EventLog(lake.store).append_if(due, now=now)


def record_decisions(round_id: str, lake: "Lake", *, now: datetime) -> None:
    """Note what was decided about a round, and is not noted yet: closed, cancelled, re-opened."""
    decisions = RoundRecord(lake.store, round_id).read()
    events = {
        f"decision {number}": Event(
            "round",
            round_id,
            each.reason,
            each.by,
            {"decision": each.action, "decided_at": each.at.isoformat()},
        )
        for number, each in enumerate(decisions, start=1)
    }
    _note_once(f"rounds/{round_id}/noted", events, lake, now)


def record_reviews(round_id: str, decided: "Decided", lake: "Lake", *, now: datetime) -> None:
    """Note the decisions of reviewers on a round that are not noted yet, each under a pseudonym."""
    events = {}
    for image, review in sorted(decided.reviews.items()):
        by, at = decided.by[image], decided.at[image].isoformat()
        said = json.dumps([image, by, at, review.decision, review.comment])
        facts = {"round": round_id, "decision": review.decision, "decided_at": at}
        name = f"review {hashlib.sha256(said.encode()).hexdigest()[:16]}"
        events[name] = Event("review", image, review.comment, by, facts)
    _note_once(f"rounds/{round_id}/noted", events, lake, now)


def record_release(
    round_id: str, version: Mapping[str, Any], lake: "Lake", *, now: datetime
) -> None:
    """Note a version that was published from a round.

    One that was there already is noted too if it never was: who published it may have been stopped.

    Args:
        round_id: the round.
        version: its row of ``dataset_version``.
        lake: where.
        now: the time.
    """
    facts = {name: version[name] for name in ("commit", "folder_md5", "images", "new_version")}
    tag = str(version["tag"])
    event = Event("release", tag, facts={"round": round_id, **facts})
    _note_once(f"releases/{tag}", {"release": event}, lake, now)


def record_stage(tag: str, stage: str, lake: "Lake", *, reason: str, now: datetime) -> None:
    """Note what a version is used for from now on, such as ``production`` or ``deprecated``."""
    event = Event("stage", tag, " ".join(reason.split()), facts={"stage": stage})
    EventLog(lake.store).append([event], now=now)


def record_skill(person: str, skill: str, lake: "Lake", *, granted: bool, now: datetime) -> None:
    """Note that somebody, given by address, has a skill from now on or has it no more."""
    facts = {"skill": skill, "granted": granted}
    event = Event("skill", AnnotationsLedger(lake.store).pseudonym(person), facts=facts)
    EventLog(lake.store).append([event], now=now)


def record_person(person: str, change: str, lake: "Lake", *, now: datetime) -> None:
    """Note that somebody, given by address, was ``added`` to those who label, or ``removed``."""
    event = Event(
        "people", AnnotationsLedger(lake.store).pseudonym(person), facts={"change": change}
    )
    EventLog(lake.store).append([event], now=now)


def record_erasure(
    subject: str, lake: "Lake", *, reason: str, facts: Mapping[str, Any], now: datetime
) -> None:
    """Note that something was erased: what, named so that it tells nothing of it, and why."""
    EventLog(lake.store).append([Event("erasure", subject, reason, facts=dict(facts))], now=now)


def _note_once(folder: str, events: Mapping[str, Event], lake: "Lake", now: datetime) -> None:
    """Write those events that are not noted yet; each is known by its name within the folder.

    Who is stopped between the event and the note of it writes it once more: rather than losing one.
    """
    if not events:
        return
    notes = Journal(lake.store, folder)
    noted = {name for entry in notes.read() for name in json.loads(entry)}
    new = {name: event for name, event in events.items() if name not in noted}
    if new:
        EventLog(lake.store).append(list(new.values()), now=now)
        notes.append(json.dumps(list(new)).encode() + b"\n")


def _changed(noted: str, text: bytes, lake: "Lake") -> dict[str, Any] | None:
    """Return the settings that changed since a policy; None if there is none to compare with."""
    lineage = lake.tables.lineage
    if not noted or not lineage.holds(noted, kind="json"):
        return None
    before = json.loads(lineage.load(noted, kind="json"))
    return {key: list(pair) for key, pair in changed_settings(before, json.loads(text)).items()}
