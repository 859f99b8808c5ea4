"""One poll of the landing zone: whether to list it, and the round to form."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from annotation_platform.errors import NotReadyError
from annotation_platform.ingestion.events import LandingEvents
from annotation_platform.ingestion.lake import LandingLake
from annotation_platform.ingestion.rounds import plan_round
from annotation_platform.policy import RoundPolicy
from annotation_platform.schema.tables import LabelTasks


@dataclass(frozen=True)
class Watched:
    """The result of a poll.

    ``waits_for`` is a sentence on why there is no new round, empty if one was formed. The landing
    zone is listed again at ``list_at``, or earlier if an event signals a new object.
    """

    waits_for: str
    list_at: datetime


def watch_landing_zone(
    lake: LandingLake,
    events: LandingEvents,
    policy: RoundPolicy,
    *,
    list_at: datetime | None,
    now: datetime,
    policy_digest: str = "",
) -> Watched:
    """Form the next round, by one atomic create, if enough images have landed.

    Without a queue of events, the landing zone is listed in every poll. With one, it is listed
    after an event, when a round may have become due by waiting, and at least every
    ``listing_seconds``, because events may be lost.

    Args:
        lake: the lake and its landing zone.
        events: the queue of the landing zone.
        policy: the limits for forming a round.
        list_at: the time of the next listing, from the previous poll; None if it is unknown.
        now: the current time.
        policy_digest: digest of the whole policy, which the round records.
    """
    signals = events.receive()
    if events.url and not signals.keys and list_at is not None and now < list_at:
        events.acknowledge(signals)
        left = (list_at - now).total_seconds()
        return Watched(f"No event; the next listing is in {left:.0f} s.", list_at)
    taken = lake.manifests.taken()
    plan = plan_round(lake.landed(now=now), taken.objects, policy)
    if plan.objects:
        lake.manifests.create(taken.next_round, plan.objects, policy_digest=policy_digest)
    events.acknowledge(signals)
    # After one round was formed, the remaining objects may form another one.
    wait = 0.0 if plan.objects else plan.poll_again_seconds
    again = min(policy.listing_seconds, policy.listing_seconds if wait is None else wait)
    return Watched(plan.waits_for, now + timedelta(seconds=again))


def round_to_start(
    lake: LandingLake, events: LandingEvents, policy: RoundPolicy, *, now: datetime
) -> str:
    """Return the oldest round that is not started; if there is none, form the next round.

    Raises:
        NotReadyError: too few images have landed for a round; the message has the numbers.
    """
    if waiting := _waiting(lake):
        return waiting[0]
    watched = watch_landing_zone(lake, events, policy, list_at=None, now=now)
    if waiting := _waiting(lake):
        return waiting[0]
    raise NotReadyError(f"There is no round to start. {watched.waits_for}")


def _waiting(lake: LandingLake) -> list[str]:
    rounds = lake.manifests.rounds()
    return [key for key in rounds if not lake.tables.exists(LabelTasks, key)]
